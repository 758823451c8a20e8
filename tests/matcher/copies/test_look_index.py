from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matcher.copies.features import MIRROR
from matcher.copies.look import look
from matcher.copies.look_index import LookIndex, LooksInvalid
from matcher.pixels import F32, U8, gray
from tests.matcher.copies.test_look import ATTACKS, FLAT
from tests.matcher.pictures import photo


def looks(count: int, seed: int = 0) -> U8:
    """Random looks, as uneven as real ones: count x 128."""
    rows = np.random.default_rng(seed).gamma(0.7, size=(count, 128))
    return np.asarray((np.sqrt(rows / rows.sum(axis=1, keepdims=True)) * 512).round().clip(0, 180), np.uint8)


def index_of(rows: U8, groups: npt.NDArray[np.int64] | None = None) -> LookIndex:
    index = LookIndex()
    index.add_all(np.arange(len(rows)), rows, np.zeros(len(rows), np.int64) if groups is None else groups)
    return index


def kept(rows: U8) -> F32:
    """Looks in the 16 levels that the index keeps."""
    return np.asarray(((rows + 5.5) / 12).astype(int).clip(0, 15) * 12 + 0.5, np.float32)


def brute(rows: U8, query: U8) -> F32:
    """Distances of the query or its mirror, whichever is nearer, to each kept row."""
    near = [((kept(rows) - seen.astype(np.float32)) ** 2).sum(axis=1) for seen in (query, query[MIRROR])]
    return np.asarray(np.sqrt(np.minimum(*near)), np.float32)


def test_a_small_index_answers_as_brute_force_does() -> None:
    rows = looks(700)
    index = index_of(rows)
    for query in looks(20, 1):
        exact = brute(rows, query)
        found = index.nearest(query, 10, 0, within=1e4)
        assert [a.distance for a in found] == pytest.approx(np.sort(exact)[:10], abs=0.01)
        assert [a.distance for a in found] == pytest.approx([exact[a.number] for a in found], abs=0.01)
        near = index.nearest(query, 10, within=found[5].distance + 0.02)
        assert {a.number for a in found[:6]} <= {a.number for a in near}


def test_copies_and_mirrored_copies_of_flat_pictures_are_found() -> None:
    index = index_of(np.stack([look(picture) for picture in FLAT]))
    nearest = [index.nearest(look(ATTACKS["jpeg"](picture)), 3, 0) for picture in FLAT]
    # some of these look the same to a hundredth: which is nearer is a matter of the processor's rounding
    right = [at in [a.number for a in found if a.distance <= found[0].distance + 0.5] for at, found in enumerate(nearest)]
    assert np.mean(right) >= 0.95
    flipped = index.nearest(look(np.ascontiguousarray(FLAT[3][:, ::-1])), 1, 0)
    assert [(a.number, a.mirrored) for a in flipped] == [(3, True)]


def test_above_some_thousand_only_near_cells_are_compared_and_copies_still_found() -> None:
    index = index_of(looks(30_000))
    pictures = [gray(photo(seed, 240, 180)) for seed in range(20)]
    index.add_all(np.arange(20) + 10**6, np.stack([look(picture) for picture in pictures]), np.zeros(20, np.int64))
    for at, picture in enumerate(pictures):
        assert index.nearest(look(ATTACKS["jpeg"](picture)), 1)[0].number == at + 10**6


def test_groups_do_not_displace_each_other() -> None:
    rows = np.repeat(looks(1), 50, axis=0)
    index = index_of(rows, np.array([7] * 49 + [8]))
    found = index.nearest(rows[0], 3)
    assert [(a.group, a.number) for a in found if a.group == 8] == [(8, 49)]
    assert len([a for a in found if a.group == 7]) == 3
    assert [a.number for a in index.nearest(rows[0], 5, 8)] == [49]
    assert index.nearest(rows[0], 5, 9) == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "keep"]), st.integers(0, 5), st.integers(0, 1), st.integers(0, 19))))
def test_what_was_added_or_removed_counts_at_once(steps: list[tuple[str, int, int, int]]) -> None:
    rows, index = looks(20), LookIndex()
    model: dict[tuple[int, int], int] = {}
    for step, number, group, row in steps:
        if step == "add" and (number, group) not in model:
            index.add(number, rows[row], group)
            model[number, group] = row
        elif step == "remove":
            index.remove(number, group)
            model.pop((number, group), None)
        elif step == "keep":
            index = LookIndex.from_bytes(index.to_bytes())
            assert len(index) == len(model)
    for row in range(20):
        same = {(a.number, a.group) for a in index.nearest(rows[row], 20)}
        assert same == {key for key, at in model.items() if at == row}


def test_removed_ones_displace_nobody() -> None:
    """Also before they are really gone, and after."""
    rows = np.repeat(looks(1), 1001, axis=0)
    index = index_of(rows)
    for number in range(1000):
        index.remove(number)
        if number % 100 == 99:
            assert index.nearest(rows[0], 1, 0)[0].number > number
    assert [a.number for a in index.nearest(rows[0], 3, 0)] == [1000]
    assert len(index) < 300
    assert [a.number for a in LookIndex.from_bytes(index.to_bytes()).nearest(rows[0], 3)] == [1000]


def test_an_empty_look_finds_nothing_and_is_refused() -> None:
    index, nothing = LookIndex(), np.zeros(0, np.uint8)
    row = looks(1)[0]
    assert index.nearest(row, 3) == index.nearest(row, 3, 0) == []
    index.add(1, row)
    assert index.nearest(nothing, 3) == index.nearest(row, 0) == []
    with pytest.raises(ValueError, match="shape"):
        index.add(1, nothing)
    assert len(index) == 1


@pytest.mark.parametrize(("number", "group"), [(-1, 0), (2**40, 0), (0, 2**23), (0, -1)])
def test_numbers_that_do_not_fit_are_refused(number: int, group: int) -> None:
    with pytest.raises(ValueError, match="below"):
        LookIndex().add(number, looks(1)[0], group)


def test_the_largest_numbers_come_back() -> None:
    index, row = LookIndex(), looks(1)[0]
    index.add(2**40 - 1, row, 2**23 - 1)
    assert [(a.number, a.group) for a in index.nearest(row, 1)] == [(2**40 - 1, 2**23 - 1)]


def test_a_number_twice_at_once_is_refused() -> None:
    with pytest.raises(ValueError, match="different"):
        LookIndex().add_all(np.array([1, 1]), looks(2), np.array([0, 0]))


def test_damage_is_noticed() -> None:
    data = index_of(looks(30)).to_bytes()
    for broken in (b"", data[:7], data[:-1], b"FGL0" + data[4:], data[:9000] + bytes([data[9000] ^ 1]) + data[9001:]):
        with pytest.raises(LooksInvalid):
            LookIndex.from_bytes(broken)


def test_searches_go_on_while_others_add_and_remove() -> None:
    rows, index = looks(400), LookIndex()
    index.add(999, rows[0], 1)
    missed: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            if index.nearest(rows[0], 1, 1)[0].number != 999:
                missed.append(1)

    asking = threading.Thread(target=ask)
    asking.start()
    for number, row in enumerate(rows):
        index.add(number, row)
        if number % 3 == 0:
            index.remove(number)
    stop.set()
    asking.join()
    assert not missed
    assert len(LookIndex.from_bytes(index.to_bytes())) == 1 + len(rows) - len(range(0, len(rows), 3))
