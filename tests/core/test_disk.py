from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.disk import private_folder, sync_folder, write_all


def test_all_is_written_however_little_the_system_takes_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    with (tmp_path / "file").open("wb", buffering=0) as file, monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
        assert write_all(file.fileno(), b"0123456789") == 10
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_a_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    sync_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "absent")


def test_a_private_folder_is_for_its_user_alone_and_one_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    private_folder(tmp_path / "new" / "data")
    assert (tmp_path / "new" / "data").stat().st_mode & 0o777 == 0o700
    there = tmp_path / "there"
    there.mkdir()
    there.chmod(0o750)
    private_folder(there)
    assert there.stat().st_mode & 0o777 == 0o750
