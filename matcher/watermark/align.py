"""Laying a query over the registered picture, on the canonical grid: features first, then a fine step on the pixels.

Nothing here sees a key, so whatever it chooses costs the p-value nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from math import log
from typing import Final, NamedTuple

import numpy as np

from matcher.copies.correspondences import correspond
from matcher.copies.features import Fingerprint, fingerprint_gray, to_small
from matcher.copies.geometry import Model, agree
from matcher.pixels import F32, F64, U8, flip, scaling
from matcher.watermark.pyramid import Pyramid
from matcher.watermark.refine import Settled, Sides, corners_move
from matcher.watermark.registration import Registration
from matcher.watermark.small import Reference, reference, with_finer_features
from matcher.watermark.sweep import places

_MODELS: Final[tuple[Model, ...]] = ("scale", "affine")
"""A slant is left to the fine step."""
_TESTS: Final = 2 * len(_MODELS)
_MIN_SCORE: Final = -2.0
"""Of a start that is tried: whether the picture is there is decided by its pixels."""
_COARSE: Final = (96,)
_FINE: Final = (192, 384)
_CLEAR: Final = (8, 0.85, 0.85)
_SURE: Final = (80, 0.95, 0.9)
_LIKELY: Final = (120, 0.6, 0.95)
_WORTH: Final = (3, 0.4, 0.4)
"""How many blocks with detail have to agree, which share of them, and how well: to look closer at once, and to look no further then; to
leave it at the best of one way of looking; to look closer at all."""
_LEAST: Final = (6, 0.8, 0.85)
_ENOUGH: Final = 300.0
"""To be the picture at all, the same or so much evidence: of 360 looks at other pictures one had more than 270."""
_BEST: Final = 3
_SAME_PLACE: Final = 0.02
_SAME_SHAPE: Final = 0.02
_PLACES: Final = 3
_TURNS: Final = [float(turn) for turn in np.deg2rad([-20, -16, -12, -8, -4, 4, 8, 12, 16, 20])]
_ZOOMS: Final = 1.06 ** np.arange(-10, 24)
_MIN_SEEN: Final = 2_000


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """`query`: luma of the query on the registered picture's grid (float32, H x W); `original`: the small picture there; `mask`: 1 where
    the query shows it; `transform`: 3 x 3, registered -> query, in pixels of the registered original and of the query as given."""

    query: F32
    original: F32
    mask: F32
    transform: F64

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the grid."""
        return self.mask.shape[1], self.mask.shape[0]


class Query:
    """A query (H x W luma), and what is made of it where that is asked for."""

    def __init__(self, image: U8) -> None:
        self.size = (image.shape[1], image.shape[0])
        self._image = image
        self._forms: dict[bool, Pyramid] = {}

    def form(self, flipped: bool) -> Pyramid:
        """The query, or its mirror."""
        if flipped not in self._forms:
            self._forms[flipped] = Pyramid.of(np.ascontiguousarray(self._image[:, ::-1]) if flipped else self._image)
        return self._forms[flipped]

    @cached_property
    def fingerprint(self) -> Fingerprint:
        return fingerprint_gray(self._image)


class _Start(NamedTuple):
    """`transform`: 3 x 3, grid -> query, or its mirror where `flipped`."""

    transform: F64
    flipped: bool


class _Found(NamedTuple):
    settled: Settled
    flipped: bool

    @property
    def start(self) -> _Start:
        return _Start(self.settled.transform, self.flipped)

    @property
    def evidence(self) -> float:
        return self.settled.agreement.evidence

    def passes(self, least: tuple[float, float, float]) -> bool:
        agreement = self.settled.agreement
        return agreement.blocks >= least[0] and agreement.share >= least[1] and agreement.median >= least[2]


def align(query: U8, registration: Registration, print_: Fingerprint | None = None, *, thorough: bool = False) -> Aligned | None:
    """The query (H x W luma) over the registered picture; None where it shows another picture.

    `print_` is the query's fingerprint, in pixels of `query`, where it is there already. Raises RegistrationInvalid.
    """
    known, image = reference(registration), Query(query)
    found = _locate(known, image, print_, thorough)
    if found is None:
        return None
    transform = _sides(known, image, found.flipped).simplest(found.settled.transform, _FINE[-1])
    return lay(known, image, transform, found.flipped)


