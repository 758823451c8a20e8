from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matcher.copies import segment as segment_module
from matcher.copies.features import Fingerprint, fingerprint
from matcher.copies.segment import DEAD, EVERY, Query, Segment, fineness, merge
from matcher.copies.segment_file import SegmentInvalid, from_bytes, opened, to_bytes
from matcher.copies.votes import Votes
from tests.matcher.pictures import crop, jpeg, mirror, photo

SEEDS = range(300, 340)


@pytest.fixture(scope="module")
def prints() -> list[Fingerprint]:
    return [fingerprint(photo(seed, 400, 300)) for seed in SEEDS]


@pytest.fixture(scope="module")
def queries() -> list[Query]:
    found = [jpeg(photo(305, 400, 300), 40), mirror(crop(photo(311, 400, 300), 0.2, 0.1, 0.7)), photo(900, 400, 300)]
    return [Query.of(fingerprint(rgb)) for rgb in found]


def same(left: Segment, right: Segment) -> bool:
    arrays = ("codes", "places", "offsets")
    return left.pictures == right.pictures and all((getattr(left, a) == getattr(right, a)).all() for a in arrays)


def both(work: Callable[[], npt.NDArray[np.void]]) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void]]:
    with pytest.MonkeyPatch.context() as patch:
        native = work()
        patch.setenv("FILIGRANE_PURE", "1")
        return native, work()


def rows(votes: Votes) -> npt.NDArray[np.void]:
    found = np.zeros(len(votes.pictures), [("picture", "u4"), ("votes", "f8"), ("support", "u2"), ("flipped", "?")])
    found["picture"], found["votes"], found["support"], found["flipped"] = votes.pictures, votes.votes, votes.support, votes.flipped
    return found


@pytest.mark.parametrize("group", [EVERY, 1])
def test_the_native_form_and_numpys_are_equal(prints: list[Fingerprint], queries: list[Query], group: int) -> None:
    index, groups = Segment.build(prints), np.arange(len(prints), dtype=np.uint32) % 3
    assert index.bits > 0
    groups[7] = DEAD
    for query in queries:
        native, pure = both(lambda query=query: index.hits(query, groups, group, 13))  # type: ignore[misc]
        np.testing.assert_array_equal(native, pure)
        native, pure = both(lambda query=query: rows(index.vote(query, groups=groups, group=group, among=13, least=-20.0)))  # type: ignore[misc]
        np.testing.assert_array_equal(native, pure)


def test_a_copy_and_its_mirror_are_told_from_what_was_never_there(prints: list[Fingerprint], queries: list[Query]) -> None:
    index = Segment.build(prints)
    plain, flipped, nothing = (index.vote(query) for query in queries)
    assert SEEDS[plain.pictures[plain.votes.argmax()]] == 305
    assert SEEDS[flipped.pictures[flipped.votes.argmax()]] == 311
    assert [v.flipped[v.votes.argmax()] for v in (plain, flipped)] == [False, True]
    assert max(plain.votes.max(), flipped.votes.max()) > 50
    assert nothing.votes.max(initial=0) < 8


def test_only_the_group_that_is_asked_for_is_looked_at(prints: list[Fingerprint], queries: list[Query]) -> None:
    index, groups = Segment.build(prints), np.zeros(len(prints), np.uint32)
    groups[5] = 9
    assert index.vote(queries[0], groups=groups, group=9, among=1).pictures.tolist() == [5]
    assert 5 not in index.vote(queries[0], groups=groups, group=0, among=39).pictures
    groups[5] = DEAD
    assert 5 not in index.vote(queries[0], groups=groups).pictures


def test_another_groups_pictures_change_nothing_in_a_small_index(prints: list[Fingerprint], queries: list[Query]) -> None:
    """Up to a budget every entry is compared; then what others have there does not matter at all."""
    alone, flood = Segment.build(prints[5:6]), Segment.build([prints[5]] * 5)
    groups = np.ones(5, np.uint32)
    groups[0] = 0
    among = flood.vote(queries[0], groups=groups, group=0, among=1)
    assert among.pictures.tolist() == [0]
    assert among.votes[0] == pytest.approx(alone.vote(queries[0]).votes[0], rel=0.05)


@settings(max_examples=15, deadline=None)
@given(cut=st.integers(0, 40), dropped=st.sets(st.integers(0, 39)))
def test_merged_is_what_is_built_at_once(prints: list[Fingerprint], cut: int, dropped: set[int]) -> None:
    parts = Segment.build(prints[:cut]), Segment.build(prints[cut:])
    kept = [number for number in range(40) if number not in dropped]
    numbers = np.full(40, DEAD, np.uint32)
    numbers[kept] = np.arange(len(kept))
    native, pure = both(lambda: np.frombuffer(to_bytes(merge(*parts, (numbers[:cut].copy(), numbers[cut:].copy()))), "V1"))
    assert native.tobytes() == pure.tobytes()
    assert same(from_bytes(native.tobytes()), Segment.build([prints[number] for number in kept]))


def test_nothing_in_nothing(queries: list[Query]) -> None:
    empty, flat = Segment.build([]), Segment.build([fingerprint(np.zeros((50, 50, 3), np.uint8))])
    for index in (empty, flat, from_bytes(to_bytes(flat)), merge(empty, flat, (np.zeros(0, np.uint32), np.zeros(1, np.uint32)))):
        assert not len(index)
        assert not len(index.vote(queries[0]).pictures)
    assert not len(Segment.build([fingerprint(photo(1))]).vote(Query.of(fingerprint(np.zeros((50, 50, 3), np.uint8)))).pictures)


def test_cells_become_finer_with_the_file() -> None:
    assert fineness(segment_module.BUDGET) == 0
    sizes = [fineness(112 * 10**power) for power in range(2, 8)]
    assert sizes == sorted(sizes)
    assert sizes[0] > 0
    assert sizes[-1] <= 26


def test_a_file_is_mapped_and_gives_the_same_votes(prints: list[Fingerprint], queries: list[Query], tmp_path: Path) -> None:
    index = Segment.build(prints)
    path = tmp_path / "a.segment"
    path.write_bytes(to_bytes(index))
    assert same(opened(path), index)
    np.testing.assert_array_equal(rows(opened(path, verify=False).vote(queries[0])), rows(index.vote(queries[0])))


def test_what_is_cut_damaged_or_of_another_kind_is_refused(prints: list[Fingerprint], tmp_path: Path) -> None:
    whole = to_bytes(Segment.build(prints[:3]))
    for damaged in (b"", whole[:50], whole[:-1], whole + b"\0", b"FGS9" + whole[4:]):
        with pytest.raises(SegmentInvalid):
            from_bytes(damaged)
    for at in (*range(32), *np.random.default_rng(0).integers(64, len(whole), 60)):
        with pytest.raises(SegmentInvalid):
            from_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
    (tmp_path / "empty").touch()
    with pytest.raises(SegmentInvalid):
        opened(tmp_path / "empty")
