"""`filigrane dead`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.bus import Message, dead_letter
from core.repo import crawls, healing
from core.services import Services
from core.settings import Settings
from filigrane.cli import main
from filigrane.doctor import examine
from tests.core.crawled import NOW, add_account, add_session, begin, hold, store


def _says(capsys: pytest.CaptureFixture[str], data: Path, *arguments: str) -> Any:
    assert main(["dead", *arguments, "--data", str(data)]) == 0
    return json.loads(capsys.readouterr().out)


def test_dead_letters_are_listed_and_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Services.open(Settings(data=tmp_path)) as services:
        for topic, code in (("images", "invalid_image"), ("images", "internal"), ("searches", "internal")):
            letter = dead_letter(Message(topic, 3, 7, "k", b"\xff poison", {"request_id": f"r {code}"}), code, "why")
            services.bus.publish([letter])
        found = _says(capsys, tmp_path, "list")
        assert sorted((one["topic"], one["code"]) for one in found) == [
            ("images", "internal"),
            ("images", "invalid_image"),
            ("searches", "internal"),
        ]
        assert _says(capsys, tmp_path, "list", "--topic", "images", "--code", "internal") == [
            {
                "topic": "images",
                "code": "internal",
                "reason": "why",
                "source": "images/3/7",
                "request_id": "r internal",
                "key": "k",
                "bytes": 8,
                "message": "\ufffd poison",
            }
        ]
        assert [one["topic"] for one in _says(capsys, tmp_path, "replay", "--topic", "searches")] == ["searches"]
        assert len(_says(capsys, tmp_path, "replay", "--code", "internal")) == 1
        assert services.bus.lag("images", "g") == services.bus.lag("searches", "g") == 1
        assert [one["code"] for one in _says(capsys, tmp_path, "list")] == ["invalid_image"]


def test_only_topics_with_dead_letters_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["dead", "list", "--topic", "media"])
    assert ended.value.code == 2
    assert "media" in capsys.readouterr().err


def test_pieces_that_were_given_up_lie_there_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Services.open(Settings(data=tmp_path)) as services:
        held = hold(services)
        session = begin(services, held, add_session(services, add_account(services)).id)
        row = store(services, held, session, [("journal", 0)])[0]
        with services.database.write() as tx:
            for _ in range(healing.TRIES):
                healing.failed(tx, row.id, "why", NOW)
        expected = {
            "topic": "images",
            "code": "piece_unreadable",
            "reason": "why",
            "source": row.key,
            "request_id": None,
            "key": "session 1, cycle 1, piece 0",
            "bytes": 5,
            "message": None,
        }
        assert _says(capsys, tmp_path, "list") == [expected]
        said = [finding.said for finding in examine(services.settings) if finding.state == "warning"]
        assert "1 pieces were given up: their messages could not be built" in said
        assert _says(capsys, tmp_path, "list", "--topic", "searches") == []
        assert _says(capsys, tmp_path, "replay", "--code", "internal") == []
        assert _says(capsys, tmp_path, "replay", "--code", "piece_unreadable") == [expected]
        assert _says(capsys, tmp_path, "list") == []
        with services.database.read() as tx:
            assert [each.id for each in crawls.unsent(tx, services.clock.now(), 10)] == [row.id]