def _locate(known: Reference, image: Query, print_: Fingerprint | None, thorough: bool) -> _Found | None:
    """The start that the pixels agree with best once it is settled; costlier ways are only tried where those before lead nowhere."""
    tried: list[_Found] = []
    for starts in _ways(known, image, print_, thorough):
        for start in starts:
            coarse = _settled(known, image, start, _COARSE)
            tried.append(coarse)
            if coarse.passes(_CLEAR):
                fine = _settled(known, image, coarse.start, _FINE)
                if fine.passes(_SURE):
                    return fine
        best = _best(known, image, tried)
        if best is not None and best.passes(_LIKELY):
            return best
    return best if best is not None and (best.passes(_LEAST) or best.evidence >= _ENOUGH) else None


def _best(known: Reference, image: Query, tried: Sequence[_Found]) -> _Found | None:
    """The best of the best few, settled finely."""
    worth = sorted((each for each in tried if each.passes(_WORTH)), key=lambda found: -found.evidence)
    settled = [_settled(known, image, each.start, _FINE) for each in _different(worth, image.size)]
    return max(settled, key=lambda found: found.evidence, default=None)


def _different(found: Sequence[_Found], size: tuple[int, int]) -> list[_Found]:
    """The first few that do not lie where one before lies."""
    kept: list[_Found] = []
    for each in found:
        if len(kept) < _BEST and not any(each.flipped == one.flipped and _near(each.settled, one.settled, size) for one in kept):
            kept.append(each)
    return kept


def _near(a: Settled, b: Settled, size: tuple[int, int]) -> bool:
    """Whether two transforms (grid -> query of that size) put the corners of the query at much the same places."""
    step = a.transform @ np.linalg.inv(b.transform)
    return corners_move(step, size) < _SAME_PLACE * max(size)


def _sides(known: Reference, image: Query, flipped: bool) -> Sides:
    return Sides(known.pyramid, image.form(flipped), known.size, known.grid)


def _settled(known: Reference, image: Query, start: _Start, sides: tuple[int, ...]) -> _Found:
    return _Found(_sides(known, image, start.flipped).settled(start.transform, sides), start.flipped)


def _ways(known: Reference, image: Query, print_: Fingerprint | None, thorough: bool) -> Iterator[Iterator[_Start]]:
    """What may be, the likeliest first and the costliest last."""
    yield chain(_whole(known, image), _by_features(known, known.fingerprint, image, print_))
    native = known.pyramid.size[0] / known.size[0]
    yield _swept(known, image, [native])
    yield _swept(known, image, native * _ZOOMS, level=2)
    yield _by_features(known, with_finer_features(known), image, print_)
    if thorough:
        yield _swept(known, image, native * _ZOOMS, level=1)
        yield _swept(known, image, [native], _TURNS, level=1)


def _whole(known: Reference, image: Query) -> Iterator[_Start]:
    """The whole picture at another size."""
    (width, height), (w, h) = known.size, image.size
    if abs(log(width * h / (height * w))) < _SAME_SHAPE + 0.5 / min(image.size):
        for flipped in (False, True):
            yield _Start(scaling(known.grid, image.size), flipped)


def _by_features(known: Reference, registered: Fingerprint, image: Query, print_: Fingerprint | None) -> Iterator[_Start]:
    seen = print_ or image.fingerprint
    to_query = np.linalg.inv(scaling((seen.width, seen.height), seen.small))
    to_registered = to_small(registered) @ scaling(known.grid, (registered.width, registered.height))
    for flipped, pairs in enumerate(correspond(registered, seen)):
        for model in _MODELS:
            geometry = agree(pairs, registered.small, seen.small, model, _TESTS, _MIN_SCORE)
            if geometry is not None:
                yield _Start(to_query @ geometry.transform @ to_registered, bool(flipped))


def _swept(known: Reference, image: Query, zooms: Iterable[float], turns: Sequence[float] = (0.0,), level: int = 0) -> Iterator[_Start]:
    """A part of the picture, in pixels of the small picture for one of the query."""
    to_small = scaling(known.grid, known.pyramid.size)
    found = [(place, flipped) for flipped in (False, True) for place in places(known.pyramid, image.form(flipped), zooms, turns, level)]
    for place, flipped in sorted(found, key=lambda each: -each[0].clear)[:_PLACES]:
        yield _Start(place.transform @ to_small, flipped)


def lay(known: Reference, image: Query, transform: F64, flipped: bool) -> Aligned | None:
    """The query, or its mirror, on the grid; `transform`: 3 x 3, grid -> query. None where nearly nothing is seen."""
    seen = image.form(flipped)
    mask = seen.shown(transform, known.grid)
    if mask.sum() < _MIN_SEEN:
        return None
    original = known.pyramid.warp(scaling(known.grid, known.pyramid.size), known.grid)
    placed = transform @ scaling(known.size, known.grid)
    back = flip(image.size[0]) @ placed if flipped else placed
    return Aligned(seen.warp(transform, known.grid), original, mask, back / back[2, 2])
