"""Where nothing can be seen of a picture, its mark itself says where the query lies: the key's pattern is looked for at every place.

The query is a part of the registered picture at one of a few sizes, or its mirror: a hypothesis is a size, a form and a place. The number N
of them follows from the sizes of both pictures alone. A matched filter (Turin 1960) that knows the key chooses one hypothesis, and there
the statistic is taken as anywhere else, at `SHIFTS` small shifts of what is left.

What that costs: for one fixed hypothesis and shift the statistic does not depend on the key in any way but its own, so it is N(0, 1) for a
query that does not know the key. Whatever chose them, the one that is reported is one of N x SHIFTS, and the chance that any of those
reaches z is at most N x SHIFTS times the tail (Bonferroni). The search comes last, after the places that the picture itself gave, and has
`SHARE` of all chances: it counts N x SHIFTS / SHARE hypotheses.
"""

from __future__ import annotations

from itertools import product
from typing import Final, NamedTuple

import cv2
import numpy as np

from matcher.pixels import F32, F64, scaling
from matcher.watermark.keys import C64, band
from matcher.watermark.pyramid import Pyramid

SHARE: Final = 0.001
_FACTORS: Final = (1.0, 4 / 3, 2.0, 4.0)
"""Pixels of the registered original for one of the query: as it is, and resized by three quarters, a half and a quarter."""
_COARSE: Final = 2
"""Pixels of the grid for one of the search."""
_LEAST: Final = 24
_SLOW: Final = 4.0
_WINDOW: Final = (15, 15)
_NOISE: Final = 2.0
_STEPS: Final = np.arange(-1.5, 1.75, 0.5)
"""Pixels of the grid, each way."""
SHIFTS: Final = len(_STEPS) ** 2


class Hypothesis(NamedTuple):
    """`transform`: 3 x 3, grid -> query, or its mirror where `flipped`; `among`: N, of how many it is the likeliest."""

    transform: F64
    flipped: bool
    among: int


def search(pattern: F32, size: tuple[int, int], forms: tuple[Pyramid, Pyramid]) -> Hypothesis | None:
    """The likeliest place of the query under the key's `pattern` (H x W of the grid). `size`: (width, height) of the registered original;
    `forms`: the query and its mirror. None where the query is too small, or no part of the picture at any size."""
    grid = pattern.shape[1], pattern.shape[0]
    field = np.asarray(cv2.resize(pattern, (grid[0] // _COARSE, grid[1] // _COARSE), interpolation=cv2.INTER_AREA), np.float32)
    to_field = scaling(grid, (field.shape[1], field.shape[0]))
    best, clear, count = None, -np.inf, 0
    for (flipped, form), factor in product(enumerate(forms), _FACTORS):
        zoom = factor * field.shape[1] / size[0]
        shown = round(form.size[0] * zoom), round(form.size[1] * zoom)
        if min(shown) < _LEAST or shown[0] > field.shape[1] or shown[1] > field.shape[0]:
            continue
        to_query = scaling(shown, form.size)
        left = _whitened(form.warp(to_query, shown))
        alike = cv2.matchTemplate(field, left, cv2.TM_CCORR)
        _, highest, _, (x, y) = cv2.minMaxLoc(alike)
        peak = highest / max(float(np.linalg.norm(left)), 1e-6)
        count += alike.size
        if peak > clear:
            clear, best = peak, (to_query @ np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1.0]]) @ to_field, bool(flipped))
    return None if best is None else Hypothesis(*best, count)


def best_shift(observed: C64, drawn: C64, size: tuple[int, int]) -> float:
    """The largest of the `SHIFTS` statistics <s, x> / |x| of what is observed, moved a little; `drawn`: the key's coefficients."""
    where, (width, height) = band(size), size
    norm = max(float(np.linalg.norm(observed.astype(np.complex128))), 1e-300)
    terms = np.conj(drawn.astype(np.complex128)) * observed
    fy, fx = np.fft.fftfreq(height)[where.rows], np.fft.rfftfreq(width)[where.columns]
    right = np.exp(2j * np.pi * np.outer(_STEPS, fx))
    down = np.exp(2j * np.pi * np.outer(_STEPS, fy))
    return float(np.real((down * terms) @ right.T).max()) / norm


def _whitened(image: F32) -> F32:
    """What changes quickly, over its power around: where the picture is loud, the mark is not heard."""
    quick = np.asarray(image - cv2.GaussianBlur(image, (0, 0), _SLOW), np.float32)
    return np.asarray(quick / (cv2.boxFilter(quick * quick, -1, _WINDOW) + np.float32(_NOISE)), np.float32)
