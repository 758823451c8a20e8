"""One picture laid over another: warped into its pixels, aligned more finely, brought to one sharpness, and compared block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from matcher.pixels import F32, F64, U8

BLOCK: Final = 12
_EDGE: Final = 2
_FREE: Final = (6, 8, 8, 8, 8, 8)
_UNIT: Final = 128.0
_TO_PIXELS: Final = np.diag([_UNIT, _UNIT, 1.0])
_FARTHEST: Final = 13.0
"""Pixels that a corner may be moved by the alignment; geometry is never that wrong."""
_SETTLED: Final = 0.05
"""Pixels that a last step moves a corner by at most."""
_GRAY: Final = np.float32(128)
_NOISE: Final = 2.0
_STRONG: Final = 10.0
"""Gray levels of deviation above which a block pulls no more than others."""
_CORNERED: Final = 0.03
"""Least determinant of a structure tensor, of its squared trace (at most .25): below, an edge slides along itself."""
_FAINT: Final = 1e-6
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
    """`source` in the pixels of `frame`, H x W each; `whole`: n, of which blocks both show all."""

    source: F32
    frame: F32
    whole: npt.NDArray[np.bool_]

    def blocks(self) -> Blocks:
        ncc, source, frame = _correlated(self.source, self.frame, 0.03)
        return Blocks(ncc, source, frame, self.whole)

    def same_sharpness(self) -> Laid:
        """The sharper of the two blurred until its finest detail is as strong as the other's: a blurred copy is a copy."""
        source, frame = _sharpness(self.source, self.whole), _sharpness(self.frame, self.whole)
        if max(source, frame) < _ALIKE * min(source, frame):
            return self
        if source > frame:
            return Laid(_softened(self.source, self.whole, frame), self.frame, self.whole)
        return Laid(self.source, _softened(self.frame, self.whole, source), self.whole)


@dataclass(frozen=True, slots=True, eq=False)
class Layers:
    """Two gray pictures, and the 3 x 3 `transform` that maps pixels of `source` to those of `frame`."""

    transform: F64
    source: U8
    frame: U8

    def laid(self) -> Laid:
        size = self.frame.shape[::-1]
        warped = cv2.warpPerspective(self.source.astype(np.float32), self.transform, size, flags=cv2.INTER_LINEAR)
        return Laid(np.asarray(warped, np.float32), self.frame.astype(np.float32), self._whole())

    def _whole(self) -> npt.NDArray[np.bool_]:
        """Whether the source shows all of a block; what stands beside a picture bleeds into its edge."""
        grid, back = Grid.of(self.frame.shape), np.linalg.inv(self.transform)
        x, y = grid.corners
        moved = back @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
        coarse = _EDGE * max(1.0, float(np.sqrt(abs(np.linalg.det(back[:2, :2])))))
        (height, width), (u, v, depth) = self.source.shape, moved
        with np.errstate(divide="ignore", invalid="ignore"):
            u, v = u / depth + 0.5, v / depth + 0.5
        shown = (depth > 0) & (u > coarse) & (u < width - coarse) & (v > coarse) & (v < height - coarse)
        table = shown.reshape(x.shape)
        return np.asarray(table[1:, 1:] & table[1:, :-1] & table[:-1, 1:] & table[:-1, :-1]).ravel()

    def steps(self) -> Iterator[tuple[Laid, Pull]]:
        """As they lie, then after each of a few Gauss-Newton steps (Lucas and Kanade 1981), affine ones before projective ones, until the
        blocks pull no more or have led far away.

        Each block counts by how well it agrees already, with its own brightness and contrast: what was laid over one of the pictures
        does not pull.
        """
        height, width = self.frame.shape
        corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], float)
        back, transform = np.linalg.inv(self.transform), self.transform
        for free in _FREE:
            laid = Layers(transform, self.source, self.frame).laid()
            pull = Pull.of(laid)
            yield laid, pull
            step = pull.step(free)
            if step is None or (free == _FREE[-1] and _moved(corners, step) < _SETTLED):
                return
            transform = np.linalg.inv(step) @ transform
            if not _moved(corners, transform @ back) < _FARTHEST:
                return
        laid = Layers(transform, self.source, self.frame).laid()
        yield laid, Pull.of(laid)


