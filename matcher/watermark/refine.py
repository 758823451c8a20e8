"""The fine step: a query is laid over the registered picture to a fraction of a pixel, from a start that may be many pixels off.

Gauss-Newton steps on blocks (`matcher.watermark.pull`) from coarse to fine, on the part of the picture that the query shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from matcher.pixels import F32, F64, scaling
from matcher.watermark.pull import NOTHING, Agreement, Known, Pull, simplest, step
from matcher.watermark.pyramid import Frame, Pyramid

_STEPS: Final = ((4, 3.0), (6, 1.5), (8, 0.8), (8, 0.4))
"""Numbers of a transform, and pixels that a block may miss by: a similarity before a slant."""
_FARTHEST: Final = 0.25
"""Of the frame's long side: a step that goes farther leads away."""
_SETTLED: Final = 0.05
"""Pixels that a last step moves a corner by at most."""
_NEARLY: Final = 0.5
"""The same: a simpler model that is so near to what it is made of says no more when it is made again."""
_HARDLY: Final = 1.0
"""Pixels that a corner has moved by: what the query shows is much the same still."""
_ROUNDS: Final = 2
_KEPT: Final = 0.95
"""Of the evidence, by a simpler model."""


class _View(NamedTuple):
    """What was looked at last: the registered picture on a frame (`image`), what was seen of it when the query lay `at` (3 x 3, frame ->
    query), and how the query pulls."""

    frame: Frame
    image: F32
    at: F64
    known: Known
    pull: Pull


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """`transform`: 3 x 3, grid -> query; `agreement`: of the pictures at the finest frame that was looked at."""

    transform: F64
    agreement: Agreement = NOTHING
    view: _View | None = None

    def passes(self, least: tuple[float, float, float]) -> bool:
        """Whether so many blocks with detail agree, such a share of them, and so well."""
        agreement = self.agreement
        return agreement.blocks >= least[0] and agreement.share >= least[1] and agreement.median >= least[2]


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
        return self._stepped(transform, ((side, _STEPS) for side in sides))

    def settled_soon(self, transform: F64, sides: tuple[int, ...]) -> Settled:
        """The same from a transform that is nearly there: the last steps at the first frame, and one at each finer."""
        return self._stepped(transform, ((side, _STEPS[-1 if number else -2 :]) for number, side in enumerate(sides)))

    def _stepped(self, transform: F64, frames: Iterable[tuple[int, Sequence[tuple[int, float]]]]) -> Settled:
        found = Settled(transform)
        for side, steps in frames:
            frame = self.frame(found.transform, side)
            if frame is not None:
                found = self._at(found.transform, frame, steps)
        return found

    def _at(self, transform: F64, frame: Frame, steps: Sequence[tuple[int, float]]) -> Settled:
        """At one frame, until it stays where it is."""
        image = self.known.warp(scaling(self.grid, self.known.size) @ frame.to_grid, frame.size)
        at = transform @ frame.to_grid
        view = self._viewed(frame, image, at)
        for free, tolerance in steps:
            made = step(view.pull.votes(), free, tolerance)
            if made is None or not (far := corners_move(made[0], frame.size)) < _FARTHEST * max(frame.size):
                break
            at = at @ made[0]
            view = self._viewed(frame, image, at, view)
            if far < _SETTLED and free == _STEPS[-1][0]:
                break
        found = at @ np.linalg.inv(frame.to_grid)
        return Settled(found / found[2, 2], view.pull.agreement, view)

    def simplest(self, settled: Settled) -> F64:
        """The transform (grid -> query) by the simplest model that explains what is seen as well."""
        transform = settled.transform
        if settled.view is None:
            return transform
        view, frame = settled.view, settled.view.frame
        to_original = scaling(self.grid, self.size)
        for _ in range(_ROUNDS):
            model = simplest(view.pull.votes(), transform @ frame.to_grid, to_original @ frame.to_grid)
            if model is None:
                break
            made = np.asarray(model @ to_original)
            far = corners_move(np.linalg.inv(transform @ frame.to_grid) @ made @ frame.to_grid, frame.size)
            simpler = self._viewed(frame, view.image, made @ frame.to_grid, view)
            if simpler.pull.agreement.evidence < _KEPT * view.pull.agreement.evidence:
                break
            transform, view = made, simpler
            if far <= _NEARLY:
                break
        return transform

    def _viewed(self, frame: Frame, image: F32, at: F64, before: _View | None = None) -> _View:
        """The query at a place; `at`: 3 x 3, frame -> query. What it shows is much the same where it was just `before`."""
        if before is None or corners_move(np.linalg.inv(before.at) @ at, frame.size) > _HARDLY:
            known = Known.of(image, self.query.shown(at, frame.size))
            return _View(frame, image, at, known, self._pull(known, at, frame))
        return before._replace(pull=self._pull(before.known, at, frame))

    def _pull(self, known: Known, at: F64, frame: Frame) -> Pull:
        return Pull.of(known, self.query.warp_roughly(at, frame.size))


def corners_move(made: F64, size: tuple[int, int]) -> float:
    """How far (pixels) the farthest corner of a frame goes."""
    corners = np.array([[0, 0, 1], [size[0], 0, 1], [0, size[1], 1], [size[0], size[1], 1]], float)
    after = corners @ made.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.hypot(*(after[:, :2] / after[:, 2:] - corners[:, :2]).T).max())
