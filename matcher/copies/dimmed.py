"""Dark corners, as photo filters draw them, undone.

A picture of few gray levels has few of them everywhere, not more towards its corners: the fall of light that leaves the least entropy of
log intensities is the one that was put on (Lopez-Fuentes, Oliver and Massanet 2015).
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from matcher.pixels import F64, U8

_SIDE: Final = 64
_FALLS: Final = np.arange(0, 0.481, 0.04)
_FINER: Final = np.arange(-0.04, 0.041, 0.01)
_MOST: Final = 0.49
_BIN: Final = 0.03
_BIN_FINER: Final = 0.012
_DARK: Final = 2.0
"""Gray levels that are added: logarithms near black would be noise."""
_LEAST: Final = 0.1
_WHITE: Final = 250.0
_SMOOTH: Final = np.array([1.0, 2, 3, 2, 1])


def undimmed(gray: U8) -> U8 | None:
    """An H x W luma picture without its dark corners; None where it has none to speak of."""
    fall = _fall(gray)
    if fall < _LEAST:
        return None
    lit = gray / _light(fall, *gray.shape)
    return np.asarray((lit * min(1.0, _WHITE / max(1.0, float(np.quantile(lit, 0.99))))).clip(0, 255), np.uint8)


def _fall(gray: U8) -> float:
    """How much light is lost, as a share of it, half-way between the middles of the sides and the corners and as far again behind it."""
    small = cv2.resize(gray, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float64) + _DARK
    rough = _least_entropy(small, _FALLS, _BIN)
    return _least_entropy(small, (rough + _FINER).clip(0, _MOST), _BIN_FINER) if rough else 0.0


def _least_entropy(small: F64, falls: F64, width: float) -> float:
    return float(min(falls, key=lambda fall: _entropy(np.log(small / _light(fall, _SIDE, _SIDE)), width)))


def _entropy(levels: F64, width: float) -> float:
    counts = np.convolve(np.bincount((levels / width).astype(int).ravel()), _SMOOTH)
    shares = counts[counts > 0] / counts.sum()
    return -float(shares @ np.log(shares))


def _light(fall: float, height: int, width: int) -> F64:
    """H x W: what is left of the light; it falls with the square of the distance from the middle."""
    down, right = (((np.arange(side) + 0.5) * 2 / side - 1) ** 2 for side in (height, width))
    return np.asarray(1 - fall * (down[:, None] + right[None, :]))
