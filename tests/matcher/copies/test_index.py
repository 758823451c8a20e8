from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from matcher.copies import index as index_module
from matcher.copies import parts as parts_module
from matcher.copies import prints as prints_module
from matcher.copies import segment as segment_module
from matcher.copies.features import Fingerprint, fingerprint
from matcher.copies.index import CANDIDATES, LEAST, Candidate, CopyIndex
from matcher.copies.names import Names
from matcher.copies.prints import Prints
from matcher.copies.segment import DEAD, Segment
from matcher.copies.snapshot import SnapshotInvalid
from tests.matcher.copies.brute import BruteIndex
from tests.matcher.pictures import crop, jpeg, mirror, photo

SEEDS = range(100, 116)


@pytest.fixture(scope="module")
def prints() -> dict[int, Fingerprint]:
    return {seed: fingerprint(photo(seed, 400, 300)) for seed in SEEDS}


@pytest.fixture(scope="module")
def copies() -> list[tuple[int, Fingerprint]]:
    """Of pictures 103 and 108, some mirrored, and one of none."""
    edits = [(103, jpeg(photo(103, 400, 300), 50)), (103, crop(photo(103, 400, 300), 0.1, 0.1, 0.6)), (108, mirror(photo(108, 400, 300)))]
    return [(seed, fingerprint(rgb)) for seed, rgb in [*edits, (0, photo(1))]]


def _index(prints: dict[int, Fingerprint], group: int = 0) -> CopyIndex[int]:
    index: CopyIndex[int] = CopyIndex()
    for seed, print_ in prints.items():
        index.add(seed, print_, group)
    return index


def test_a_copy_is_found_among_others_and_nothing_else(prints: dict[int, Fingerprint], copies: list[tuple[int, Fingerprint]]) -> None:
    index = _index(prints)
    for seed, query in copies[:-1]:
        assert [(f.id, f.verdict.name) for f in index.search(query)] == [(seed, "copy")]
        assert index.candidates(query)[0].id == seed
    assert index.search(copies[-1][1]) == []


