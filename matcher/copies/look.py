"""The look of a whole picture: one upright descriptor, laid out as a SIFT descriptor (Lowe 2004) of everything that is seen.

It finds plain copies and pictures with too little texture for local features, and ranks what looks alike. It does not follow crops.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from matcher.pixels import F32, U8

_CELLS: Final = 4
_BINS: Final = 8
_SIDE: Final = 48
_NOISE: Final = 0.35
"""Gray levels from one pixel to the next, at `_SIDE`, that compression and rounding leave."""
_LEAST: Final = 0.08
"""Mean of what is above the noise, below which a picture has no look."""
_QUANTUM: Final = 512.0


def look(image: U8) -> U8:
    """`DIMENSIONS` x uint8 of an H x W luma picture, compared by Euclidean distance; empty for a picture that shows nothing.

    Its mirror is the same permutation as a feature's (`features.MIRROR`): cells by column, then row, directions from downwards on.
    """
    small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA if min(image.shape) >= _SIDE else cv2.INTER_LINEAR)
    smooth = np.asarray(cv2.GaussianBlur(small.astype(np.float32), (0, 0), 1.0), np.float32)
    across, down = _central(smooth, 1), _central(smooth, 0)
    size, turn = cv2.cartToPolar(down, across)
    strength = np.maximum(size - np.float32(_NOISE), 0)
    if float(strength.mean()) < _LEAST:
        return np.zeros(0, np.uint8)
    return _root(_pooled(np.asarray(strength, np.float32), np.asarray(turn * np.float32(_BINS / (2 * np.pi)), np.float32)))


def _central(image: F32, axis: int) -> F32:
    """Half the difference of both neighbours; zero along the border."""
    moved = np.zeros_like(image)
    if axis == 0:
        moved[1:-1] = (image[2:] - image[:-2]) / 2
    else:
        moved[:, 1:-1] = (image[:, 2:] - image[:, :-2]) / 2
    return moved


def _pooled(strength: F32, turn: F32) -> F32:
    """Strength by (column cell, row cell, direction); each pixel is shared between neighbouring cells and directions (`turn`: 0..8)."""
    apart = np.abs(turn - np.arange(_BINS, dtype=np.float32)[:, None, None])
    planes = strength * np.maximum(1 - np.minimum(apart, _BINS - apart), 0)
    return np.asarray((_POOL @ planes @ _POOL.T).transpose(2, 1, 0), np.float32)


def _weights() -> F32:
    """4 x `_SIDE`: how much each pixel of an axis counts in each cell (linear between the cells' centres)."""
    place = (np.arange(_SIDE) + 0.5) * (_CELLS / _SIDE) - 0.5
    return np.maximum(0.0, 1.0 - np.abs(place[None, :].clip(0, _CELLS - 1) - np.arange(_CELLS)[:, None])).astype(np.float32)


_POOL: Final = _weights()


def _root(histogram: F32) -> U8:
    """RootSIFT in 8 bits: Euclidean distance of these is Hellinger distance of the histograms."""
    flat = histogram.ravel()
    return np.asarray(np.minimum(np.sqrt(flat / max(float(flat.sum()), 1e-6)) * _QUANTUM, 255).round(), np.uint8)
