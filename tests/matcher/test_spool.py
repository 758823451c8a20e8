from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matcher.spool import Spool


def _never() -> bytes:
    raise AssertionError("it was fetched")


def test_what_was_fetched_lies_here_until_it_is_forgotten(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    assert spool.get("a", lambda: b"one") == b"one"
    assert spool.get("a", _never) == b"one"
    spool.forget("a")
    assert spool.get("a", lambda: b"two") == b"two"
    assert list(tmp_path.iterdir()) == [], "the file has no name: it goes with the process"


def test_what_cannot_be_fetched_is_raised_and_nothing_lies_here(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    with pytest.raises(AssertionError):
        spool.get("a", _never)
    assert spool.get("a", lambda: b"one") == b"one"


def test_what_is_larger_than_the_spool_is_passed_on(tmp_path: Path) -> None:
    spool = Spool(tmp_path, size=4)
    assert spool.get("a", lambda: b"12345") == b"12345"
    assert spool.get("a", lambda: b"1") == b"1"


def test_nothing_is_not_kept(tmp_path: Path) -> None:
    """It would lie in the file without a place, and what comes after it would never be dropped."""
    spool = Spool(tmp_path, size=100)
    assert spool.get("nothing", lambda: b"") == b""
    for name in "abcd":
        spool.get(name, lambda name=name: name.encode() * 40)  # type: ignore[misc]
    assert spool.get("a", lambda: b"again") == b"again"
    assert spool.get("d", _never) == b"d" * 40


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 40)), max_size=60))
def test_it_never_gives_other_bytes_and_has_what_was_put_last(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[int, int]]
) -> None:
    spool, versions = Spool(tmp_path_factory.mktemp("spool"), size=100), dict[int, bytes]()
    for name, length in asked:
        data = bytes([name]) * length
        if versions.get(name, data) != data:
            spool.forget(str(name))
        versions[name] = data
        assert spool.get(str(name), lambda data=data: data) == data  # type: ignore[misc]
        assert spool.get(str(name), _never) == data
