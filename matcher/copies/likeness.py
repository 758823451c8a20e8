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
from matcher.copies.layers import Laid, Layers, Pull
from matcher.pixels import F64, U8, scaling

_FLAT: Final = 4.0
_FLAT_GRAPHIC: Final = 10.0
_AGREES: Final = 0.75
_AGREES_GRAPHIC: Final = 0.5
_MIN_BLOCKS: Final = 12
_MIN_COVER: Final = 0.6
_GRAPHIC: Final = 0.2
_HOPELESS: Final = 0.1
_SLIPS: Final = 0.5
_SAMPLES: Final = 40


@dataclass(frozen=True, slots=True)
class Likeness:
    """How well the aligned pictures agree. `blocks`: how many textured ones were compared; `share`: of those that agree; `median`,
    `upper`: the NCC's median and upper quartile; `slip`: by how many pixels blocks that agree lie beside their places (median; parallax
    leaves some); `cover`: how much of either picture was compared; `graphic`: drawn, not photographed."""

    blocks: int
    share: float
    median: float
    upper: float
    slip: float
    cover: float
    graphic: bool

    @property
    def is_copy(self) -> bool:
        """Photographs may have something laid over them; what is to be seen of them has to be the same, in its place. Screenshots are
        built from the same parts, so all of it has to agree."""
        if self.blocks < _MIN_BLOCKS or self.cover < _MIN_COVER:
            return False
        if self.graphic:
            return self.share >= 0.95 and self.median >= (0.85 if self.share >= 0.98 else 0.92)
        if self.share < 0.6:
            return self.share >= 0.35 and (self.upper >= 0.985 or (self.upper >= 0.93 and self.slip < 0.2))
        if self.share < 0.8:
            return self.upper >= 0.965 or (self.upper >= 0.93 and self.slip < 0.33)
        return self.median >= 0.85


def compare(registered: Fingerprint, query: Fingerprint, geometry: Geometry, *, flipped: bool = False) -> tuple[float, Likeness]:
    """(overlap, likeness) of the thumbnails, one laid over the other by the geometry and, where that may help, aligned more finely and
    brought to one sharpness.

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
    likeness = _likeness(layers.laid(), shown > overlap, cover, graphic)
    if likeness.is_copy or (likeness.median < _HOPELESS and likeness.upper < _AGREES):
        return overlap, likeness
    return overlap, _likeness(layers.aligned().laid().same_sharpness(), shown > overlap, cover, graphic)


@lru_cache(8)
def _thumbnail(query: Fingerprint, flipped: bool) -> U8:
    """A query meets many registered pictures: its thumbnail is decoded once."""
    thumbnail = thumbnail_of(query)
    return np.ascontiguousarray(thumbnail[:, ::-1]) if flipped else thumbnail


def _likeness(laid: Laid, source_first: bool, cover: float, graphic: bool) -> Likeness:
    """`source_first`: the source is the registered picture."""
    blocks = laid.blocks()
    flat, agrees = (_FLAT_GRAPHIC, _AGREES_GRAPHIC) if graphic else (_FLAT, _AGREES)
    # what was drawn onto an even part of a photograph hides nothing of it
    known = blocks.source if source_first else blocks.frame
    chosen = blocks.whole & ((np.maximum(blocks.source, blocks.frame) if graphic else known) > flat)
    ncc, slips = blocks.ncc[chosen], Pull.of(laid).slips()[chosen & (blocks.ncc > _SLIPS)]
    if not len(ncc):
        return Likeness(0, 0.0, 0.0, 0.0, 0.0, cover, graphic)
    median, upper = np.quantile(ncc, [0.5, 0.75])
    slip = float(np.nanmedian(slips)) if np.isfinite(slips).any() else 0.0
    return Likeness(len(ncc), float((ncc > agrees).mean()), float(median), float(upper), slip, cover, graphic)


def _blur(print_: Fingerprint) -> float:
    """How many pixels of the thumbnail one pixel of the original spans: what was small has no finer detail."""
    return max(1.0, THUMBNAIL_SIDE / max(print_.width, print_.height))


def is_graphic(thumbnail: U8) -> bool:
    """Whether one gray level fills much of the picture: screenshots, drawings and text, rarely photographs."""
    return bool(np.bincount(thumbnail.ravel(), minlength=256).max() > _GRAPHIC * thumbnail.size)


def covered(transform: F64, source: U8, target: U8) -> float:
    """Share of `source` (H x W) that lies inside `target` once transformed."""
    height, width = source.shape
    y, x = (np.mgrid[0:_SAMPLES, 0:_SAMPLES] + 0.5) * (np.array([height, width]) / _SAMPLES)[:, None, None] - 0.5
    moved = transform @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    with np.errstate(divide="ignore", invalid="ignore"):
        at = moved[:2] / moved[2]
    inside = (moved[2] > 0) & (at[0] > -1) & (at[0] < target.shape[1]) & (at[1] > -1) & (at[1] < target.shape[0])
    return float(inside.mean())


def _layers(transform: F64, source: U8, frame: U8, source_blur: float, frame_blur: float) -> Layers:
    """Both pictures at the coarser one's resolution: sharp text would not agree with its own smaller copy."""
    grows = float(np.sqrt(abs(np.linalg.det(transform[:2, :2]))))
    coarse = max(1.0, source_blur * grows, frame_blur)
    source = _soften(source, float(np.sqrt(coarse**2 - (source_blur * grows) ** 2)) / max(grows, 1e-3))
    return Layers(transform, source, _soften(frame, float(np.sqrt(coarse**2 - frame_blur**2))))


def _soften(image: U8, pixels: float) -> U8:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 0.5 * pixels), np.uint8) if pixels > 0.5 else image
