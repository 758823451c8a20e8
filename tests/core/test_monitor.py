"""What an operator's programs are told: figures, whether the loop turns, whether the parts answer - also when one hangs."""

from __future__ import annotations

import json
import threading
import time

import httpx2
import pytest

from core.errors import InvalidInput, Unavailable
from core.health import OK, Health, checks_of
from core.monitor import STILL, alive, monitoring
from core.services import Services
from core.settings import Settings


def test_figures_and_states_at_one_address(services: Services) -> None:
    health = Health(checks_of(services))
    with monitoring("127.0.0.1:0", health.look) as port:
        base = f"http://127.0.0.1:{port}"
        ready = httpx2.get(f"{base}/readyz")
        assert (ready.status_code, ready.json()) == (200, {"status": "ok", "parts": {"database": OK, "object store": OK, "bus": OK}})
        assert httpx2.get(f"{base}/healthz").json()["status"] == "ok"
        figures = httpx2.get(f"{base}/metrics")
        assert figures.headers["Content-Type"].startswith("text/plain")
        assert 'filigrane_part_seconds_count{call="read",part="database"}' in figures.text
        assert "process_resident_memory_bytes" in figures.text
        assert httpx2.get(f"{base}/elsewhere").status_code == 404
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{base}/healthz")


def test_a_loop_that_stands_still_is_said() -> None:
    assert alive(STILL)[0] == 200
    status, _, body = alive(STILL + 1)
    assert (status, json.loads(body)["status"]) == (503, "stuck")


def test_a_part_that_hangs_is_named_in_time_and_asked_once() -> None:
    gate, asked = threading.Event(), []

    def hangs() -> None:
        asked.append(1)
        gate.wait()

    def refuses() -> None:
        raise Unavailable("cannot reach postgresql://jo:hunter2@db/x", code="database_unavailable")

    health = Health({"bus": hangs, "database": refuses, "object store": lambda: None}, patience=0.2)
    started = time.monotonic()
    said = health.look()
    assert health.look() == said
    assert time.monotonic() - started < 10
    assert said == {
        "bus": "does not answer within 0.2 s",
        "database": "cannot reach postgresql://***@db/x [database_unavailable]",
        "object store": OK,
    }
    assert len(asked) == 1
    gate.set()
    until = time.monotonic() + 30
    while health.look()["bus"] != OK:
        assert time.monotonic() < until


def test_an_error_of_ours_is_no_answer_either() -> None:
    assert Health({"bus": lambda: 1 // 0}).look() == {"bus": "fails with ZeroDivisionError"}


def test_no_address_no_port() -> None:
    with monitoring("", dict) as port:
        assert port is None


def test_an_address_that_is_taken_names_its_setting() -> None:
    taken = pytest.raises(InvalidInput, match="FILIGRANE_METRICS_LISTEN")
    with monitoring("127.0.0.1:0", dict) as port, taken as caught, monitoring(f"127.0.0.1:{port}", dict):
        pass
    assert caught.value.code == "settings_invalid"


def test_the_address_has_a_form() -> None:
    assert Settings(metrics_listen="[::1]:9100").metrics_listen == "[::1]:9100"
    with pytest.raises(ValueError, match="metrics_listen"):
        Settings(metrics_listen="9100")
