"""What is left of an aligned query without the picture, weighted by expected mark over noise.

Query and picture are taken apart into octaves. In each octave the picture is fitted to the query place by place, by one gain: whatever
blurs, sharpens, brightens or compresses has a gain of its own in each octave and place. What the fit leaves is mark and noise, and its
power says how much noise there is: what is covered or fits badly counts little. Where less is left than the mark alone would leave, the
mark did not get through either: its own expected power stands beside the noise, several times.

Nothing here sees a key: the weights may depend on the query in any way.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final

import cv2
import numpy as np

from matcher.pixels import F32, F64, scaling
from matcher.watermark.align import Aligned
from matcher.watermark.keys import C64, band, coefficients, halved, pattern
from matcher.watermark.masking import half_strength
from matcher.watermark.small import Reference

OCTAVES: Final = 4
_WINDOW: Final = 3
"""Over so many pixels of the octave after the next gain and noise are taken."""
_SHRUNK: Final = 1.0
"""Power of a picture that holds the gain of a place to that of the whole octave: even places have none of their own."""
_OWN: Final = 8.0
"""How many times the mark's own power stands beside the noise."""
_MAX_GAIN: Final = 2.5
_HALF: Final = 0.5
_LOWPASS: Final = 0.35
"""Deviation of the low pass before a picture is shrunk, in the shrunk picture's pixels: what Lanczos and area filters come near to."""


def spectrum(aligned: Aligned) -> C64:
    """One number for each coefficient of the band, to be correlated with a key's."""
    known, (height, width) = aligned.known, aligned.mask.shape
    on_grid = scaling(known.size, (width, height))
    original = as_seen(aligned.original, aligned.transform @ np.linalg.inv(on_grid), aligned.query_size)
    where = band(known.grid)
    left = residual(aligned.query, original, aligned.mask, _marks(known))
    # within an octave the noise falls with the frequency too, about half as fast as the mark
    return np.asarray(where.of(left) * np.sqrt(where.amplitude), np.complex64)


def as_seen(original: F32, to_query: F64, query_size: tuple[int, int]) -> F32:
    """The picture (H x W) with what a query of fewer pixels cannot show left out: sampled as the query was, and enlarged again."""
    shrink = float(np.sqrt(abs(np.linalg.det(np.linalg.inv(to_query)[:2, :2]))))
    if shrink <= 1:
        return original
    smooth = cv2.GaussianBlur(original, (0, 0), _LOWPASS * shrink)
    shown = cv2.warpPerspective(smooth, to_query, query_size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    back = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    size = original.shape[1], original.shape[0]
    return np.asarray(cv2.warpPerspective(shown, to_query, size, flags=back, borderMode=cv2.BORDER_REPLICATE), np.float32)


def residual(query: F32, original: F32, mask: F32, marks: Sequence[F32]) -> F32:
    """The weighted sum of what is left in the octaves (H x W). The first three H x W; `mask`: 1 where the query shows the picture; `marks`:
    the mark's power in each octave, at a quarter of its size."""
    seen, known = _octaves(_filled(query, original, mask)), _octaves(original)
    inner = cv2.erode(mask, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    masks = _levels(np.asarray(inner, np.float32))
    collapsed = np.zeros_like(masks[OCTAVES])
    for octave in reversed(range(OCTAVES)):
        shown = np.asarray(masks[octave] > 0.99, np.float32)
        # in place, here and below: fresh memory of this size costs more than the arithmetic
        seen[octave] *= shown
        known[octave] *= shown
        part = _weighted(seen[octave], known[octave], shown, marks[octave])
        part += _back(collapsed, part)
        collapsed = part
    return collapsed


def _weighted(query: F32, original: F32, shown: F32, own: F32) -> F32:
    """One octave of what is left, by expected mark over noise; `own`: the mark's power in this octave, at a quarter of the size."""
    share = np.maximum(_local(shown), 1e-3)
    product = original * original
    power = _local(product) / share
    common = _local(np.multiply(original, query, out=product)) / share
    overall = np.float32(np.clip(float((common * share).sum()) / max(float((power * share).sum()), 1e-6), 0, 2))
    left = _spread(np.clip((common + _SHRUNK * overall) / (power + _SHRUNK), 0, _MAX_GAIN), query)
    left *= original
    np.subtract(query, left, out=left)
    noise = _local(np.multiply(left, left, out=product)) / share
    left *= _spread(np.sqrt(own) / (noise + _OWN * own), query)
    return left


def _filled(query: F32, original: F32, mask: F32) -> F32:
    """The query, and where it shows nothing the picture at its brightness and contrast, so that the border makes no waves."""
    count = float(mask.sum())
    if count in (0, mask.size):
        return query
    middle, level = (np.float32(np.vdot(image, mask) / count) for image in (original, query))
    x = (original - middle) * mask
    contrast = np.float32(np.vdot(x, query - level) / max(float(np.vdot(x, x)), count))
    return np.where(mask > 0, query, contrast * original + (level - contrast * middle))


def _octaves(image: F32) -> list[F32]:
    """A Laplacian pyramid (Burt and Adelson 1983), the finest octave first. Nothing is halved after that: it was never twice as large."""
    return [_without(coarse, level) for level, coarse in pairwise(_levels(image))]


def _without(coarse: F32, level: F32) -> F32:
    smooth = _back(coarse, level)
    return np.subtract(level, smooth, out=smooth)


def _levels(image: F32) -> list[F32]:
    """The image, smoothed once, and halved again and again."""
    levels = [image, _smooth(image)]
    while len(levels) <= OCTAVES:
        levels.append(_down(levels[-1]))
    return levels


def _back(coarse: F32, like: F32) -> F32:
    """A level at the size of the one before."""
    return _smooth(coarse) if coarse.shape == like.shape else _up(coarse, like)


def _smooth(image: F32) -> F32:
    """What halving and doubling each do to twice as many pixels."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), _HALF), np.float32)


def _local(image: F32) -> F32:
    """Averages around each place, at a quarter of the size."""
    return np.asarray(cv2.boxFilter(_down(_down(image)), -1, (_WINDOW, _WINDOW), borderType=cv2.BORDER_REFLECT), np.float32)


def _spread(local: F32 | F64, like: F32) -> F32:
    """Averages around each place, at the size of the octave `like` again."""
    half = np.empty(((like.shape[0] + 1) // 2, (like.shape[1] + 1) // 2), np.float32)
    return _up(_up(np.asarray(local, np.float32), half), like)


def _down(image: F32) -> F32:
    return np.asarray(cv2.pyrDown(image), np.float32)


def _up(image: F32, like: F32) -> F32:
    return np.asarray(cv2.pyrUp(image, dstsize=(like.shape[1], like.shape[0])), np.float32)


@lru_cache(32)
def _marks(known: Reference) -> tuple[F32, ...]:
    """The power of a mark of the picture in each octave, at a quarter of the octave's size."""
    power = _levels(half_strength(known.half) ** 2)
    return tuple(_down(_down(level)) * np.float32(share) for level, share in zip(power, _shares(), strict=False))


@lru_cache(1)
def _shares() -> tuple[float, ...]:
    """The power of a pattern of strength 1 in each octave."""
    size = (512, 512)
    drawn = pattern(coefficients(bytes(32), size), size)
    seen = np.asarray(cv2.resize(drawn, halved(size), interpolation=cv2.INTER_AREA), np.float32)
    return tuple(float(np.mean(octave**2)) for octave in _octaves(seen))
