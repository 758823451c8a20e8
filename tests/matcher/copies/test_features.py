from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matcher.copies.features import POINTS, SIDE, Fingerprint, FingerprintInvalid, fingerprint, mirrored, thumbnail_of
from tests.matcher.pictures import mirror, photo


def test_points_lie_in_the_small_picture_and_spread_over_it() -> None:
    print_ = fingerprint(photo(1))
    assert print_.small == (SIDE, SIDE * 3 // 4)
    assert 100 < len(print_.points) <= POINTS
    assert (print_.points[:, :2] >= 0).all()
    assert (print_.points[:, :2] <= np.array(print_.small)).all()
    quadrants = (print_.points[:, 0] > SIDE / 2) * 2 + (print_.points[:, 1] > SIDE * 3 / 8)
    assert np.bincount(quadrants.astype(int), minlength=4).min() > len(print_.points) / 8


def test_the_size_of_the_original_may_be_given() -> None:
    assert (fingerprint(photo(1), (6000, 4500)).width, fingerprint(photo(1), (6000, 4500)).height) == (6000, 4500)


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 3)])
def test_tiny_and_flat_pictures_have_few_points_and_no_error(shape: tuple[int, int]) -> None:
    print_ = fingerprint(np.full((*shape, 3), 200, np.uint8))
    assert len(print_.points) == 0
    assert len(Fingerprint.from_bytes(print_.to_bytes()).points) == 0


@pytest.mark.parametrize("array", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_picture_is_refused(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="a picture"):
        fingerprint(array)


def test_bytes_and_back() -> None:
    print_ = fingerprint(photo(2))
    again = Fingerprint.from_bytes(print_.to_bytes())
    assert (again.width, again.height, again.thumbnail) == (600, 450, print_.thumbnail)
    assert np.array_equal(again.points, print_.points)
    assert np.array_equal(again.descriptors, print_.descriptors)


@given(at=st.integers(0, 4000), flip=st.integers(1, 255))
def test_a_damaged_byte_is_noticed(at: int, flip: int) -> None:
    data = bytearray(_STORED)
    data[at] ^= flip
    with pytest.raises(FingerprintInvalid):
        Fingerprint.from_bytes(bytes(data))


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(FingerprintInvalid):
        Fingerprint.from_bytes(data)
    with pytest.raises(FingerprintInvalid):
        Fingerprint.from_bytes(b"FGF1" + data)


def test_the_mirror_needs_no_pixels() -> None:
    derived, taken = mirrored(fingerprint(photo(3))), fingerprint(mirror(photo(3)))
    distances = np.linalg.norm(taken.points[:, None, :2] - derived.points[None, :, :2], axis=2)
    near = distances.min(axis=1) < 1.0
    assert near.mean() > 0.8
    partner = distances.argmin(axis=1)[near]
    difference = np.linalg.norm(taken.descriptors[near].astype(float) - derived.descriptors[partner].astype(float), axis=1)
    assert np.median(difference) < 100
    assert np.abs(thumbnail_of(derived).astype(int) - thumbnail_of(taken).astype(int)).mean() < 3


_STORED = fingerprint(photo(2)).to_bytes()
