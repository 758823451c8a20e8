"""Laying a query over the registered picture, on the canonical grid: features first, then a fine step on the pixels.

Nothing here sees a key, so whatever it chooses costs the p-value nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from matcher.copies.correspondences import correspond
from matcher.copies.features import Fingerprint, fingerprint_gray, to_small
from matcher.copies.geometry import Model, agree
from matcher.pixels import F32, F64, U8, flip, scaling
from matcher.watermark.pyramid import Pyramid
from matcher.watermark.refine import Settled, Sides
from matcher.watermark.registration import Registration
from matcher.watermark.small import Reference, reference, with_finer_features

_MODELS: Final[tuple[Model, ...]] = ("scale", "affine")
"""A slant is left to the fine step."""
_TESTS: Final = 2 * len(_MODELS)
_MIN_SCORE: Final = -2.0
"""Of a start that is tried: whether the picture is there is decided by its pixels."""
_COARSE: Final = (96,)
_FINE: Final = (192, 384)
_CLEAR: Final = (8.0, 0.85)
_SURE: Final = (16.0, 0.9)
_LEAST: Final = (6.0, 0.2)
"""How many blocks with detail have to agree, and which share of them: to look closer, no further, and at all."""
_BEST: Final = 2
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


class _Query:
    """The query, or its mirror where that is asked for."""

    def __init__(self, image: U8) -> None:
        self.size = (image.shape[1], image.shape[0])
        self._image = image
        self._forms: dict[bool, Pyramid] = {}

    def form(self, flipped: bool) -> Pyramid:
        if flipped not in self._forms:
            self._forms[flipped] = Pyramid.of(np.ascontiguousarray(self._image[:, ::-1]) if flipped else self._image)
        return self._forms[flipped]


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

    def passes(self, least: tuple[float, float]) -> bool:
        return self.settled.agree >= least[0] and self.settled.share >= least[1]


def align(query: U8, registration: Registration, print_: Fingerprint | None = None) -> Aligned | None:
    """The query (H x W luma) over the registered picture; None where it shows another picture.

    `print_` is the query's fingerprint, in pixels of `query`, where it is there already. Raises RegistrationInvalid.
    """
    known = reference(registration)
    image = _Query(query)
    found = _locate(known, image, print_ or fingerprint_gray(query))
    return None if found is None else _lay(known, image, found)


def _locate(known: Reference, image: _Query, print_: Fingerprint) -> _Found | None:
    """The start that the pixels agree with best once it is settled; the first that is clear."""
    tried: list[_Found] = []
    for start in _starts(known, print_):
        coarse = _settled(known, image, start, _COARSE)
        tried.append(coarse)
        if coarse.passes(_CLEAR):
            fine = _settled(known, image, coarse.start, _FINE)
            if fine.passes(_SURE):
                return fine
    best = sorted(tried, key=lambda found: -found.settled.weight)[:_BEST]
    found = max((_settled(known, image, each.start, _FINE) for each in best), key=lambda found: found.settled.weight, default=None)
    return found if found is not None and found.passes(_LEAST) else None


def _sides(known: Reference, image: _Query, flipped: bool) -> Sides:
    return Sides(known.pyramid, image.form(flipped), known.size, known.grid)


def _settled(known: Reference, image: _Query, start: _Start, sides: tuple[int, ...]) -> _Found:
    return _Found(_sides(known, image, start.flipped).settled(start.transform, sides), start.flipped)


def _starts(known: Reference, print_: Fingerprint) -> Iterator[_Start]:
    """Where the query's features are those of the registered picture; finer features, for crops, where the first lead nowhere."""
    for registered in (known.fingerprint, with_finer_features(known)):
        to_query = np.linalg.inv(scaling((print_.width, print_.height), print_.small))
        to_registered = to_small(registered) @ scaling(known.grid, (registered.width, registered.height))
        for flipped, pairs in enumerate(correspond(registered, print_)):
            for model in _MODELS:
                geometry = agree(pairs, registered.small, print_.small, model, _TESTS, _MIN_SCORE)
                if geometry is not None:
                    yield _Start(to_query @ geometry.transform @ to_registered, bool(flipped))


def _lay(known: Reference, image: _Query, found: _Found) -> Aligned | None:
    """The query on the grid; None where nearly nothing is seen."""
    seen = image.form(found.flipped)
    transform = _sides(known, image, found.flipped).simplest(found.settled.transform, _FINE[-1])
    mask = seen.shown(transform, known.grid)
    if mask.sum() < _MIN_SEEN:
        return None
    original = known.pyramid.warp(scaling(known.grid, known.pyramid.size), known.grid)
    placed = transform @ scaling(known.size, known.grid)
    back = flip(image.size[0]) @ placed if found.flipped else placed
    return Aligned(seen.warp(transform, known.grid), original, mask, back / back[2, 2])
