"""Copy, same scene, or none: the verdict on one registered picture and one query."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from matcher.copies.correspondences import correspond
from matcher.copies.features import Fingerprint, to_small, unflip
from matcher.copies.geometry import Geometry, Model, agree
from matcher.copies.likeness import Likeness, compare
from matcher.copies.plain import Plain, same
from matcher.pixels import F64

Name = Literal["copy", "same scene"]

MIN_SCORE: Final = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """`transform`: 3 x 3, registered -> query, in pixels of the originals; `score`: -log10 of the expected number of false matches;
    `overlap`: share of the registered picture that the query shows (0..1); `inliers` of `pairs` correspondences agree, none of
    none where the pictures were compared as a whole (`matcher.copies.plain`)."""

    name: Name
    score: float
    transform: F64
    mirrored: bool
    overlap: float
    likeness: Likeness
    inliers: int
    pairs: int


def judge(
    registered: Fingerprint, query: Fingerprint, model: Model = "scale", tests: int = 1, *, mirrored: bool | None = None
) -> Verdict | None:
    """The better of the query and its mirror against a registered picture; None where no geometry stands out of chance. What is no copy
    by its features and looks alike is compared as a whole.

    `tests` is the number of pictures that the query was compared with: it counts against the score. `mirrored` says which of the two
    to look at, where that is known.
    """
    found = sorted(_located(registered, query, model, tests, mirrored), key=lambda f: -f[0].score)
    verdicts = []
    for geometry, flipped in found:
        verdicts.append(_verdict(registered, query, geometry, flipped=flipped))
        if verdicts[-1].name == "copy":
            return verdicts[-1]
    plain = same(registered, query, tests, mirrored=mirrored)
    if plain is not None:
        return _whole(plain, query)
    return verdicts[0] if verdicts else None


def _located(
    registered: Fingerprint, query: Fingerprint, model: Model, tests: int, mirrored: bool | None
) -> Iterator[tuple[Geometry, bool]]:
    for flipped, pairs in enumerate(correspond(registered, query)):
        if mirrored in (None, bool(flipped)):
            geometry = agree(pairs, registered.small, query.small, model, 2 * tests, MIN_SCORE)
            if geometry is not None:
                yield geometry, bool(flipped)


def _whole(plain: Plain, query: Fingerprint) -> Verdict:
    """No features speak for it: no correspondences, no inliers."""
    transform = unflip(query) @ plain.transform if plain.flipped else plain.transform
    return Verdict("copy", plain.score, transform, plain.flipped, 1.0, plain.likeness, 0, 0)


def _verdict(registered: Fingerprint, query: Fingerprint, geometry: Geometry, *, flipped: bool) -> Verdict:
    overlap, likeness = compare(registered, query, geometry, flipped=flipped)
    transform = np.linalg.inv(to_small(query)) @ geometry.transform @ to_small(registered)
    if flipped:
        transform = unflip(query) @ transform
    name: Name = "copy" if likeness.is_copy else "same scene"
    unit = transform / transform[2, 2]
    return Verdict(name, geometry.score, unit, flipped, overlap, likeness, geometry.inliers, geometry.pairs)
