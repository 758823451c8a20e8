from __future__ import annotations

import errno
import io
import os
import string
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import InvalidInput, Unavailable
from core.segments.tar import BLOCK, TRAILER, Member, TarSegment, cut, members

NAMES = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=100).filter(lambda name: not name.startswith("."))
MTIMES = st.integers(-(2**40), 2**40)
FILES = st.lists(st.tuples(NAMES, st.binary(max_size=2000), MTIMES), max_size=6)
SHARED_FIXTURE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


def write(path: Path, files: list[tuple[str, bytes, int]]) -> list[Member]:
    path.unlink(missing_ok=True)
    with TarSegment(path) as segment:
        return [Member(name, min(max(mtime, 0), 8**11 - 1), segment.add(name, data, mtime)) for name, data, mtime in files]


@SHARED_FIXTURE
@given(first=FILES, second=FILES)
def test_segments_and_the_trailer_are_an_archive(
    tmp_path: Path, first: list[tuple[str, bytes, int]], second: list[tuple[str, bytes, int]]
) -> None:
    one, two = tmp_path / "one.tar", tmp_path / "two.tar"
    told = [*write(one, first), *write(two, second)]
    archive = one.read_bytes() + two.read_bytes() + TRAILER
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        read = [(info.name, tar.extractfile(info).read(), info.mtime) for info in tar]  # type: ignore[union-attr]
    assert [(name, data) for name, data, _ in read] == [(name, data) for name, data, _ in first + second]
    assert [mtime for _, _, mtime in read] == [member.mtime for member in told]


@SHARED_FIXTURE
@given(files=FILES)
def test_pointers_lead_to_the_bytes(tmp_path: Path, files: list[tuple[str, bytes, int]]) -> None:
    path = tmp_path / "one.tar"
    told = write(path, files)
    written = path.read_bytes()
    assert [written[member.payload.offset : member.payload.end] for member in told] == [data for _, data, _ in files]
    assert list(members(io.BytesIO(written))) == told
    assert list(members(io.BytesIO(written + TRAILER))) == told


@SHARED_FIXTURE
@given(files=FILES, lost=st.integers(0, 3000), known=st.integers(0, 6))
def test_any_end_is_cut_to_whole_members(tmp_path: Path, files: list[tuple[str, bytes, int]], lost: int, known: int) -> None:
    path = tmp_path / "one.tar"
    told = write(path, files)
    whole = path.read_bytes()
    path.write_bytes(left := whole[: max(0, len(whole) - lost)])
    limit = told[known].payload.end if known < len(told) else len(whole)
    size = cut(path, limit)
    kept = [member for member in told if member.payload.end <= limit and member.payload.end + -member.payload.end % BLOCK <= len(left)]
    assert path.read_bytes() == whole[:size]
    with path.open("rb") as file:
        assert list(members(file)) == kept
    with TarSegment(path) as segment:
        segment.add("after.jpg", b"after", 1)
    with path.open("rb") as file:
        assert [member.name for member in members(file)] == [*(member.name for member in kept), "after.jpg"]


@SHARED_FIXTURE
@given(junk=st.binary(max_size=2000))
def test_junk_has_no_members(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "junk.tar"
    path.write_bytes(junk)
    assert list(members(io.BytesIO(junk))) == []
    assert cut(path, len(junk)) == 0


def test_a_file_that_is_gone_is_cut_to_nothing(tmp_path: Path) -> None:
    assert cut(tmp_path / "absent.tar", 100) == 0


def test_another_program_reads_it(tmp_path: Path) -> None:
    files = [(f"{number:064x}.jpg", os.urandom(number * 100), number) for number in range(20)]
    write(tmp_path / "one", files[:10])
    write(tmp_path / "two", files[10:])
    archive = tmp_path / "images.tar"
    archive.write_bytes((tmp_path / "one").read_bytes() + (tmp_path / "two").read_bytes() + TRAILER)
    (target := tmp_path / "out").mkdir()
    done = subprocess.run(["tar", "-xf", str(archive), "-C", str(target)], check=True, capture_output=True, text=True)
    assert done.stderr == ""
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {name: data for name, data, _ in files}


def test_a_safe_extraction_takes_every_member(tmp_path: Path) -> None:
    write(tmp_path / "one", [(f"{7:064x}.jpg", b"x", 0)])
    with tarfile.open(tmp_path / "one") as tar:
        tar.extractall(tmp_path / "out", filter="data")
    assert (tmp_path / f"out/{7:064x}.jpg").read_bytes() == b"x"


@pytest.mark.parametrize("name", ["", "/a", "../a", "a/b", ".hidden", "a\0b", "a\nb", "é.jpg", "x" * 101, "a b"])
def test_other_names_are_refused(tmp_path: Path, name: str) -> None:
    with TarSegment(tmp_path / "one.tar") as segment:
        with pytest.raises(InvalidInput):
            segment.add(name, b"", 0)
        assert segment.size == 0


def test_what_was_added_survives_a_kill(tmp_path: Path) -> None:
    """There is no buffer that a process could die with."""
    with TarSegment(tmp_path / "one.tar") as segment:
        segment.add("a.jpg", b"x", 0)
        assert (tmp_path / "one.tar").stat().st_size == segment.size == 2 * BLOCK
        segment.sync()


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "disk_full"), (errno.EIO, "disk_failed")])
def test_a_write_that_fails_in_the_middle_leaves_no_half_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    real = os.write

    def failing(descriptor: int, data: memoryview) -> int:
        if len(data) <= BLOCK:
            raise OSError(number, os.strerror(number))
        return real(descriptor, data[:BLOCK])

    with TarSegment(tmp_path / "one.tar") as segment:
        segment.add("before.jpg", b"x", 0)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", failing)
            with pytest.raises(Unavailable) as caught:
                segment.add("failed.jpg", b"y" * 2000, 0)
        assert caught.value.code == code
        assert segment.size == (tmp_path / "one.tar").stat().st_size == 2 * BLOCK
        segment.add("after.jpg", b"z", 0)
    with (tmp_path / "one.tar").open("rb") as file:
        assert [member.name for member in members(file)] == ["before.jpg", "after.jpg"]


def test_a_folder_that_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        TarSegment(tmp_path / "absent/one.tar")
