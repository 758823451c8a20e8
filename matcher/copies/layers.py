"""One picture laid over another: warped into its pixels, aligned more finely, brought to one sharpness, and compared block by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from matcher.pixels import F32, F64, U8

BLOCK: Final = 12
_STEPS: Final = 3
_FARTHEST: Final = 13.0
_SETTLED: Final = 0.05
_CORNERED: Final = 0.03
_ALIKE: Final = 1.12
_SOFTER: Final = (0.6, 0.8, 1.0, 1.3, 1.7, 2.2)


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """Squares of `BLOCK` pixels, row by row. `ncc`: n, normalised cross-correlation, -1..1; `source`, `frame`: n, standard deviation in
    each picture; `whole`: n, whether both pictures show all of it."""

    ncc: F32
    source: F32
    frame: F32
    whole: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Laid:
    """`source` in the pixels of `frame`, and the `mask` of those that both have; H x W each."""

    source: F32
    frame: F32
    mask: U8

    @property
    def whole(self) -> npt.NDArray[np.bool_]:
        """n: whether both pictures show all of a block."""
        return np.asarray(cut(self.mask.astype(np.float32)).min(axis=1) > 0)

    def blocks(self) -> Blocks:
        left, right = _centred(self.source), _centred(self.frame)
        spread_l, spread_r = _spread(left), _spread(right)
        ncc = np.einsum("ij,ij->i", left, right) / BLOCK**2 / np.maximum(spread_l * spread_r, 1e-3)
        return Blocks(ncc.clip(-1, 1), spread_l, spread_r, self.whole)

    def same_sharpness(self) -> Laid:
        """The sharper of the two blurred until its finest detail is as strong as the other's: a blurred copy is a copy."""
        source, frame = _sharpness(self.source, self.mask), _sharpness(self.frame, self.mask)
        if max(source, frame) < _ALIKE * min(source, frame):
            return self
        if source > frame:
            return Laid(_softened(self.source, self.mask, frame), self.frame, self.mask)
        return Laid(self.source, _softened(self.frame, self.mask, source), self.mask)


@dataclass(frozen=True, slots=True, eq=False)
class Layers:
    """Two gray pictures, and the 3 x 3 `transform` that maps pixels of `source` to those of `frame`."""

    transform: F64
    source: U8
    frame: U8

    def laid(self) -> Laid:
        size = self.frame.shape[::-1]
        warped = cv2.warpPerspective(self.source.astype(np.float32), self.transform, size, flags=cv2.INTER_LINEAR)
        mask = cv2.warpPerspective(np.full(self.source.shape, 255, np.uint8), self.transform, size, flags=cv2.INTER_NEAREST)
        # what stands beside the picture bleeds into its edge
        mask = cv2.erode(mask, np.ones((5, 5), np.uint8))
        return Laid(np.asarray(warped, np.float32), self.frame.astype(np.float32), np.asarray(mask, np.uint8))

    def aligned(self) -> Layers:
        """After a few Gauss-Newton steps (Lucas and Kanade 1981) of an affine correction; unchanged where they lead far away.

        Each block counts by how well it agrees already, with its own brightness and contrast: what was laid over one of the pictures
        does not pull.
        """
        height, width = self.frame.shape
        corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], float)
        transform = self.transform
        for _ in range(_STEPS):
            step = Pull.of(Layers(transform, self.source, self.frame).laid()).step(self.frame.shape)
            if step is None:
                break
            transform = np.linalg.inv(step) @ transform
            if np.abs(corners @ (step - np.eye(3)).T).max() < _SETTLED:
                break
        drift = corners @ (transform @ np.linalg.inv(self.transform)).T
        moved = np.abs(drift[:, :2] / drift[:, 2:] - corners[:, :2]).max()
        return Layers(transform, self.source, self.frame) if moved < _FARTHEST else self


def cut(image: F32) -> F32:
    """The whole blocks of an H x W picture, n x BLOCK²."""
    rows, columns = image.shape[0] // BLOCK, image.shape[1] // BLOCK
    part = image[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)
    return part.transpose(0, 2, 1, 3).reshape(rows * columns, BLOCK * BLOCK)


