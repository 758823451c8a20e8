"""Services: everything from outside, opened once, closed at the end; clocks."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from core.bus import Outgoing
from core.clock import ManualClock, SystemClock
from core.database import Database
from core.errors import InvalidInput, Unavailable
from core.services import Services
from core.settings import Settings


def test_all_parts_work_in_a_new_folder_with_any_name(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "50% of ?#ü" / "data")
    with Services.open(settings) as services:
        services.store.put("crawl/1", b"bytes")
        services.bus.publish([Outgoing("images", "key", b"value")])
        with services.database.read() as tx:
            assert tx.scalar(text("SELECT count(*) FROM sessions")) == 0
    with Services.open(settings) as again:
        assert again.store.get("crawl/1") == b"bytes"
        assert again.bus.lag("images", "matchers") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["50% of ?#ü"]


def test_each_part_may_be_elsewhere(tmp_path: Path) -> None:
    settings = Settings(
        data=tmp_path / "data", store_url=f"file://{tmp_path}/store%20here", database_url=f"sqlite:///{tmp_path}/elsewhere.sqlite"
    )
    with Services.open(settings) as services:
        services.store.put("crawl/1", b"bytes")
    assert (tmp_path / "store here").is_dir()
    assert (tmp_path / "elsewhere.sqlite").is_file()


def test_a_data_folder_that_cannot_be_made_names_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="FILIGRANE_DATA"):
        Services.open(Settings(data=tmp_path / "file" / "data"))


def test_what_was_opened_before_a_part_failed_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(Database, "close", lambda self: closed.append(str(self.url)))
    (tmp_path / "bus.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(Unavailable):
        Services.open(Settings(data=tmp_path))
    assert len(closed) == 1


def test_the_manual_clock_moves_when_told_to() -> None:
    clock = ManualClock()
    before, ticks = clock.now(), clock.monotonic()
    clock.advance(90)
    assert (clock.now() - before, clock.monotonic() - ticks) == (timedelta(seconds=90), 90)


def test_the_system_clock_is_in_utc() -> None:
    clock = SystemClock()
    assert clock.now().utcoffset() == timedelta(0)
    assert clock.monotonic() <= clock.monotonic()
