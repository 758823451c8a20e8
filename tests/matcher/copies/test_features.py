from __future__ import annotations

import zlib
from contextlib import suppress
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matcher.copies.features import KEPT, POINTS, SIDE, Fingerprint, FingerprintInvalid, fingerprint, registered
from matcher.copies.native import library
from matcher.copies.verdict import judge
from tests.matcher.copies.brute import mirrored
from tests.matcher.pictures import crop, jpeg, mirror, photo


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
    assert np.array_equal(again.look, print_.look)
    assert again.to_bytes() == print_.to_bytes()


def test_a_look_is_kept() -> None:
    print_ = replace(fingerprint(photo(2)), look=np.arange(128, dtype=np.uint8))
    assert np.array_equal(Fingerprint.from_bytes(print_.to_bytes()).look, print_.look)


def test_a_registered_fingerprint_is_small() -> None:
    print_ = registered(photo(2, 1024, 768))
    assert len(print_.points) == KEPT
    assert len(print_.to_bytes()) < 48_000
    assert print_.textured


def test_a_plain_and_a_half_empty_picture_have_too_little_texture() -> None:
    empty = np.full((450, 600, 3), 90, np.uint8)
    corner = empty.copy()
    corner[:150, :200] = photo(4)[:150, :200]
    assert not registered(empty).textured
    assert not registered(corner).textured
    assert fingerprint(photo(4)).textured


def packed(*fields: object) -> bytes:
    body = msgspec.msgpack.encode(fields)
    return b"FGF2" + zlib.crc32(body).to_bytes(4, "big") + body


_parts = st.binary(max_size=300) | st.integers(-(2**63), 2**64 - 1) | st.none() | st.text(max_size=9) | st.lists(st.integers(0, 9))


@given(st.lists(_parts, max_size=8))
def test_other_fields_under_a_right_checksum_are_refused(fields: list[object]) -> None:
    data = packed(*fields)
    with suppress(FingerprintInvalid):
        assert Fingerprint.from_bytes(data).to_bytes() == data


@given(st.integers(0, 70_000), st.integers(0, 70_000), *[st.integers(0, 40)] * 2, st.sampled_from([0, 1, 128, 129]))
def test_fields_that_do_not_fit_together_are_refused(width: int, height: int, points: int, rows: int, look: int) -> None:
    data = packed(width, height, bytes(points), bytes(64 * rows), b"", bytes(look))
    if 1 <= min(width, height) <= max(width, height) <= 65_535 and points == 8 * rows and look in (0, 128):
        assert Fingerprint.from_bytes(data).to_bytes() == data
    else:
        with pytest.raises(FingerprintInvalid):
            Fingerprint.from_bytes(data)


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(FingerprintInvalid):
        Fingerprint.from_bytes(data)
    with pytest.raises(FingerprintInvalid):
        Fingerprint.from_bytes(b"FGF2" + data)


def test_the_mirror_needs_no_pixels() -> None:
    derived, taken = mirrored(fingerprint(photo(3))), fingerprint(mirror(photo(3)))
    distances = np.linalg.norm(taken.points[:, None, :2] - derived.points[None, :, :2], axis=2)
    near = distances.min(axis=1) < 1.0
    assert near.mean() > 0.8
    partner = distances.argmin(axis=1)[near]
    difference = np.linalg.norm(taken.descriptors[near].astype(float) - derived.descriptors[partner].astype(float), axis=1)
    assert np.median(difference) < 100


@pytest.mark.skipif(library() is None, reason="the native library is not built")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_pure_form_leads_to_the_same_verdict(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    query, known = jpeg(crop(photo(seed), 0.2, 0.3, 0.6), 50), [registered(photo(1)), registered(photo(2))]
    native = [judge(print_, fingerprint(query)) for print_ in known]
    monkeypatch.setenv("FILIGRANE_PURE", "1")
    pure = [judge(print_, fingerprint(query)) for print_ in known]
    assert [v is not None for v in native] == [seed == 1, seed == 2]
    assert [v and (v.name, v.mirrored) for v in native] == [v and (v.name, v.mirrored) for v in pure]
    for one, other in zip(native, pure, strict=True):
        assert one is None or other is None or np.allclose(one.transform, other.transform, rtol=0.01, atol=0.5)


_STORED = fingerprint(photo(2)).to_bytes()
