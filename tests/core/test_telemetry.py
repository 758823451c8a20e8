"""Logs: one JSON line per event, no secrets, no forged lines."""

from __future__ import annotations

import io
import json
import logging
import os
import socket
import sys
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from core import telemetry
from core.clock import ManualClock
from core.version import version


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_each_event_is_one_line_with_role_and_context(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("crawler")
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        structlog.get_logger().info("page\nfetched", url="http://a.example/\r\n\x1b[31m")
    (line,) = lines(capsys)
    assert line["event"] == "page\nfetched"
    assert (line["role"], line["request_id"], line["level"]) == ("crawler", "r1", "info")
    assert (line["pid"], line["host"], line["version"]) == (os.getpid(), socket.gethostname(), version())
    assert str(line["timestamp"]).endswith("Z")


def test_libraries_and_exceptions_come_as_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("api")
    logging.getLogger("some.library").warning("took %d tries", 3, extra={"details": "each refused"})
    try:
        raise KeyError("lost")
    except KeyError:
        structlog.get_logger().exception("failed")
    first, second = lines(capsys)
    assert (first["event"], first["role"], first["details"]) == ("took 3 tries", "api", "each refused")
    assert "KeyError: 'lost'" in str(second["exception"])


def test_control_characters_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("api")
    structlog.get_logger().info("x", agent="a\nb\x00\x1b\u2028")
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert written.rstrip("\n").isprintable()


secret_names = st.sampled_from(["token", "Authorization", "db_password", "SECRET_KEY", "set-cookie"])


@given(secret_names, st.text(min_size=8), st.lists(st.sampled_from(["mapping", "list", "tuple"]), max_size=4))
def test_what_is_named_like_a_secret_is_not_written_however_deep(name: str, value: str, nesting: list[str]) -> None:
    inner: object = {name: value}
    for kind in nesting:
        inner = {"headers": inner} if kind == "mapping" else [inner] if kind == "list" else (inner, 1)
    cleaned = telemetry.drop_secrets(None, "info", {"event": "x", "seen": inner})
    assert "***" in repr(cleaned)
    assert repr({name: value}) not in repr(cleaned)
    assert telemetry.drop_secrets(None, "info", {"event": "x", name: value}) == {"event": "x", name: "***"}


def test_counters_count() -> None:
    counter = telemetry.counter("test_things_total", "Things.", ["kind"])
    counter.labels("a").inc(2)
    assert counter.labels("a")._value.get() == 2


def test_credentials_in_urls_and_exceptions_never_reach_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("api")
    try:
        raise OSError("postgresql://jo:hunter2@db/x")
    except OSError as error:
        structlog.get_logger().exception("https://a:hunter2@host/ failed", why=error, seen=["https://a:hunter2@host/"])
    logging.getLogger("some.library").warning("at %s", "https://a:hunter2@host/", exc_info=OSError("https://a:hunter2@host/"))
    written = capsys.readouterr().err
    assert written.count("\n") == 2
    assert "hunter2" not in written
    assert "***@db/x" in written


@given(st.text())
def test_whatever_a_url_holds_the_event_is_one_line_that_gives_it_back(url: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stream = io.StringIO()
        patch.setattr(sys, "stderr", stream)
        telemetry.configure("crawler")
        structlog.get_logger().info("request", url=url, agent=f"\x1b[2J\n{url}")
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().rstrip("\n").isprintable()
    line = json.loads(stream.getvalue())
    assert line["url"] == url or "***" in line["url"]


# --- repeats


def test_a_warning_is_said_once_in_ten_seconds_and_then_how_often_it_was_not() -> None:
    clock = ManualClock()
    said = telemetry.Repeats(clock.monotonic)
    line = {"event": "job_failed", "job": "look", "code": "database_unavailable"}
    assert said(None, "warning", line | {"attempt": 1}) == line | {"attempt": 1}
    for attempt in (2, 3):
        clock.advance(3)
        with pytest.raises(structlog.DropEvent):
            said(None, "warning", line | {"attempt": attempt})
    clock.advance(4)
    assert said(None, "warning", dict(line))["repeats"] == 2


def test_what_is_about_something_else_or_no_warning_is_always_said() -> None:
    said = telemetry.Repeats(ManualClock().monotonic)
    line: dict[str, object] = {"event": "waits", "code": "store_unavailable"}
    others: list[tuple[str, dict[str, object]]] = [
        ("warning", line | {"session": 1}),
        ("warning", line | {"session": 2}),
        ("warning", line),
        ("error", line),
        ("error", line),
    ]
    others += [("warning", {"event": "waits"})] * 2
    assert [said(None, method, dict(event)) for method, event in others] == [event for _, event in others]


def test_what_was_said_is_not_remembered_for_ever() -> None:
    clock = ManualClock()
    said = telemetry.Repeats(clock.monotonic)
    for number in range(5000):
        said(None, "warning", {"event": "waits", "code": "c", "session": number})
        clock.advance(1)
    assert len(said._said) <= 1000
