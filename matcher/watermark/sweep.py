"""Where a query without features lies: it is moved over the registered picture at some sizes, and correlates best at its place.

Skies, lakes and soft backgrounds have no corners, yet shapes of their own. What is slow is taken off both, as light falls off everywhere;
the best places of all sizes are those whose normalised cross-correlation (Lewis 1995) stands out most from all others of that size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import cv2
import numpy as np

from matcher.pixels import F32, F64
from matcher.watermark.pyramid import Pyramid

_SLOW: Final = 6.0
"""Deviation (pixels) of the Gaussian that is taken off."""
_LEAST: Final = 10
"""Pixels of the query's shorter side at least."""
_EDGE: Final = 2
_PEAKS: Final = 2
_APART: Final = 4


class Place(NamedTuple):
    """`transform`: 3 x 3, registered picture -> query, in their pixels; `clear`: by how many deviations it stands out."""

    transform: F64
    clear: float


def places(known: Pyramid, query: Pyramid, zooms: Iterable[float], turns: Iterable[float] = (0.0,), level: int = 0) -> list[Place]:
    """The places of the query on the registered picture, the clearest first.

    `zooms`: pixels of the registered picture for one of the query, each tried; `turns`: radians, likewise; `level`: of the registered
    picture's pyramid, 0 the finest.
    """
    canvas = known.levels[min(level, len(known.levels) - 1)]
    shrunk = canvas.shape[1] / known.size[0]
    field = _quick(canvas)
    to_canvas = np.diag([shrunk, shrunk, 1.0])
    turned = list(turns)
    found = [place for zoom in zooms for turn in turned for place in _at(field, query, zoom * shrunk, turn)]
    return sorted((Place(place.transform @ to_canvas, place.clear) for place in found), key=lambda place: -place.clear)


def _at(field: F32, query: Pyramid, zoom: float, turn: float) -> Iterator[Place]:
    width, height = (max(1, round(side * zoom)) for side in query.size)
    shape = _upright((width, height), turn)
    size = shape[0] - 2 * _EDGE, shape[1] - 2 * _EDGE
    if min(size) < _LEAST or size[0] > field.shape[1] or size[1] > field.shape[0]:
        return
    to_query = _placed(query.size, size, zoom, turn)
    alike = cv2.matchTemplate(field, _quick(query.warp(to_query, size)), cv2.TM_CCOEFF_NORMED)
    spread = max(float(alike.std()), 1e-6)
    middle = float(alike.mean())
    for _ in range(_PEAKS):
        _, peak, _, (x, y) = cv2.minMaxLoc(alike)
        yield Place(to_query @ np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1.0]]), (peak - middle) / spread)
        alike[max(0, y - _APART) : y + _APART + 1, max(0, x - _APART) : x + _APART + 1] = -1


def _placed(query: tuple[int, int], size: tuple[int, int], zoom: float, turn: float) -> F64:
    """3 x 3, pixels of a template of `size`, from the middle of the query -> the query's."""
    cos, sin = np.cos(turn) / zoom, np.sin(turn) / zoom
    x, y = (size[0] - 1) / 2, (size[1] - 1) / 2
    u, v = (query[0] - 1) / 2, (query[1] - 1) / 2
    return np.array([[cos, -sin, u - cos * x + sin * y], [sin, cos, v - sin * x - cos * y], [0, 0, 1.0]])


def _upright(size: tuple[int, int], turn: float) -> tuple[int, int]:
    """(width, height) of an upright rectangle of the same shape inside the turned one."""
    width, height = size
    cos, sin = abs(np.cos(turn)), abs(np.sin(turn))
    share = min(width / (width * cos + height * sin), height / (width * sin + height * cos))
    return int(width * share), int(height * share)


def _quick(image: F32) -> F32:
    return np.asarray(image - cv2.GaussianBlur(image, (0, 0), _SLOW), np.float32)
