"""The fine step: a query is laid over the registered picture to a fraction of a pixel, from a start that may be many pixels off.

Gauss-Newton steps on blocks (`matcher.watermark.pull`) from coarse to fine, on the part of the picture that the query shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from matcher.pixels import F32, F64, scaling
from matcher.watermark.pull import NOTHING, Agreement, Pull, simplest, step
from matcher.watermark.pyramid import Frame, Pyramid

_STEPS: Final = ((4, 3.0), (6, 1.5), (8, 0.8), (8, 0.4))
_FARTHEST: Final = 0.25
"""Of the frame's long side: a step that goes farther leads away."""
_SETTLED: Final = 0.05
"""Pixels that a last step moves a corner by at most."""
_ROUNDS: Final = 2
_KEPT: Final = 0.95
"""Of the evidence, by a simpler model."""


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """`transform`: 3 x 3, grid -> query; `agreement`: of the pictures at the finest frame that was looked at."""

    transform: F64
    agreement: Agreement = NOTHING


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
        """At one frame, a similarity before a slant, until it stays where it is."""
        at, known = transform @ frame.to_grid, self._known(frame)
        pull = self._pull(known, at, frame)
        for free, tolerance in _STEPS:
            made = step(pull.votes(), free, tolerance)
            if made is None or not (far := corners_move(made[0], frame.size)) < _FARTHEST * max(frame.size):
                break
            at = at @ made[0]
            pull = self._pull(known, at, frame)
            if far < _SETTLED and free == _STEPS[-1][0]:
                break
        found = at @ np.linalg.inv(frame.to_grid)
        return Settled(found / found[2, 2], pull.agreement)

    def simplest(self, transform: F64, side: int) -> F64:
        """The transform (grid -> query) by the simplest model that explains what is seen as well."""
        frame = self.frame(transform, side)
        if frame is None:
            return transform
        to_original, known = scaling(self.grid, self.size), self._known(frame)
        pull = self._pull(known, transform @ frame.to_grid, frame)
        for _ in range(_ROUNDS):
            model = simplest(pull.votes(), transform @ frame.to_grid, to_original @ frame.to_grid)
            if model is None:
                break
            simpler = self._pull(known, model @ to_original @ frame.to_grid, frame)
            if simpler.agreement.evidence < _KEPT * pull.agreement.evidence:
                break
            transform, pull = np.asarray(model @ to_original), simpler
        return transform

    def _known(self, frame: Frame) -> F32:
        return self.known.warp(scaling(self.grid, self.known.size) @ frame.to_grid, frame.size)

    def _pull(self, known: F32, at: F64, frame: Frame) -> Pull:
        """`at`: 3 x 3, frame -> query."""
        return Pull.of(known, self.query.warp_roughly(at, frame.size), self.query.shown(at, frame.size))


def corners_move(made: F64, size: tuple[int, int]) -> float:
    """How far (pixels) the farthest corner of a frame goes."""
    corners = np.array([[0, 0, 1], [size[0], 0, 1], [0, size[1], 1], [size[0], size[1], 1]], float)
    after = corners @ made.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.hypot(*(after[:, :2] / after[:, 2:] - corners[:, :2]).T).max())
