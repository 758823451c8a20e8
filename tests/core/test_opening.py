"""A start while a part is away: told at once, tried again until it answers, given up in time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from core.errors import Corrupt, InvalidInput
from core.opening import Opening
from core.settings import Settings


def break_bus(data: Path) -> Path:
    data.mkdir(exist_ok=True)
    (data / "bus.sqlite").write_bytes(b"no database" * 100)
    return data / "bus.sqlite"


def opening(data: Path) -> tuple[Opening, threading.Event]:
    stop = threading.Event()
    started = Opening(Settings(data=data), stop)
    started.start()
    return started, stop


def test_it_opens_as_soon_as_the_part_is_back(tmp_path: Path) -> None:
    broken = break_bus(tmp_path)
    started, stop = opening(tmp_path)
    with pytest.raises(Corrupt, match="bus"):
        started.wait(0.5)
    assert list(started.parts()) == ["services"]
    assert "bus" in started.parts()["services"]
    broken.unlink()
    services = started.wait(30)
    assert services is not None
    with services:
        assert set(started.parts().values()) == {"ok"}
    stop.set()


def test_who_is_to_stop_waits_no_longer(tmp_path: Path) -> None:
    break_bus(tmp_path)
    started, stop = opening(tmp_path)
    stop.set()
    assert started.wait(30) is None


def test_a_wrong_setting_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    started, stop = opening(tmp_path / "file" / "data")
    with pytest.raises(InvalidInput, match="FILIGRANE_DATA"):
        started.wait(30)
    stop.set()
