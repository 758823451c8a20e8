from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filigrane.demo import pictures
from matcher.copies.features import MIRROR
from matcher.copies.look import look
from matcher.copies.look_index import LookIndex, LooksInvalid
from matcher.copies.sift import DIMENSIONS
from matcher.pixels import U8, gray, gray_from_jpeg, jpeg, resized


def _apart(a: U8, b: U8) -> float:
    return float(np.linalg.norm(a.astype(float) - b.astype(float)))


def _looks(count: int, seed: int = 0) -> U8:
    return np.random.default_rng(seed).integers(0, 120, (count, DIMENSIONS)).astype(np.uint8)


def test_a_plain_copy_looks_like_its_original_and_nothing_else_does() -> None:
    originals = [gray(make(seed)) for make in (pictures.mountains, pictures.marble, pictures.city) for seed in (1, 2)]
    looks = [look(image) for image in originals]
    for i, image in enumerate(originals):
        copy = look(gray_from_jpeg(jpeg(resized(image, 160), 20)))
        assert _apart(copy, looks[i]) < 60 < min(_apart(copy, other) for j, other in enumerate(looks) if j != i)


def test_the_mirror_of_a_look_is_the_permutation_of_features() -> None:
    image = gray(pictures.mountains(3))
    assert _apart(look(np.ascontiguousarray(image[:, ::-1])), look(image)[MIRROR]) < 3


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("shape", [(1, 1), (1, 4_000), (300, 200)])
def test_a_picture_that_shows_nothing_has_no_look(level: int, shape: tuple[int, int]) -> None:
    assert not len(look(np.full(shape, level, np.uint8)))


def test_noise_of_compression_is_no_look() -> None:
    flat = (128 + np.random.default_rng(0).integers(-1, 2, (300, 400))).astype(np.uint8)
    assert not len(look(flat))


def _brute(looks: dict[int, tuple[int, U8]], query: U8, limit: int, group: int | None) -> list[tuple[int, float]]:
    """What the index must find: all compared with all."""
    near = [
        (min(_apart(query, known), _apart(query[MIRROR], known)), number)
        for number, (owner, known) in looks.items()
        if group is None or owner == group
    ]
    return [(number, distance) for distance, number in sorted(near)[:limit]]


def _found(index: LookIndex, query: U8, limit: int, group: int | None = None) -> list[tuple[int, float]]:
    return sorted(((a.number, a.distance) for a in index.nearest(query, limit, group, within=1e4)), key=lambda f: f[1])


@given(
    changes=st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(0, 2)), max_size=60),
    seed=st.integers(0, 5),
)
@settings(max_examples=40, deadline=None)
def test_what_was_added_is_found_and_what_was_removed_is_not(changes: list[tuple[bool, int, int]], seed: int) -> None:
    index, model, number = LookIndex(flat=20), dict[int, tuple[int, U8]](), 0
    drawn = _looks(31, seed)
    for adds, which, group in changes:
        if adds:
            index.add(number, drawn[which], group)
            model[number] = (group, drawn[which])
            number += 1
        elif model:
            gone = sorted(model)[which % len(model)]
            index.remove(gone, model.pop(gone)[0])
    assert len(index) == len(model)
    for group in range(3):
        wanted = _brute(model, drawn[0], 1_000, group)
        found = dict(_found(index, drawn[0], 1_000, group))
        if number <= 20:  # all are compared; above that only the nearest lists are
            assert found == pytest.approx(dict(wanted), abs=0.01)
        assert all(model[n][0] == group for n in found)
    index.settle()


def test_the_inverted_file_finds_what_is_near_and_takes_over_what_changed_while_it_was_learnt() -> None:
    index, looks = LookIndex(flat=500), _looks(3_000)
    for number, one in enumerate(looks):
        index.add(number, one, number % 7)
        if number % 5 == 0:
            index.remove(number, number % 7)
    index.settle()
    assert len(index) == 3_000 - 600
    for number in range(1, 3_000, 97):
        near = np.clip(looks[number].astype(int) + np.random.default_rng(number).integers(-4, 5, DIMENSIONS), 0, 255).astype(np.uint8)
        hits = [a.number for a in index.nearest(near[MIRROR], 3)]
        assert hits == ([] if number % 5 == 0 else [number])


def test_one_groups_pictures_do_not_displace_anothers() -> None:
    index, one = LookIndex(), _looks(1)[0]
    for number in range(200):
        index.add(number, one, group=1)
    index.add(200, np.minimum(one + np.uint8(1), np.uint8(255)), group=2)
    assert [a.number for a in index.nearest(one, 3) if a.group == 2] == [200]
    (other,) = index.nearest(one, 3, group=2)
    assert (other.number, other.group, other.mirrored) == (200, 2, False)
    assert other.distance == pytest.approx(128**0.5, abs=0.1)


def test_bytes_and_back() -> None:
    index, looks = LookIndex(flat=100), _looks(300)
    for number, one in enumerate(looks):
        index.add(number, one, group=3)
    index.settle()
    again = LookIndex.from_bytes(index.to_bytes())
    assert len(again) == 300
    assert again.nearest(looks[7], 2) == index.nearest(looks[7], 2)
    again.add(300, looks[7])
    again.settle()


@given(st.integers(0, 10_000), st.integers(1, 255))
@settings(max_examples=30, deadline=None)
def test_damage_is_noticed(place: int, change: int) -> None:
    index = LookIndex()
    index.add(1, _looks(1)[0])
    data = bytearray(index.to_bytes())
    data[place % len(data)] ^= change
    with pytest.raises(LooksInvalid):
        LookIndex.from_bytes(bytes(data))


@pytest.mark.parametrize(("number", "group"), [(-1, 0), (1 << 40, 0), (0, -1), (0, 1 << 23)])
def test_numbers_have_a_range(number: int, group: int) -> None:
    with pytest.raises(ValueError, match="numbers are below"):
        LookIndex().add(number, _looks(1)[0], group)
