from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from matcher.copies.features import fingerprint
from matcher.copies.geometry import Geometry
from matcher.copies.likeness import Likeness, compare, covered, is_graphic
from matcher.pixels import gray
from tests.matcher.pictures import crop, dialog, mirror, photo

_SAME = Geometry(np.eye(3), 100, 50.0, 100)
_PHOTO = Likeness(blocks=200, share=0.9, median=0.95, upper=0.98, slip=0.1, seen=0.9, cover=1.0, graphic=False)


def test_the_same_picture_is_alike_and_another_is_not() -> None:
    known = fingerprint(photo(1))
    for query, flipped in ((photo(1), False), (mirror(photo(1)), True)):
        overlap, likeness = compare(known, fingerprint(query), _SAME, flipped=flipped)
        assert (overlap, likeness.cover, likeness.graphic) == (1.0, 1.0, False)
        assert min(likeness.share, likeness.median) > 0.97
        assert likeness.is_copy
    for other in (photo(2), mirror(photo(1))):
        assert not compare(known, fingerprint(other), _SAME)[1].is_copy


def test_overlap_is_of_the_registered_picture_and_cover_of_either() -> None:
    part = fingerprint(crop(photo(1), 0.25, 0.25, 0.5))
    twice = Geometry(np.array([[2.0, 0, -127.5], [0, 2, -95.5], [0, 0, 1]]), 100, 50.0, 100)
    overlap, likeness = compare(fingerprint(photo(1)), part, twice)
    assert overlap == pytest.approx(0.25, abs=0.02)
    assert likeness.cover > 0.97
    assert likeness.is_copy
    nothing = compare(fingerprint(np.full((450, 600, 3), 90, np.uint8)), part, twice)[1]
    assert (nothing.graphic, nothing.is_copy) == (True, False)


@pytest.mark.parametrize(
    ("change", "copy"),
    [
        ({}, True),
        ({"blocks": 11}, False),
        ({"cover": 0.5}, False),
        ({"median": 0.8}, True),
        ({"seen": 0.45}, False),
        ({"seen": 0.55, "share": 0.55, "slip": 0.02}, True),
        ({"seen": 0.55, "share": 0.55, "slip": 0.12, "upper": 0.985}, False),
        ({"share": 0.65, "median": 0.8, "seen": 0.65, "slip": 0.04}, True),
        ({"share": 0.65, "median": 0.8, "seen": 0.65, "slip": 0.3}, False),
        ({"share": 0.98, "upper": 0.97}, True),
        ({"share": 0.8, "upper": 0.94, "slip": 0.3}, False),
        ({"slip": 0.6}, False),
        ({"graphic": True}, False),
        ({"graphic": True, "share": 0.97}, False),
        ({"graphic": True, "share": 0.99}, True),
        ({"graphic": True, "share": 0.99, "median": 0.75}, False),
        ({"graphic": True, "share": 0.95, "blocks": 40}, True),
    ],
    ids=str,
)
def test_less_may_agree_where_something_was_laid_over_a_photograph(change: dict[str, float], copy: bool) -> None:
    assert replace(_PHOTO, **change).is_copy == copy  # type: ignore[arg-type]


def test_windows_are_graphic_and_photographs_are_not() -> None:
    assert is_graphic(gray(dialog("layer mask")))
    assert not is_graphic(gray(photo(1)))
    burnt = (gray(photo(1)) // 2 + np.linspace(0, 160, 600)).clip(0, 255).astype(np.uint8)
    burnt[:100] = 255
    assert not is_graphic(burnt)


def test_a_paler_copy_is_compared_where_it_still_has_texture() -> None:
    known = photo(1).copy()
    known[:, 300:] = 100 + known[:, 300:] // 5  # faint on the right
    pale = (known * 0.3 + 90 + np.random.default_rng(1).normal(0, 3, known.shape)).clip(0, 255).astype(np.uint8)
    likeness = compare(fingerprint(known), fingerprint(pale), _SAME)[1]
    assert likeness.blocks < 0.7 * compare(fingerprint(known), fingerprint(known), _SAME)[1].blocks
    assert likeness.is_copy


def test_the_share_that_is_covered() -> None:
    source, target = np.zeros((60, 80), np.uint8), np.zeros((30, 40), np.uint8)
    assert covered(np.diag([0.5, 0.5, 1.0]), source, target) == 1.0
    assert covered(np.eye(3), source, target) == pytest.approx(0.25, abs=0.03)
    assert covered(np.diag([1.0, 1.0, -1.0]), source, target) == 0.0
