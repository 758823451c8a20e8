"""How alike two pictures are once one is laid over the other.

Matching features alone do not tell a copy from a second photo of the same scene, nor two screenshots with the same buttons apart. So the
thumbnails are aligned and compared block by block with normalised cross-correlation (NCC): in a copy nearly every textured block agrees, in
its place; under another text some do not, and under parallax they lie a little beside it, neighbours by the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import log
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from matcher.copies.features import THUMBNAIL_SIDE, Fingerprint, thumbnail_of
from matcher.copies.geometry import Geometry
from matcher.copies.layers import Laid, Layers, Pull
from matcher.pixels import F32, F64, U8, scaling

_FLAT: Final = 2.5
_FAINTEST: Final = 0.25
_FLAT_GRAPHIC: Final = 10.0
_AGREES: Final = 0.75
_AGREES_GRAPHIC: Final = 0.5
_SEEN: Final = 0.8
_MIN_BLOCKS: Final = 12
_MIN_COVER: Final = 0.6
_MIN_SEEN: Final = 0.5
_SEEN_WELL: Final = 0.58
_GRAPHIC: Final = 0.2
_BLACK: Final = 0.5
_DARK: Final = 4
_MOST: Final = 0.9
_LEVELS: Final = 100
_HOPELESS: Final = (0.1, 0.8)
_SLIPS: Final = 0.5
_FEW: Final = 6
_UNKNOWN: Final = 0.1  # neither for a copy nor against it
_SAMPLES: Final = 40
_EVIDENCE: Final = (-22.2, 3.553, 3.36, 1.813)
"""Constant, and weights of -log(slip + 0.02), -log(1.003 - upper) and -log(1.03 - share): a logistic regression of 4,200 copies against
8,300 attacked photos of the same scenes, the constant moved until none of them, nor of 8,100 others, is above zero: the nearest, a quarter
of a photo taken a step aside, is at -0.2, the nearest whole photo at -3."""
_HIDDEN: Final = 2.0
_STRAY: Final = 2.5
_STRAY_SHARE: Final = 0.01
_SAME_PAGE: Final = 0.8


@dataclass(frozen=True, slots=True)
class Likeness:
    """How well the aligned pictures agree. `blocks`: how many textured ones were compared; `share`: of those that agree; `median`: of the
    NCC; `upper`: its upper quartile once noise is smoothed away; `slip`: by how many pixels blocks that agree lie beside their places
    (median; parallax leaves some); `seen`: how much of what both show agrees or is plain in both; `cover`: how much of either picture was
    compared; `graphic`: drawn, not photographed."""

    blocks: int
    share: float
    median: float
    upper: float
    slip: float
    cover: float
    graphic: bool
    seen: float = 1.0

    @property
    def is_copy(self) -> bool:
        """Photographs may have something laid over them; what is to be seen of them has to be the same, in its place. Screenshots are
        built from the same parts, so all of it has to agree but a stray block or two."""
        if self.blocks < _MIN_BLOCKS or self.cover < _MIN_COVER:
            return False
        if self.graphic:
            return self.blocks * (1 - self.share) <= max(_STRAY, _STRAY_SHARE * self.blocks) and self.median >= _SAME_PAGE
        if self.seen < _MIN_SEEN:
            return False
        return self.evidence > (0.0 if self.seen >= _SEEN_WELL else _HIDDEN)

    @property
    def evidence(self) -> float:
        """Log of the odds that it is a copy, not another photograph of the same scene; those that are known are all below zero."""
        constant, slip, upper, share = _EVIDENCE
        return constant - slip * log(self.slip + 0.02) - upper * log(1.003 - self.upper) - share * log(1.03 - self.share)


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
    return overlap, _judged(layers, shown > overlap, cover, graphic)


def _judged(layers: Layers, source_first: bool, cover: float, graphic: bool) -> Likeness:
    """After each step of the alignment, until it is a copy or hopeless; at last brought to one sharpness."""
    for laid, pull in layers.steps():
        likeness = _likeness(laid, pull, source_first, cover, graphic)
        if likeness.is_copy or (likeness.median < _HOPELESS[0] and likeness.upper < _HOPELESS[1]):
            return likeness
    sharp = laid.same_sharpness()
    return likeness if sharp is laid else _likeness(sharp, Pull.of(sharp), source_first, cover, graphic)


@lru_cache(8)
def _thumbnail(query: Fingerprint, flipped: bool) -> U8:
    """A query meets many registered pictures: its thumbnail is decoded once."""
    thumbnail = thumbnail_of(query)
    return np.ascontiguousarray(thumbnail[:, ::-1]) if flipped else thumbnail


def _likeness(laid: Laid, pull: Pull, source_first: bool, cover: float, graphic: bool) -> Likeness:
    """`source_first`: the source is the registered picture."""
    blocks = laid.blocks()
    # what was drawn onto an even part of a photograph hides nothing of it
    known, other = (pull.source, pull.frame) if source_first else (pull.frame, pull.source)
    flat = _flat(known, other, blocks.whole & (pull.ncc > _SEEN))
    textured = blocks.whole & ((np.maximum(blocks.source, blocks.frame) > _FLAT_GRAPHIC) if graphic else known > flat)
    ncc = blocks.ncc[textured]
    if not len(ncc):
        return Likeness(0, 0.0, 0.0, 0.0, 0.0, cover, graphic, 0.0)
    median, upper = np.median(ncc), np.quantile(pull.ncc[textured], 0.75)
    slips = pull.slips(textured & (pull.ncc > _SLIPS))
    slip = float(np.median(slips)) if len(slips) >= _FEW else _UNKNOWN
    plain = blocks.whole & (known <= flat) & (other <= 1.5 * flat)
    seen = ((textured & (pull.ncc > _SEEN)).sum() + plain.sum()) / blocks.whole.sum()
    agrees = _AGREES_GRAPHIC if graphic else _AGREES
    return Likeness(len(ncc), float((ncc > agrees).mean()), float(median), float(upper), slip, cover, graphic, float(seen))


def _flat(known: F32, other: F32, agree: npt.NDArray[np.bool_]) -> float:
    """Deviation up to which a registered block is plain: in a paler copy more of them drown in noise."""
    sure = agree & (known > 4)
    gain = float(np.median(other[sure] / known[sure])) if sure.sum() > 5 else 1.0
    return _FLAT / min(1.0, max(_FAINTEST, gain))


def _blur(print_: Fingerprint) -> float:
    """How many pixels of the thumbnail one pixel of the original spans: what was small has no finer detail."""
    return max(1.0, THUMBNAIL_SIDE / max(print_.width, print_.height))


def is_graphic(thumbnail: U8) -> bool:
    """Whether one gray level fills much of the picture and few levels most of it: screenshots, drawings and text, rarely photographs, which
    have many levels beside a burnt-out sky, and more black."""
    counts = np.asarray(cv2.calcHist([thumbnail], [0], None, [256], [0, 256])).ravel() / thumbnail.size
    if counts.max() <= (_BLACK if counts.argmax() < _DARK else _GRAPHIC):
        return False
    return bool(1 + np.count_nonzero(np.sort(counts)[::-1].cumsum() < _MOST) < _LEVELS)


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
