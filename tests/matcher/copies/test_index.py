from __future__ import annotations

import numpy as np
import pytest

from matcher.copies import index as index_module
from matcher.copies.features import Fingerprint, fingerprint
from matcher.copies.index import CopyIndex
from tests.matcher.pictures import crop, jpeg, mirror, photo


def _prints(count: int) -> dict[int, Fingerprint]:
    return {seed: fingerprint(photo(seed, 400, 300)) for seed in range(100, 100 + count)}


def _index(prints: dict[int, Fingerprint]) -> CopyIndex[int]:
    index: CopyIndex[int] = CopyIndex()
    for seed, print_ in prints.items():
        index.add(seed, print_)
    return index


def test_a_copy_is_found_among_others_and_nothing_else() -> None:
    index = _index(_prints(12))
    for edit in (jpeg(photo(103, 400, 300), 50), crop(photo(103, 400, 300), 0.1, 0.1, 0.6), mirror(photo(103, 400, 300))):
        found = index.search(fingerprint(edit))
        assert [(f.id, f.verdict.name) for f in found] == [(103, "copy")]
        assert index.candidates(fingerprint(edit))[0].id == 103


def test_an_empty_index_and_an_empty_query_find_nothing() -> None:
    index: CopyIndex[str] = CopyIndex()
    flat = fingerprint(np.zeros((50, 50, 3), np.uint8))
    assert index.search(fingerprint(photo(1))) == []
    index.add("flat", flat)
    assert index.search(flat) == []
    assert len(index) == 1


def test_what_is_added_or_removed_counts_at_once() -> None:
    prints = _prints(4)
    index = _index(prints)
    query = prints[102]
    assert index.remove(102)
    assert not index.remove(102)
    assert 102 not in index
    assert index.search(query) == []
    index.add(102, query)
    index.add(102, query)
    assert len(index) == 4
    assert [f.id for f in index.search(query)] == [102]


def test_growing_into_an_inverted_file_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    prints = _prints(16)
    flat = _index(prints)
    monkeypatch.setattr(index_module, "_FLAT_LIMIT", 1000)
    inverted = CopyIndex[int]()
    inverted._limit = 1000
    for id_, print_ in prints.items():
        inverted.add(id_, print_)
    assert type(inverted._faiss).__name__ == "IndexIVFScalarQuantizer"
    for id_ in (101, 109):
        query = fingerprint(jpeg(photo(id_, 400, 300), 50))
        assert [f.id for f in inverted.search(query)] == [f.id for f in flat.search(query)] == [id_]
    assert inverted.remove(101)
    assert inverted.search(prints[101]) == []


def test_removing_and_adding_for_long_leaves_no_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_FLAT_LIMIT", 2000)
    prints = _prints(3)
    index = _index(prints)
    for _ in range(30):
        index.add(100, prints[100])
    assert index._used < 8 * sum(len(p.points) for p in prints.values())
    assert [f.id for f in index.search(prints[100])] == [100]
