"""The journal: what was written is read again, and a torn tail costs only itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import Corrupt
from crawler.journal import Entry, Image, Journal, Page, Piece, Pointer, Record, Skip, counted, decode_piece, encode_piece

urls = st.text(min_size=1, max_size=40)
pointers = st.none() | st.builds(Pointer, st.integers(0, 5), st.integers(0, 10**9), st.integers(0, 10**6))
pages = st.builds(
    Page, urls, urls, st.integers(0, 20), st.sampled_from(["fetched", "failed"]), st.floats(0, 2e9), st.floats(0, 1e5),
    links=st.lists(urls, max_size=3).map(tuple), images=st.lists(st.tuples(urls, urls), max_size=3).map(tuple), warc=pointers,
)  # fmt: skip
images = st.builds(
    Image, urls, urls, st.just("fetched"), st.floats(0, 2e9), st.floats(0, 1e5), tar=pointers, width=st.none() | st.integers(1, 9)
)
records: st.SearchStrategy[Record] = st.one_of(pages, images, st.builds(Skip, urls, urls, urls, st.booleans()))


@given(st.integers(0, 10**9), st.lists(records, max_size=5))
def test_a_piece_is_read_as_it_was_written(first: int, found: list[Record]) -> None:
    piece = Piece(first, tuple(found))
    assert decode_piece(encode_piece(piece)) == piece


@given(st.binary(max_size=200))
def test_bytes_that_are_no_piece_are_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt):
        decode_piece(data)


@settings(max_examples=25)
@given(found=st.lists(records, min_size=1, max_size=6), cut=st.integers(0, 400))
def test_a_torn_journal_gives_its_whole_entries(tmp_path_factory: pytest.TempPathFactory, found: list[Record], cut: int) -> None:
    folder = tmp_path_factory.mktemp("journal")
    journal = Journal(folder)
    for number, record in enumerate(found):
        journal.append(Entry(1, 2, 3, number, record))
    size = journal._file.tell()
    journal.close()
    path = folder / "journal.1"
    with path.open("r+b") as stream:
        stream.truncate(max(0, size - cut))
    second = Journal(folder)
    second.close()
    left = second.left.get((1, 2), [])
    assert [entry.record for entry in left] == found[: len(left)]
    assert cut or len(left) == len(found)


def test_files_go_when_everything_in_them_is_covered(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    first.append(Entry(1, 1, 1, 0, Skip("a", "", "x")))
    first.append(Entry(2, 1, 1, 0, Skip("b", "", "x")))
    first.close()
    second = Journal(tmp_path)
    assert set(second.left) == {(1, 1), (2, 1)}
    second.cover(1, 1, 0)
    assert (tmp_path / "journal.1").exists()
    second.cover(2, 1)
    assert not (tmp_path / "journal.1").exists()
    assert (tmp_path / "journal.2").exists()
    second.close()


def test_a_record_counts_once_its_segments_are_stored() -> None:
    page = Page("p", "", 0, "fetched", 0.0, 0.0, warc=Pointer(1, 0, 10))
    image = Image("i", "p", "fetched", 0.0, 0.0, tar=Pointer(0, 0, 10))
    skip = Skip("s", "p", "robots")
    assert list(counted([page, image, skip], [("tar", 0), ("warc", 0)])) == [image, skip]
    assert list(counted([page, image, skip], [("tar", 0), ("warc", 1)])) == [page, image, skip]
