"""The key's pattern guessed from marked pictures alone, by who knows all but the key: a Wiener filter (Su and Girod 2002).

Where a picture is smooth the mark is most of its detail, and shows.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from matcher.pixels import U8, gray, resized_to
from matcher.watermark.embed import add
from matcher.watermark.keys import C64, band, grid, pattern
from matcher.watermark.masking import strength

_DETAIL: Final = 10.0
"""Pixels of the grid: what is coarser carries no mark."""
_WINDOW: Final = 15
_FLAT: Final = 4.0
_RINGS: Final = 8.0


def shown(marked: U8) -> C64:
    """What a marked picture (H x W x 3) shows of its key's numbers, one for each coefficient of its grid: its detail, weighted by how
    much mark a place holds beside how much else, and brought to the same power at all frequencies."""
    luma = _on_grid(marked).astype(np.float32)
    detail = luma - cv2.GaussianBlur(luma, (0, 0), _DETAIL)
    weighted = detail * strength(luma) / (cv2.boxFilter(detail * detail, -1, (_WINDOW, _WINDOW)) + _FLAT)
    where = band((luma.shape[1], luma.shape[0]))
    numbers = np.fft.rfft2(weighted)[where.rows, where.columns]
    ring = np.rint(np.log(where.amplitude) * _RINGS).astype(int)
    ring -= ring.min()
    power = np.bincount(ring, np.abs(numbers) ** 2) / np.maximum(np.bincount(ring), 1)
    return np.asarray(numbers / np.sqrt(np.maximum(power[ring], 1e-12)), np.complex64)


def taken_off(marked: U8, numbers: C64, times: float) -> U8:
    """The picture less so many times the mark that these numbers would make in it."""
    luma = _on_grid(marked)
    return add(marked, np.asarray(-times * pattern(numbers, (luma.shape[1], luma.shape[0])) * strength(luma), np.float32))


def _on_grid(rgb: U8) -> U8:
    return resized_to(gray(rgb), grid(rgb.shape[1], rgb.shape[0]))