def _centred(image: F32) -> F32:
    """Its blocks, each without its mean."""
    blocks = cut(image)
    return np.asarray(blocks - blocks.mean(axis=1, keepdims=True), np.float32)


def _spread(centred: F32) -> F32:
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", centred, centred) / centred.shape[1]), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Pull:
    """What each block says of where it belongs (Lucas and Kanade 1981): `xx`, `xy`, `yy`: n, its structure tensor in the warped source;
    `xe`, `ye`: n, the tensor times the displacement, frame -> source in pixels; with the block's own brightness and contrast taken
    out, and weighted by how well it agrees already: what was laid over one of the pictures does not pull."""

    xx: F32
    xy: F32
    yy: F32
    xe: F32
    ye: F32

    @classmethod
    def of(cls, laid: Laid) -> Pull:
        frame, source = (np.asarray(cv2.GaussianBlur(image, (0, 0), 1.0), np.float32) for image in (laid.frame, laid.source))
        gx, gy = (cut(np.asarray(cv2.Sobel(source, cv2.CV_32F, *which, ksize=3, scale=1 / 8), np.float32)) for which in ((1, 0), (0, 1)))
        a, b = _centred(frame), _centred(source)
        spread_a, spread_b = np.maximum(_spread(a), 2.0), np.maximum(_spread(b), 2.0)
        ncc = np.einsum("ij,ij->i", a, b) / BLOCK**2 / (spread_a * spread_b)
        weight = ncc.clip(0, 1) ** 2 * laid.whole / spread_b**2
        miss = a * (spread_b / spread_a)[:, None] - b
        return cls(*(np.einsum("ij,ij->i", p, q) * weight for p, q in ((gx, gx), (gx, gy), (gy, gy), (gx, miss), (gy, miss))))

    def step(self, shape: tuple[int, ...]) -> F64 | None:
        """3 x 3: the affine displacement that the blocks of a picture of that shape agree on; None where they fix none."""
        rows, columns = shape[0] // BLOCK, shape[1] // BLOCK
        y, x = ((np.indices((rows, columns)).reshape(2, -1) + 0.5) * BLOCK) - 0.5
        place = np.stack([x, y, np.ones_like(x)], axis=1)
        across = _moment(place, self.xy)
        matrix = np.block([[_moment(place, self.xx), across], [across, _moment(place, self.yy)]])
        try:
            found = np.linalg.solve(matrix + np.eye(6) * 1e-6 * np.trace(matrix), np.concatenate([place.T @ self.xe, place.T @ self.ye]))
        except np.linalg.LinAlgError:
            return None
        return np.eye(3) + np.vstack([found.reshape(2, 3), np.zeros(3)]) if np.isfinite(found).all() else None

    def slips(self) -> F64:
        """How far (pixels) each block with corners and agreement lies beside its place; NaN for the others."""
        determinant, trace = self.xx * self.yy - self.xy**2, self.xx + self.yy
        with np.errstate(divide="ignore", invalid="ignore"):
            x = (self.yy * self.xe - self.xy * self.ye) / determinant
            y = (self.xx * self.ye - self.xy * self.xe) / determinant
            cornered = determinant > _CORNERED * trace**2
        return np.where(cornered & (trace > 1e-3), np.hypot(x, y), np.nan)


def _moment(place: F64, weight: F32) -> F64:
    return np.asarray(place.T @ (place * weight[:, None]))


def _sharpness(image: F32, mask: U8) -> float:
    """How strong the finest detail is beside what is four times as coarse."""
    fine, middle, coarse = image, cv2.GaussianBlur(image, (0, 0), 1.0), cv2.GaussianBlur(image, (0, 0), 4.0)
    seen = mask > 0
    return float(np.sqrt(np.square(fine - middle)[seen].sum() / max(np.square(middle - coarse)[seen].sum(), 1e-3)))


def _softened(image: F32, mask: U8, target: float) -> F32:
    """Blurred by the Gaussian of `_SOFTER` after which its sharpness is nearest to `target`."""
    best, distance = image, float("inf")
    for sigma in _SOFTER:
        softer = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)
        ratio = np.log(max(_sharpness(softer, mask), 1e-6) / max(target, 1e-6))
        if abs(ratio) < distance:
            best, distance = softer, abs(ratio)
        if ratio < 0:
            break
    return best
