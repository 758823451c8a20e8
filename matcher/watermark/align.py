"""Laying a query over the registered picture, on the canonical grid: rough starts first, then a fine step on the pixels.

Nothing here sees a key. That several places are offered has to be counted by who tries a key at each (`matcher.watermark.detect`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from matcher.pixels import F32, F64, U8, flip, scaling
from matcher.watermark.keys import halved
from matcher.watermark.pyramid import soft
from matcher.watermark.query import Query
from matcher.watermark.refine import Settled, Sides, corners_move
from matcher.watermark.registration import Registration
from matcher.watermark.small import Reference, reference
from matcher.watermark.starts import Start, ways

_COARSE: Final = (96,)
_FINE: Final = (192, 384)
_WORTH: Final = (3, 0.4, 0.4)
"""To look closer: how many blocks with detail have to agree, which share of them, and how well."""
_CLEAR: Final = (8, 0.85, 0.85)
"""To look closer at once."""
_SURE: Final = (80, 0.95, 0.9)
"""To leave no doubt."""
_LIKELY: Final = (120, 0.6, 0.95)
"""To be content with the best of one way of looking."""
_LEAST: Final = (6, 0.8, 0.85)
_ENOUGH: Final = 300.0
"""To be the picture at all: so many blocks, or so much evidence. Of 360 looks at other pictures one had more than 270."""
_BEST: Final = 3
_LAST: Final = 8
"""So many different places are settled finely after one way of looking, and after a thorough look in all of them."""
_SAME_PLACE: Final = 0.02
_CHEAP_WAYS: Final = 2
"""Of looking. Where one of them leaves no doubt, only these are asked for other places, too: textures repeat."""
_MIN_SEEN: Final = 500


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """A query laid over a registered picture, on the picture's canonical grid with half its pixels each way, which show the whole band.

    `known`: the registered picture; `query`: luma of the query there (float32, H x W); `original`: the small picture, as soft as the query;
    `mask`: 1 where the query shows it; `transform`: 3 x 3, registered -> query, in pixels of the registered original and of the query as
    given; `query_size`: its (width, height); `agrees`: whether the pixels say that this is the place.
    """

    known: Reference
    query: F32
    original: F32
    mask: F32
    transform: F64
    query_size: tuple[int, int]
    agrees: bool


class _Try:
    """A start, and where it settles."""

    def __init__(self, known: Reference, image: Query, start: Start) -> None:
        self.flipped = start.flipped
        self.sides = Sides(known.pyramid, image.form(start.flipped), known.size, known.grid)
        self._start = start

    @cached_property
    def coarse(self) -> Settled:
        return self.sides.settled(self._start.transform, _COARSE)

    @cached_property
    def fine(self) -> Settled:
        return self.sides.settled(self.coarse.transform, _FINE)

    def at_once(self) -> _Place | None:
        """Where a few fine steps leave no doubt."""
        near = self.sides.settled_soon(self._start.transform, _FINE[-1:]) if self._start.near else None
        if near is not None and near.passes(_SURE):
            return _Place(self, near)
        settled = self.sides.settled_soon(self.coarse.transform, _FINE) if self.coarse.passes(_CLEAR) else None
        return _Place(self, settled) if settled is not None and settled.passes(_SURE) else None


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    tried: _Try
    settled: Settled

    @property
    def agrees(self) -> bool:
        return self.settled.passes(_LEAST) or self.settled.agreement.evidence >= _ENOUGH

    def is_near(self, other: _Place, size: tuple[int, int]) -> bool:
        """Whether both put the corners of a query of that size at much the same places."""
        step = self.settled.transform @ np.linalg.inv(other.settled.transform)
        return self.tried.flipped == other.tried.flipped and corners_move(step, size) < _SAME_PLACE * max(size)


def align(query: U8, registration: Registration, *, thorough: bool = False) -> Aligned | None:
    """The query (H x W luma) over the registered picture; None where it shows another picture. Raises RegistrationInvalid."""
    return next((place for place in places(Query(query), registration, thorough=thorough) if place.agrees), None)


def places(image: Query, registration: Registration, seen: F64 | None = None, *, thorough: bool = False) -> Iterator[Aligned]:
    """Where the query may show the picture, the likeliest first. Each is looked for when it is asked for.

    `seen`: 3 x 3, registered -> query, where it was seen already; `thorough`: whatever it costs, and places where nothing agrees come last.
    Raises RegistrationInvalid.
    """
    known = reference(registration)
    for place in _located(known, image, seen, thorough):
        aligned = lay(known, image, place.tried.sides.simplest(place.settled), place.tried.flipped, agrees=place.agrees)
        if aligned is not None:
            yield aligned


def _located(known: Reference, image: Query, seen: F64 | None, thorough: bool) -> Iterator[_Place]:
    """No place twice."""
    told: list[_Place] = []
    for place in _in_order(known, image, seen, thorough):
        if not any(place.is_near(one, image.size) for one in told):
            told.append(place)
            yield place


def _in_order(known: Reference, image: Query, seen: F64 | None, thorough: bool) -> Iterator[_Place]:
    """Costlier ways are only tried where those before lead nowhere, or nobody is content with where they lead."""
    tried, sure = [], False
    for way, starts in enumerate(ways(known, image, seen, thorough=thorough)):
        if way == _CHEAP_WAYS and sure:
            break
        for start in starts:
            tried.append(_Try(known, image, start))
            if place := tried[-1].at_once():
                yield place
                sure = True
                if not thorough:
                    return
        best = next(iter(_best(tried, image.size)), None)
        if best is not None and best.agrees:
            yield best
            if not thorough and (best.settled.passes(_LIKELY) or best.settled.passes(_SURE)):
                return
    if thorough:
        yield from _best(tried, image.size, _LAST)


def _best(tried: Sequence[_Try], size: tuple[int, int], count: int = _BEST) -> list[_Place]:
    """The best few, settled finely, by what the pixels say."""
    worth = sorted((each for each in tried if each.coarse.passes(_WORTH)), key=lambda each: -each.coarse.agreement.likely)
    few = _different((_Place(each, each.coarse) for each in worth), size, count)
    return sorted((_Place(each.tried, each.tried.fine) for each in few), key=lambda place: -place.settled.agreement.likely)


def _different(found: Iterable[_Place], size: tuple[int, int], count: int) -> list[_Place]:
    """The first `count` that do not lie where one before lies."""
    kept: list[_Place] = []
    for each in found:
        if len(kept) < count and not any(each.is_near(one, size) for one in kept):
            kept.append(each)
    return kept


def lay(known: Reference, image: Query, transform: F64, flipped: bool, *, agrees: bool = False) -> Aligned | None:
    """The query, or its mirror, on the grid; `transform`: 3 x 3, grid -> query. None where nearly nothing is seen."""
    seen, size = image.form(flipped), halved(known.grid)
    there = transform @ scaling(size, known.grid)
    mask = seen.shown(there, size)
    if mask.sum() < _MIN_SEEN:
        return None
    original = soft(known.half) if seen.softened(there, size) else known.half
    placed = transform @ scaling(known.size, known.grid)
    back = flip(image.size[0]) @ placed if flipped else placed
    return Aligned(known, seen.warp(there, size), original, mask, back / back[2, 2], image.size, agrees)
