"""Features of a registered picture: those that come back in copies of it come first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from matcher.copies.features import INDEXED, SIDE, Fingerprint, fingerprint, registered
from matcher.pixels import U8
from tests.matcher.pictures import crop, jpeg, photo, resize

PICTURE = photo(11, 1024, 768)


def found(print_: Fingerprint, query: Fingerprint, place: tuple[float, float, float]) -> int:
    """How many of the indexed features are in the query, in the right place; `place`: left, top and side of what it shows."""
    left, top, side = place
    expected = (print_.points[:INDEXED, :2] - np.array([left * SIDE, top * SIDE * 3 / 4])) / side
    far = np.linalg.norm(expected[:, None] - query.points[None, :, :2], axis=2)
    apart = np.linalg.norm(print_.descriptors[:INDEXED, None].astype(float) - query.descriptors[None].astype(float), axis=2)
    return int(((far < 2.5) & (apart < 160)).any(axis=1).sum())


@pytest.mark.parametrize(
    ("edit", "place", "least"),
    [
        (lambda rgb: jpeg(resize(rgb, 0.3), 30), (0.0, 0.0, 1.0), 50),
        (lambda rgb: jpeg(crop(rgb, 0.3, 0.1, 0.5), 60), (0.3, 0.1, 0.5), 25),
        (lambda rgb: crop(rgb, 0.11, 0.56, 0.32), (0.11, 0.56, 0.32), 5),
    ],
    ids=["small", "quarter", "tenth"],
)
def test_enough_of_the_indexed_come_back(edit: Callable[[U8], U8], place: tuple[float, float, float], least: int) -> None:
    query = fingerprint(edit(PICTURE))
    assert found(registered(PICTURE), query, place) >= least


def test_registering_twice_gives_the_same() -> None:
    assert registered(PICTURE).to_bytes() == registered(PICTURE).to_bytes()


def test_what_repeats_does_not_use_up_the_indexed() -> None:
    letter = photo(5, 48, 48)
    picture = PICTURE.copy()
    picture[:, :528] = np.tile(letter, (16, 11, 1))
    points = registered(picture).points[:INDEXED]
    assert (points[:, 0] > 528 / 1024 * SIDE).mean() > 0.5


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (40, 30), (256, 256), (300, 257)])
def test_any_size_is_registered(shape: tuple[int, int]) -> None:
    draw = np.random.default_rng(3)
    rgb = draw.integers(0, 256, (*shape, 3), np.uint8)
    print_ = registered(rgb)
    assert (print_.width, print_.height) == shape[::-1]
    assert Fingerprint.from_bytes(print_.to_bytes()).to_bytes() == print_.to_bytes()