def _moved(corners: F64, step: F64) -> float:
    """How far (pixels) the farthest corner goes."""
    after = corners @ step.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.abs(after[:, :2] / after[:, 2:] - corners[:, :2]).max())


class Grid(NamedTuple):
    """Where the blocks of a picture lie, in its middle: what surrounds a picture has often bled into its outermost pixels."""

    rows: int
    columns: int
    top: int
    left: int

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> Grid:
        """Of an H x W picture."""
        rows, columns = (max(0, side - 2 * _EDGE) // BLOCK for side in shape[:2])
        return cls(rows, columns, (shape[0] - rows * BLOCK) // 2, (shape[1] - columns * BLOCK) // 2)

    @property
    def corners(self) -> tuple[F64, F64]:
        """x and y (pixels) of where blocks meet, rows + 1 x columns + 1 each."""
        y, x = np.indices((self.rows + 1, self.columns + 1)) * BLOCK - 0.5
        return x + self.left, y + self.top

    @property
    def middles(self) -> tuple[F64, F64]:
        """x and y (pixels) of the blocks' middles, n each, row by row."""
        y, x = (np.indices((self.rows, self.columns)).reshape(2, -1) + 0.5) * BLOCK - 0.5
        return x + self.left, y + self.top


def means(image: F32) -> F32:
    """Of each block of an H x W picture; n."""
    rows, columns, top, left = Grid.of(image.shape)
    if not rows * columns:
        return np.zeros(0, np.float32)
    part = image[top : top + rows * BLOCK, left : left + columns * BLOCK]
    return np.asarray(cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA), np.float32).ravel()


def _correlated(first: F32, second: F32, least: float) -> tuple[F32, F32, F32]:
    """Of each block the NCC, where deviations below `least` count as that, and the deviation in either."""
    a, b = first - _GRAY, second - _GRAY
    mean_a, mean_b = means(a), means(b)
    spread_a, spread_b = np.sqrt((means(a * a) - mean_a**2).clip(0)), np.sqrt((means(b * b) - mean_b**2).clip(0))
    ncc = (means(a * b) - mean_a * mean_b) / (np.maximum(spread_a, least) * np.maximum(spread_b, least))
    return ncc.clip(-1, 1), spread_a, spread_b


@dataclass(frozen=True, slots=True, eq=False)
class Pull:
    """What each block says of where it belongs (Lucas and Kanade 1981), with noise smoothed away and its own brightness and contrast taken
    out. Of n blocks in a `grid`: `xx`, `xy`, `yy`: its structure tensor in the warped source; `xe`, `ye`: the tensor times the
    displacement, frame -> source in pixels; all weighted by how well it agrees already, and strong ones no more than others; `ncc`,
    `source`, `frame`: correlation, and deviation in either."""

    grid: Grid
    xx: F32
    xy: F32
    yy: F32
    xe: F32
    ye: F32
    ncc: F32
    source: F32
    frame: F32

    @classmethod
    def of(cls, laid: Laid) -> Pull:
        frame, source = (np.asarray(cv2.GaussianBlur(image, (0, 0), 1.0), np.float32) for image in (laid.frame, laid.source))
        ncc, spread_a, spread_b = _correlated(frame, source, _NOISE)
        gain = np.maximum(spread_b, _NOISE) / np.maximum(spread_a, _NOISE)
        gx, gy = (np.asarray(cv2.Sobel(source, cv2.CV_32F, *axis, ksize=3, scale=1 / 8), np.float32) for axis in ((1, 0), (0, 1)))
        weight = ncc.clip(0, 1) ** 2 * laid.whole / np.maximum(spread_b, _STRONG) ** 2
        a, b = frame - _GRAY, source - _GRAY
        mean_a, mean_b = means(a), means(b)

        def missed(slope: F32) -> F32:
            mean = means(slope)
            miss = (means(slope * a) - mean * mean_a) * gain - (means(slope * b) - mean * mean_b)
            return np.asarray(miss, np.float32)

        sums = (means(gx * gx), means(gx * gy), means(gy * gy), missed(gx), missed(gy))
        xx, xy, yy, xe, ye = (np.asarray(each * weight, np.float32) for each in sums)
        return cls(Grid.of(laid.frame.shape), xx, xy, yy, xe, ye, ncc, spread_b, spread_a)

    def step(self, free: int) -> F64 | None:
        """3 x 3: the displacement that the blocks agree on, affine (6 free) or projective (8); None where they fix none."""
        x, y = (middles / _UNIT for middles in self.grid.middles)
        one, none = np.ones_like(x), np.zeros_like(x)
        right = np.stack([x, y, one, none, none, none, x * x, x * y])[:free]
        down = np.stack([none, none, none, x, y, one, x * y, y * y])[:free]
        across = (right * self.xy) @ down.T
        matrix = (right * self.xx) @ right.T + across + across.T + (down * self.yy) @ down.T
        if np.trace(matrix) < _FAINT:
            return None
        try:
            found = np.linalg.solve(matrix + np.eye(free) * 1e-6 * np.trace(matrix), right @ self.xe + down @ self.ye) / _UNIT
        except np.linalg.LinAlgError:
            return None
        if not np.isfinite(found).all():
            return None
        step = np.eye(3)
        step[:2] += found[:6].reshape(2, 3)
        step[2, : free - 6] -= found[6:]
        return np.asarray(_TO_PIXELS @ step @ np.linalg.inv(_TO_PIXELS))

    def slips(self, chosen: npt.NDArray[np.bool_]) -> F64:
        """How far (pixels) the chosen blocks, each with those around it, lie beside their places; those without corners are left out.
        Noise moves neighbours apart, parallax together."""
        if not chosen.any():
            return np.zeros(0)
        xx, xy, yy, xe, ye = (self._around(np.where(chosen, sums, 0)) for sums in (self.xx, self.xy, self.yy, self.xe, self.ye))
        determinant, trace = xx * yy - xy**2, xx + yy
        cornered = chosen & (determinant > _CORNERED * trace**2) & (trace > _FAINT)
        with np.errstate(divide="ignore", invalid="ignore"):
            slips = np.hypot((yy * xe - xy * ye) / determinant, (xx * ye - xy * xe) / determinant)
        return np.asarray(slips[cornered], float)

    def _around(self, sums: F32) -> F32:
        """Means over 3 x 3 blocks."""
        table = sums.reshape(self.grid.rows, self.grid.columns)
        return np.asarray(cv2.blur(table, (3, 3), borderType=cv2.BORDER_CONSTANT), np.float32).ravel()


def _sharpness(image: F32, whole: npt.NDArray[np.bool_]) -> float:
    """How strong the finest detail is beside what is four times as coarse."""
    fine, middle, coarse = image, cv2.GaussianBlur(image, (0, 0), 1.0), cv2.GaussianBlur(image, (0, 0), 4.0)
    finest, rest = (float(means(np.square(np.asarray(each, np.float32)))[whole].sum()) for each in (fine - middle, middle - coarse))
    return float(np.sqrt(finest / max(rest, 1e-3)))


def _softened(image: F32, whole: npt.NDArray[np.bool_], target: float) -> F32:
    """Blurred by the Gaussian of `_SOFTER` after which its sharpness is nearest to `target`."""
    best, distance = image, float("inf")
    for sigma in _SOFTER:
        softer = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)
        ratio = np.log(max(_sharpness(softer, whole), 1e-6) / max(target, 1e-6))
        if abs(ratio) < distance:
            best, distance = softer, abs(ratio)
        if ratio < 0:
            break
    return best
