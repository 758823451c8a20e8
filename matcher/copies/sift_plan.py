"""The constants of the feature extractor, worked out once: both of its forms, in C and in NumPy, read them from here."""

from __future__ import annotations

import ctypes
from math import ceil, exp, sqrt
from typing import Final

MAX_LEVELS: Final = 8
MAX_RADIUS: Final = 12
SAMPLES: Final = 16
"""A descriptor's patch has SAMPLES x SAMPLES gradients, in CELLS x CELLS cells of BINS directions."""
CELLS: Final = 4
BINS: Final = 8
AROUND: Final = 12
"""A point's direction comes from AROUND x AROUND gradients, in a histogram of TURNS directions."""
TURNS: Final = 36

_SCALES: Final = 3
_SIGMA: Final = 1.0
_ASSUMED_BLUR: Final = 0.5
_TRUNCATE: Final = 2.5
_EDGE: Final = 12.0
_FLOOR: Final = 0.3
_ABOVE_NOISE: Final = 3.5
_CELL_SIGMAS: Final = 3.0
_WINDOW_CELLS: Final = 2.0
_TURN_STEP: Final = 0.75
_TURN_WINDOW: Final = 1.5


class Plan(ctypes.Structure):
    """The same fields, in the same order, as `Plan` in native/sift.h, which says what they mean."""

    _fields_ = (
        ("scales", ctypes.c_int32),
        ("border", ctypes.c_int32),
        ("least", ctypes.c_int32),
        ("grid", ctypes.c_int32),
        ("radius", ctypes.c_int32 * MAX_LEVELS),
        ("taps", (ctypes.c_float * (MAX_RADIUS + 1)) * MAX_LEVELS),
        ("sigma", ctypes.c_float),
        ("floor", ctypes.c_float),
        ("noise", ctypes.c_float * MAX_LEVELS),
        ("most_noise", ctypes.c_float),
        ("edge", ctypes.c_float),
        ("second", ctypes.c_float),
        ("turn_step", ctypes.c_float),
        ("step", ctypes.c_float),
        ("around", ctypes.c_float * (AROUND * AROUND)),
        ("pool", (ctypes.c_float * SAMPLES) * CELLS),
    )


def _plan() -> Plan:
    made = Plan(scales=_SCALES, border=5, least=16, grid=10, sigma=_SIGMA, floor=_FLOOR, most_noise=0.25, second=0.7)
    made.edge = (_EDGE + 1) ** 2 / _EDGE
    made.turn_step, made.step = _TURN_STEP, _CELL_SIGMAS * CELLS / SAMPLES
    for level in range(_SCALES + 3):
        taps = _taps(_blur(level))
        made.radius[level] = len(taps) - 1
        made.taps[level][: len(taps)] = taps
        made.noise[level] = _ABOVE_NOISE * 2 ** (-level / _SCALES)  # white noise has less contrast the coarser the level
    middle = (AROUND - 1) / 2
    window = [_gauss((i - middle) * _TURN_STEP, _TURN_WINDOW) for i in range(AROUND)]
    made.around[:] = [down * across for down in window for across in window]
    for cell in range(CELLS):
        made.pool[cell][:] = [_pooled(cell, sample) for sample in range(SAMPLES)]
    return made


def _blur(level: int) -> float:
    """Sigma of the blur that makes a level of the one below, or the first one of the picture."""
    if level == 0:
        return sqrt(_SIGMA**2 - _ASSUMED_BLUR**2)
    return _SIGMA * 2 ** ((level - 1) / _SCALES) * sqrt(2 ** (2 / _SCALES) - 1)


def _taps(sigma: float) -> list[float]:
    """Weights of a Gaussian, from the middle outwards; both sides together they sum to one."""
    raw = [_gauss(i, sigma) for i in range(ceil(_TRUNCATE * sigma) + 1)]
    return [weight / (2 * sum(raw) - raw[0]) for weight in raw]


def _pooled(cell: int, sample: int) -> float:
    """Weight of a row (or column) of samples in a row of cells: linear between the cells' middles, less towards the patch's edge."""
    middle = (CELLS - 1) / 2
    at = (sample + 0.5) * CELLS / SAMPLES - 0.5
    return max(0.0, 1.0 - abs(at - cell)) * _gauss(at - middle, _WINDOW_CELLS)


def _gauss(x: float, sigma: float) -> float:
    return exp(-(x**2) / (2 * sigma**2))


PLAN: Final = _plan()
