"""How alike two pictures are once one is laid over the other.

Matching features alone do not tell a copy from a second photo of the same scene, nor two screenshots with the same buttons apart. So the
thumbnails are aligned and compared block by block with normalised cross-correlation (NCC): in a copy nearly every textured block agrees,
under parallax or another text many do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import cv2
import numpy as np

from matcher.copies.features import THUMBNAIL_SIDE, Fingerprint, thumbnail_of
from matcher.copies.geometry import Geometry
from matcher.pixels import F32, F64, U8, scaling

_BLOCK: Final = 12
_FLAT: Final = 4.0
_FLAT_GRAPHIC: Final = 10.0
_AGREES: Final = 0.75
_AGREES_GRAPHIC: Final = 0.5
_MIN_BLOCKS: Final = 12
_MIN_COVER: Final = 0.6
_LEVELS: Final = 3
_GRAPHIC: Final = 0.25
_HOPELESS: Final = 0.4
_SAMPLES: Final = 40


@dataclass(frozen=True, slots=True)
class Likeness:
    """How well the aligned pictures agree. `blocks`: how many textured ones were compared; `share`: of those that agree; `median`,
    `upper`: the NCC's median and upper quartile; `cover`: how much of either picture was compared; `graphic`: drawn, not photographed."""

    blocks: int
    share: float
    median: float
    upper: float
    cover: float
    graphic: bool

    @property
    def is_copy(self) -> bool:
        """Photographs may have something laid over them. Screenshots are built from the same parts, so all of it has to agree."""
        if self.blocks < _MIN_BLOCKS or self.cover < _MIN_COVER:
            return False
        if self.graphic:
            return self.share >= 0.95 and self.median >= (0.85 if self.share >= 0.98 else 0.92)
        return (self.share >= 0.75 and self.median >= 0.85) or (self.share >= 0.4 and self.upper >= 0.96)


def compare(registered: Fingerprint, query: Fingerprint, geometry: Geometry, *, flipped: bool = False) -> tuple[float, Likeness]:
    """(overlap, likeness) of the thumbnails, one laid over the other by the geometry and, where that may help, aligned more finely.

    `flipped`: the geometry is that of the query's mirror. Raises FingerprintInvalid.
    """
    left, right = thumbnail_of(registered), _thumbnail(query, flipped)
    to_left, to_right = scaling(registered.small, left.shape[::-1]), scaling(query.small, right.shape[::-1])
    transform = to_right @ geometry.transform @ np.linalg.inv(to_left)
    inverse = np.linalg.inv(transform)
    overlap, shown = covered(transform, left, right), covered(inverse, right, left)
    cover, graphic = max(overlap, shown), is_graphic(left)
    if shown > overlap:
        layers = _layers(transform, left, right, _blur(registered), _blur(query))
    else:
        layers = _layers(inverse, right, left, _blur(query), _blur(registered))
    likeness = _likeness(*_laid(*layers), cover, graphic)
    if not likeness.is_copy and likeness.median > _HOPELESS and cover >= _MIN_COVER:
        likeness = _likeness(*_laid(_fine(*layers), *layers[1:]), cover, graphic)
    return overlap, likeness


@lru_cache(8)
def _thumbnail(query: Fingerprint, flipped: bool) -> U8:
    """A query meets many registered pictures: its thumbnail is decoded once."""
    thumbnail = thumbnail_of(query)
    return np.ascontiguousarray(thumbnail[:, ::-1]) if flipped else thumbnail


def _likeness(a: F32, b: F32, mask: U8, cover: float, graphic: bool) -> Likeness:
    flat, agrees = (_FLAT_GRAPHIC, _AGREES_GRAPHIC) if graphic else (_FLAT, _AGREES)
    ncc = _blocks(a, b, mask, flat)
    if not len(ncc):
        return Likeness(0, 0.0, 0.0, 0.0, cover, graphic)
    median, upper = np.quantile(ncc, [0.5, 0.75])
    return Likeness(len(ncc), float((ncc > agrees).mean()), float(median), float(upper), cover, graphic)


def _blur(print_: Fingerprint) -> float:
    """How many pixels of the thumbnail one pixel of the original spans: what was small has no finer detail."""
    return max(1.0, THUMBNAIL_SIDE / max(print_.width, print_.height))