def test_candidates_are_those_of_brute_force(
    prints: dict[int, Fingerprint], copies: list[tuple[int, Fingerprint]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a segment is so small that all of it is compared."""
    monkeypatch.setattr(segment_module, "BUDGET", 4000)
    index, brute = CopyIndex[int](), BruteIndex[int]()
    for number, (seed, print_) in enumerate(prints.items()):
        index.add(seed, print_, number % 2)
        brute.add(seed, print_, number % 2)
    index.remove(110)
    brute.remove(110)
    for seed, query in [*copies, *prints.items()]:
        for group in (None, 0, 1):
            found, exact = ({c.id: c for c in given.candidates(query, group)} for given in (index, brute))
            clear = [c for c in (*found.values(), *exact.values()) if c.votes > 3 * LEAST]
            there = seed in prints and seed != 110 and group in (None, (seed - SEEDS[0]) % 2)
            assert (seed in {c.id for c in clear}) == there
            for id_ in {c.id for c in clear}:
                assert (found[id_].mirrored, found[id_].group) == (exact[id_].mirrored, exact[id_].group)
                assert found[id_].votes == pytest.approx(exact[id_].votes, rel=0.2)


def test_an_empty_index_and_an_empty_query_find_nothing() -> None:
    index: CopyIndex[str] = CopyIndex()
    flat = fingerprint(np.zeros((50, 50, 3), np.uint8))
    assert index.search(fingerprint(photo(1))) == []
    index.add("flat", flat)
    assert index.search(flat) == []
    assert len(index) == 1
    with pytest.raises(ValueError, match="group"):
        index.add("flat", flat, -1)


def test_what_is_added_replaced_or_removed_counts_at_once(prints: dict[int, Fingerprint]) -> None:
    index = _index({seed: prints[seed] for seed in (100, 101, 102)})
    query = prints[102]
    assert index.remove(102)
    assert not index.remove(102)
    assert 102 not in index
    assert index.search(query) == []
    index.add(102, query)
    index.add(101, query)
    assert len(index) == 3
    assert sorted(f.id for f in index.search(query)) == [101, 102]
    assert index.search(prints[101]) == []
    with pytest.raises(KeyError):
        index.fingerprint(99)


def test_the_limit_counts_per_group(prints: dict[int, Fingerprint]) -> None:
    """However many copies one account registers, another's picture is proposed."""
    index = _index(dict.fromkeys(range(40), prints[100]), group=1)
    index.add(99, prints[100], 2)
    everyone = index.candidates(prints[100])
    assert sum(c.group == 1 for c in everyone) == CANDIDATES
    assert [c.id for c in everyone if c.group == 2] == [99]
    assert [c.id for c in index.candidates(prints[100], 2)] == [99]
    assert index.candidates(prints[100], 3) == []
    assert [f.id for f in index.search(prints[100], group=2)] == [99]


def test_what_has_too_little_texture_is_proposed_by_its_look() -> None:
    down, across = (np.repeat(gradient[..., None], 3, axis=2) for gradient in np.mgrid[40:200, 40:200].astype(np.uint8))
    index = _index({1: fingerprint(down), 2: fingerprint(across)})
    query = fingerprint(jpeg(down, 60))
    assert not query.textured
    assert [c.id for c in index.candidates(query)] == [1]
    alike = index.similar(query, within=700)
    assert [c.id for c in alike] == [1, 2]
    assert alike[0].score > 3 > alike[1].score
    index.remove(1)
    assert index.candidates(query) == []


def test_removed_pictures_leave_no_gaps(prints: dict[int, Fingerprint]) -> None:
    index = _index({seed: prints[seed] for seed in (100, 101, 102)})
    for _ in range(300):
        index.add(100, prints[100])
    index.settle()
    assert len(index) == 3
    assert sum(len(part.ids) for part in index._parts) < 40
    assert [f.id for f in index.search(prints[100])] == [100]
    for seed in (100, 101, 102):
        index.remove(seed)
    assert len(index) == 0
    assert index.candidates(prints[100]) == []


def test_searches_go_on_while_pictures_come_and_go(prints: dict[int, Fingerprint], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is always there is found by each search, whatever is merged beside it, and what was removed is not found after."""
    monkeypatch.setattr(index_module, "_AT_ONCE", 3)
    index, failures, stop = _index({100: prints[100]}), [], threading.Event()

    def searching() -> None:
        while not stop.is_set():
            found = [c.id for c in index.candidates(prints[100])]
            if found[:1] != [100]:
                failures.append(found)

    searchers = [threading.Thread(target=searching) for _ in range(3)]
    for searcher in searchers:
        searcher.start()
    try:
        _come_and_go(index, prints)
    finally:
        stop.set()
        for searcher in searchers:
            searcher.join()
    index.settle()
    assert failures == []
    assert 100 in index
    assert sum(len(part.ids) - part.dead for part in index._parts) == len(index)
    assert [part.dead for part in index._parts] == [int((part.groups == DEAD).sum()) for part in index._parts]


def _come_and_go(index: CopyIndex[int], prints: dict[int, Fingerprint]) -> None:
    others = [seed for seed in SEEDS if seed != 100]
    for turn in range(6):
        for seed in others:
            index.add(seed, prints[seed], turn)
            assert index.candidates(prints[seed], turn)[0].id == seed
        for seed in others[turn % 2 :: 2]:
            index.remove(seed)
            assert seed not in [c.id for c in index.candidates(prints[seed])]


def test_saved_and_loaded_is_the_same(prints: dict[int, Fingerprint], tmp_path: Path) -> None:
    index = _index(prints, group=7)
    index.remove(105)
    index.save(tmp_path / "index")
    loaded: CopyIndex[int] = CopyIndex.load(tmp_path / "index")
    assert len(loaded) == len(index)
    assert {id_: p.to_bytes() for id_, p in loaded.items()} == {id_: p.to_bytes() for id_, p in index.items()}
    for query in prints.values():
        assert loaded.candidates(query, 7) == index.candidates(query, 7)
    loaded.add(105, prints[105])
    loaded.remove(100)
    loaded.save(tmp_path / "index")
    again: CopyIndex[int] = CopyIndex.load(tmp_path / "index", verify=False)
    assert sorted(id_ for id_, _ in again.items()) == [*range(101, 116)]
    assert [c.id for c in again.candidates(prints[105])] == [105]
    assert again.nbytes > 0


def test_a_damaged_cut_or_other_file_is_refused(prints: dict[int, Fingerprint], tmp_path: Path) -> None:
    path = tmp_path / "index"
    _index({seed: prints[seed] for seed in (100, 101)}).save(path)
    whole = path.read_bytes()
    places = [*range(24), *np.random.default_rng(0).integers(64, len(whole), 100)]
    damaged = [whole[:at] + bytes([whole[at] ^ 8]) + whole[at + 1 :] for at in places]
    padding = 0
    for data in [b"", whole[:40], whole[:-1], whole + b"\0", *damaged]:
        path.write_bytes(data)
        try:
            CopyIndex.load(path)
            padding += 1
        except SnapshotInvalid:
            continue
    assert padding <= 3, "only bytes between the pieces may change unnoticed"
    with pytest.raises(FileNotFoundError):
        CopyIndex.load(tmp_path / "none")


def test_the_file_of_fingerprints_is_written_anew_when_most_of_it_was_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prints_module, "_REWRITTEN", 100)
    kept = Prints()
    stamps = [kept.append(bytes([number]) * 50) for number in range(20)]
    for stamp in stamps[:15]:
        kept.remove(stamp)
    before = kept.wasteful
    kept.rewrite()
    assert (before, kept.wasteful) == (True, False)
    assert [kept.read(stamp) for stamp in stamps[15:]] == [bytes([number]) * 50 for number in range(15, 20)]
    assert kept.append(b"x") > stamps[-1]
    for stamp in (*stamps[:15], 99):
        with pytest.raises(KeyError):
            kept.read(stamp)


class Changes(RuleBasedStateMachine):
    """Adds, replacements, removals, snapshots in any order, against a dict."""

    names = Bundle("names")
    prints: Sequence[Fingerprint] = ()

    @initialize()
    def begin(self) -> None:
        type(self).prints = type(self).prints or [fingerprint(photo(seed, 240, 180)) for seed in range(400, 405)]
        self.index: CopyIndex[str] = CopyIndex()
        self.model: dict[str, tuple[int, int]] = {}

    @rule(target=names, name=st.sampled_from("abcdefgh"))
    def name(self, name: str) -> str:
        return name

    @rule(name=names, number=st.integers(0, 4), group=st.integers(0, 2), times=st.integers(1, 20))
    def add(self, name: str, number: int, group: int, times: int) -> None:
        for _ in range(times):
            self.index.add(name, self.prints[number], group)
        self.model[name] = number, group

    @rule(name=names)
    def remove(self, name: str) -> None:
        assert self.index.remove(name) == (self.model.pop(name, None) is not None)

    @rule()
    def save_and_load(self) -> None:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            self.index.save(Path(folder, "index"))
            self.index = CopyIndex.load(Path(folder, "index"))

    @rule(number=st.integers(0, 4), group=st.sampled_from([None, 0, 1, 2]))
    def search(self, number: int, group: int | None) -> None:
        expected = {n for n, (p, g) in self.model.items() if p == number and group in (None, g)}
        found: list[Candidate[Any]] = self.index.candidates(self.prints[number], group)
        assert {c.id for c in found if c.votes > 100} == expected

    @invariant()
    def counts(self) -> None:
        assert len(self.index) == len(self.model)
        assert all(name in self.index for name in self.model)


Changes.TestCase.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)
test_changes_in_any_order = Changes.TestCase


def test_parts_of_alike_size_are_merged() -> None:
    sizes = [1000, 500, 1]
    parts = [parts_module.Part(Segment.build([]), Names(range(n)), np.arange(n), np.zeros(n, np.uint32)) for n in sizes]
    assert parts_module.due(parts) == (parts[0], parts[1])
    assert parts_module.due(parts[1:]) is None
    for place in range(150):
        parts[1].bury(place)
    alone = parts_module.due(parts[1:])
    assert alone is not None
    assert alone[0] is parts[1]
    assert len(alone[1].ids) == 0
