"""What is left of an aligned query without the picture, weighted by expected mark over noise.

Query and picture are taken apart into octaves. In each octave the picture is fitted to the query place by place, by one gain: whatever
blurs, sharpens, brightens or compresses has a gain of its own in each octave and place. What the fit leaves is mark and noise, and its
power says how much noise there is: what is covered or fits badly counts little. Where less is left than the mark alone would leave, the
mark did not get through either: its own expected power stands beside the noise, several times.

Nothing here sees a key: the weights may depend on the query in any way.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import cv2
import numpy as np

from matcher.pixels import F32, F64, scaling
from matcher.watermark.align import Aligned
from matcher.watermark.keys import C64, band, coefficients, pattern
from matcher.watermark.masking import strength
from matcher.watermark.registration import Registration

OCTAVES: Final = 4
_WINDOW: Final = 9
"""Pixels of an octave over which gain and noise are taken."""
_SHRUNK: Final = 1.0
"""Power of a picture that holds the gain of a place to that of the whole octave: even places have none of their own."""
_OWN: Final = 4.0
"""How many times the mark's own power stands beside the noise."""
_MAX_GAIN: Final = 2.5
_LOWPASS: Final = 0.35
"""Deviation of the low pass before a picture is shrunk, in the shrunk picture's pixels: what Lanczos and area filters come near to."""


def spectrum(aligned: Aligned, registration: Registration, query_size: tuple[int, int]) -> C64:
    """One number for each coefficient of the band, to be correlated with a key's. `query_size`: (width, height) of the query as given."""
    on_grid = scaling((registration.width, registration.height), aligned.size)
    original = as_seen(aligned.original, aligned.transform @ np.linalg.inv(on_grid), query_size)
    left = residual(aligned.query, original, aligned.mask)
    where = band(aligned.size)
    return np.asarray(np.fft.rfft2(left)[where.rows, where.columns] * where.amplitude, np.complex64)


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


def residual(query: F32, original: F32, mask: F32) -> F32:
    """The weighted sum of what is left in the octaves (H x W). All three H x W; `mask` is 1 where the query shows the picture."""
    seen = _octaves(_filled(query, original, mask))
    known = _octaves(original)
    inner = np.asarray(cv2.erode(mask, np.ones((5, 5), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0), np.float32)
    bound = strength(original)
    collapsed = np.zeros((1, 1), np.float32)
    for octave in reversed(range(OCTAVES)):
        height, width = seen[octave].shape
        shown = np.asarray(_shrunk(inner, (width, height)) > 0.99, np.float32)
        part = _weighted(seen[octave] * shown, known[octave] * shown, shown, _shrunk(bound, (width, height)) ** 2 * _shares()[octave])
        below = cv2.pyrUp(collapsed, dstsize=(width, height)) if octave < OCTAVES - 1 else np.float32(0)
        collapsed = np.asarray(part + below, np.float32)
    return collapsed


def _weighted(query: F32, original: F32, shown: F32, own: F32) -> F32:
    """One octave of what is left, by expected mark over noise; `own`: the mark's power in this octave."""
    power, common = original * original, original * query
    share = np.maximum(_mean(shown), 1e-3)
    overall = float(np.clip(common.sum() / max(float(power.sum()), 1e-6), 0, 2))
    gain = (_mean(common) / share + _SHRUNK * overall) / (_mean(power) / share + _SHRUNK)
    left = np.asarray(query - np.clip(gain, 0, _MAX_GAIN) * original, np.float32)
    noise = _mean(left * left) / share
    return np.asarray(left * np.sqrt(own) / (noise + _OWN * own), np.float32)


def _filled(query: F32, original: F32, mask: F32) -> F32:
    """The query, and where it shows nothing the picture at its brightness and contrast, so that the border makes no waves."""
    inside = mask > 0
    x, y = original[inside], query[inside]
    contrast = float(np.mean((x - x.mean()) * (y - y.mean())) / max(float(x.var()), 1.0)) if len(x) else 1.0
    return np.where(inside, query, (original - x.mean()) * np.float32(contrast) + y.mean()) if len(x) else original


def _octaves(image: F32) -> list[F32]:
    """A Laplacian pyramid (Burt and Adelson 1983), the finest octave first."""
    out = []
    for _ in range(OCTAVES):
        coarse = cv2.pyrDown(image)
        out.append(np.asarray(image - cv2.pyrUp(coarse, dstsize=(image.shape[1], image.shape[0])), np.float32))
        image = np.asarray(coarse, np.float32)
    return out


@lru_cache(1)
def _shares() -> tuple[float, ...]:
    """The power of a pattern of strength 1 in each octave."""
    size = (512, 512)
    return tuple(float(np.mean(octave**2)) for octave in _octaves(pattern(coefficients(bytes(32), size), size)))


def _shrunk(image: F32, size: tuple[int, int]) -> F32:
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)


def _mean(image: F32) -> F32:
    return np.asarray(cv2.boxFilter(image, -1, (_WINDOW, _WINDOW), borderType=cv2.BORDER_REFLECT), np.float32)