def is_graphic(thumbnail: U8) -> bool:
    """Whether a few neighbouring gray levels fill much of the picture: screenshots, drawings and text, rarely photographs."""
    shares = np.bincount(thumbnail.ravel(), minlength=256) / thumbnail.size
    return bool(np.convolve(shares, np.ones(_LEVELS)).max() > _GRAPHIC)


def covered(transform: F64, source: U8, target: U8) -> float:
    """Share of `source` (H x W) that lies inside `target` once transformed."""
    height, width = source.shape
    y, x = (np.mgrid[0:_SAMPLES, 0:_SAMPLES] + 0.5) * (np.array([height, width]) / _SAMPLES)[:, None, None] - 0.5
    moved = transform @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    with np.errstate(divide="ignore", invalid="ignore"):
        at = moved[:2] / moved[2]
    inside = (moved[2] > 0) & (at[0] > -1) & (at[0] < target.shape[1]) & (at[1] > -1) & (at[1] < target.shape[0])
    return float(inside.mean())


def _layers(transform: F64, source: U8, frame: U8, source_blur: float, frame_blur: float) -> tuple[F64, U8, U8]:
    """The transform, and both pictures at the coarser one's resolution: sharp text would not agree with its own smaller copy."""
    grows = float(np.sqrt(abs(np.linalg.det(transform[:2, :2]))))
    coarse = max(1.0, source_blur * grows, frame_blur)
    source = _soften(source, float(np.sqrt(coarse**2 - (source_blur * grows) ** 2)) / max(grows, 1e-3))
    return transform, source, _soften(frame, float(np.sqrt(coarse**2 - frame_blur**2)))


def _laid(transform: F64, source: U8, frame: U8) -> tuple[F32, F32, U8]:
    """`source` in the pixels of `frame`, to which `transform` maps it; the frame; and the mask of pixels that both have."""
    size = frame.shape[::-1]
    warped = cv2.warpPerspective(source.astype(np.float32), transform, size, flags=cv2.INTER_LINEAR)
    mask = cv2.warpPerspective(np.full(source.shape, 255, np.uint8), transform, size, flags=cv2.INTER_NEAREST)
    return np.asarray(warped, np.float32), frame.astype(np.float32), np.asarray(mask, np.uint8)


def _soften(image: U8, pixels: float) -> U8:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 0.5 * pixels), np.uint8) if pixels > 0.5 else image


def _fine(transform: F64, source: U8, frame: U8) -> F64:
    """The transform after a few steps of enhanced correlation (Evangelidis and Psarakis 2008); unchanged where they lead nowhere."""
    warped, _, mask = _laid(transform, source, frame)
    start = np.eye(2, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 12, 1e-4)
    inner = np.asarray(cv2.erode(mask, np.ones((5, 5), np.uint8)), np.uint8)
    try:
        found = cv2.findTransformECC(frame.astype(np.float32), warped, start, cv2.MOTION_AFFINE, stop, inner, 5)[1]
    except cv2.error:
        return transform
    step = np.vstack([found, [0.0, 0.0, 1.0]]).astype(float)
    moved = np.abs(step - np.eye(3))
    if moved[:2, 2].max() > 0.05 * THUMBNAIL_SIDE or moved[:2, :2].max() > 0.05:
        return transform
    return np.asarray(np.linalg.inv(step) @ transform)


def _blocks(a: F32, b: F32, mask: U8, flat: float) -> F32:
    """NCC of each block that both pictures show whole and whose standard deviation is above `flat` in either."""
    step = _BLOCK
    rows, columns = a.shape[0] // step, a.shape[1] // step
    if not rows or not columns:
        return np.zeros(0, np.float32)

    def cut(image: F32) -> F32:
        part = image[: rows * step, : columns * step].reshape(rows, step, columns, step)
        return np.asarray(part.transpose(0, 2, 1, 3).reshape(rows * columns, step * step), np.float32)

    left, right, whole = cut(a), cut(b), cut(mask.astype(np.float32)).min(axis=1) > 0
    left, right = left - left.mean(axis=1, keepdims=True), right - right.mean(axis=1, keepdims=True)
    spread_l, spread_r = left.std(axis=1), right.std(axis=1)
    textured = whole & (np.maximum(spread_l, spread_r) > flat)
    product = (left * right).mean(axis=1) / np.maximum(spread_l * spread_r, 1e-3)
    return np.asarray(product[textured].clip(-1, 1), np.float32)
