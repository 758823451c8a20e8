"""Results are made once, and come back the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.watermark.keeping import kept, version


def test_made_once(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> dict[str, list[int]]:
        made.append(1)
        return {"made": made}

    assert [kept(tmp_path / "a" / "b.json", make) for _ in range(2)] == [{"made": [1]}] * 2
    assert made == [1]


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        kept(tmp_path / "b.json", lambda: 1 / 0)
    assert kept(tmp_path / "b.json", lambda: 2) == 2


def test_the_version_changes_with_the_code(tmp_path: Path) -> None:
    code = tmp_path / "code.py"
    code.write_text("a = 1")
    before = version([code])
    assert version([code]) == before
    assert version([code], "other") != before
    code.write_text("a = 2")
    assert version([code]) != before
