"""The fine step: a query is laid over the registered picture to a fraction of a pixel, from a start that may be many pixels off.

Gauss-Newton steps on blocks (`matcher.watermark.pull`) from coarse to fine, on the part of the picture that the query shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from matcher.pixels import F64, scaling
from matcher.watermark.pull import Pull, simplest, step
from matcher.watermark.pyramid import Frame, Pyramid

_FREE: Final = (6, 6, 8, 8, 8)
_FARTHEST: Final = 0.25
"""Of the frame's long side: a step that goes farther leads away."""
_SETTLED: Final = 0.05
"""Pixels that a last step moves a corner by at most."""
_ROUNDS: Final = 2


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """`transform`: 3 x 3, grid -> query; `agree`: how many blocks with detail agree at the finest level; `share`: of all that are seen."""

    transform: F64
    agree: float = 0.0
    share: float = 0.0

    @property
    def weight(self) -> float:
        return self.agree * self.share


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """The registered picture and a query. `size`, `grid`: (width, height) of the registered original and of its canonical grid."""

    known: Pyramid
    query: Pyramid
    size: tuple[int, int]
    grid: tuple[int, int]

    def frame(self, transform: F64, side: int) -> Frame | None:
        """What the query shows, `side` pixels long or as fine as the registered picture; `transform`: 3 x 3, grid -> query."""
        return Frame.around(transform, self.grid, self.query.size, side, self.known.size[0] / self.grid[0])

    def settled(self, transform: F64, sides: tuple[int, ...]) -> Settled:
        """The transform (grid -> query) after steps at frames of these sizes. Nothing agrees where nothing is seen."""
        found = Settled(transform)
        for side in sides:
            frame = self.frame(found.transform, side)
            if frame is not None:
                found = self._stepped(found.transform, frame)
        return found

    def _stepped(self, transform: F64, frame: Frame) -> Settled:
        """At one frame, affine before projective, until it stays where it is."""
        at, pull = transform @ frame.to_grid, self._pull(transform, frame)
        for free in _FREE:
            made = step(pull.votes(), free)
            if made is None or not (far := _moved(made[0], frame.size)) < _FARTHEST * max(frame.size):
                break
            at = at @ made[0]
            transform = at @ np.linalg.inv(frame.to_grid)
            pull = self._pull(transform, frame)
            if far < _SETTLED and free == _FREE[-1]:
                break
        return Settled(transform / transform[2, 2], *pull.agreement)

    def simplest(self, transform: F64, side: int) -> F64:
        """The transform (grid -> query) by the simplest model that explains what is seen as well."""
        frame = self.frame(transform, side)
        if frame is None:
            return transform
        to_original = scaling(self.grid, self.size)
        for _ in range(_ROUNDS):
            model = simplest(self._pull(transform, frame).votes(), transform @ frame.to_grid, to_original @ frame.to_grid)
            if model is None:
                break
            transform = np.asarray(model @ to_original)
        return transform

    def _pull(self, transform: F64, frame: Frame) -> Pull:
        at = transform @ frame.to_grid
        known = self.known.warp(scaling(self.grid, self.known.size) @ frame.to_grid, frame.size)
        return Pull.of(known, self.query.warp(at, frame.size), self.query.shown(at, frame.size))


def _moved(made: F64, size: tuple[int, int]) -> float:
    """How far (pixels) the farthest corner of a frame goes."""
    corners = np.array([[0, 0, 1], [size[0], 0, 1], [0, size[1], 1], [size[0], size[1], 1]], float)
    after = corners @ made.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.hypot(*(after[:, :2] / after[:, 2:] - corners[:, :2]).T).max())
