"""Where a query may lie on a registered picture, roughly: by its features, or by its pixels where it has none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from math import log
from typing import Final, NamedTuple

import numpy as np

from matcher.copies.correspondences import correspond
from matcher.copies.features import Fingerprint, to_small
from matcher.copies.geometry import Model, agree
from matcher.pixels import F64, flip, scaling
from matcher.watermark.query import Query
from matcher.watermark.small import Reference, with_finer_features
from matcher.watermark.sweep import places

_MODELS: Final[tuple[Model, ...]] = ("scale", "affine")
"""A slant is left to the fine step."""
_TESTS: Final = 2 * len(_MODELS)
_MIN_SCORE: Final = -2.0
"""Of a start that is tried: whether the picture is there is decided by its pixels."""
_MANY: Final = 12
"""Correspondences that agree on a transform: it is hardly off then."""
_SAME_SHAPE: Final = 0.02
_PLACES: Final = 3
_STANDS_OUT: Final = 6.0
"""Deviations by which a place of a sweep stands out: nine of ten looks at other pictures have less."""
_FEW_POINTS: Final = 150
"""What a query with more features shows is found by these, or where it has the picture's own pixels: other sizes are worth no look."""
_TURNS: Final = [float(turn) for turn in np.deg2rad([-20, -16, -12, -8, -4, 4, 8, 12, 16, 20])]
_ZOOMS: Final = 1.06 ** np.arange(-10, 24)


class Start(NamedTuple):
    """`transform`: 3 x 3, grid -> query, or its mirror where `flipped`; `near`: it is likely to miss by a pixel or two only."""

    transform: F64
    flipped: bool
    near: bool = False


def ways(known: Reference, image: Query, seen: F64 | None = None, *, thorough: bool = False) -> Iterator[Iterator[Start]]:
    """The likeliest first, and the costliest last. Only a thorough look tries all that might be. `seen`: 3 x 3, registered -> query, in
    pixels of both, where others saw it."""
    native = known.pyramid.size[0] / known.size[0]
    stands_out = 0.0 if thorough else _STANDS_OUT
    yield chain(_seen(known, image, seen), _whole(known, image), _by_features(known, known.fingerprint, image))
    yield _swept(known, image, [native], stands_out=stands_out)
    if thorough or len(image.fingerprint.points) < _FEW_POINTS:
        yield _swept(known, image, native * _ZOOMS, level=2, stands_out=stands_out)
        yield _by_features(known, with_finer_features(known), image)
    if thorough:
        yield _swept(known, image, native * _ZOOMS, level=1)
        yield _swept(known, image, [native], _TURNS, level=1)


def _seen(known: Reference, image: Query, where: F64 | None) -> Iterator[Start]:
    if where is not None:
        flipped = bool(np.linalg.det(where) < 0)
        placed = where @ scaling(known.grid, known.size)
        yield Start(flip(image.size[0]) @ placed if flipped else placed, flipped, near=True)


def _whole(known: Reference, image: Query) -> Iterator[Start]:
    """The whole picture at another size."""
    (width, height), (w, h) = known.size, image.size
    if abs(log(width * h / (height * w))) < _SAME_SHAPE + 0.5 / min(image.size):
        for flipped in (False, True):
            yield Start(scaling(known.grid, image.size), flipped)


def _by_features(known: Reference, registered: Fingerprint, image: Query) -> Iterator[Start]:
    seen = image.fingerprint
    to_query = scaling(seen.small, image.size)
    to_registered = to_small(registered) @ scaling(known.grid, (registered.width, registered.height))
    for flipped, pairs in enumerate(correspond(registered, seen)):
        tried = (agree(pairs, registered.small, seen.small, model, _TESTS, _MIN_SCORE) for model in _MODELS)
        for geometry in sorted(filter(None, tried), key=lambda found: -found.score):
            near = geometry.inliers >= _MANY
            yield Start(to_query @ geometry.transform @ to_registered, bool(flipped), near)


def _swept(
    known: Reference, image: Query, zooms: Iterable[float], turns: Sequence[float] = (0.0,), level: int = 0, stands_out: float = 0.0
) -> Iterator[Start]:
    """A part of the picture, in pixels of the small picture for one of the query."""
    to_small = scaling(known.grid, known.pyramid.size)
    found = [(place, flipped) for flipped in (False, True) for place in places(known.pyramid, image.form(flipped), zooms, turns, level)]
    for place, flipped in sorted(found, key=lambda each: -each[0].clear)[:_PLACES]:
        if place.clear >= stands_out:
            yield Start(place.transform @ to_small, flipped)
