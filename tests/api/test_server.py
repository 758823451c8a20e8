"""The server process: listens, answers what is no HTTP in JSON, stops when told."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from api_shim import server
from core.errors import InvalidInput
from core.opening import Opening
from core.settings import Settings


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_serves_until_told_to_stop(tmp_path: Path) -> None:
    stop, port = threading.Event(), free_port()
    opening = Opening(Settings(data=tmp_path / "data"), stop)
    opening.start()
    thread = threading.Thread(target=server.run, args=(opening, "127.0.0.1", port, stop))
    thread.start()
    try:
        base = f"http://127.0.0.1:{port}"
        for _ in range(200):
            with suppress(httpx2.ConnectError):
                if httpx2.get(f"{base}/healthz").status_code == 200:
                    break
            time.sleep(0.05)
        assert httpx2.get(f"{base}/api/v1/account/").status_code == 401
        assert httpx2.get(f"{base}/api/v1/media/a%2Fb", headers={"Authorization": "Token x"}).status_code == 401
        assert httpx2.head(f"{base}/healthz").content == b""
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(b"this is no HTTP\r\n\r\n")
            head, _, body = raw.makefile("rb").read().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400")
        assert json.loads(body)["status_code"] == 400
        with pytest.raises(InvalidInput):
            server.run(opening, "127.0.0.1", port, stop)
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()


def test_it_listens_at_once_and_says_what_it_waits_for(tmp_path: Path) -> None:
    broken = tmp_path / "bus.sqlite"
    broken.write_bytes(b"no database" * 100)
    stop, port = threading.Event(), free_port()
    opening = Opening(Settings(data=tmp_path), stop)
    opening.start()
    thread = threading.Thread(target=server.run, args=(opening, "127.0.0.1", port, stop))
    thread.start()
    try:
        base = f"http://127.0.0.1:{port}"
        health = wait_for(f"{base}/healthz", lambda answer: "bus" in answer.text)
        account = httpx2.get(f"{base}/api/v1/account/", headers={"Authorization": "Token x"})
        for answer in (health, account):
            assert (answer.status_code, answer.json()["code"]) == (503, "starting")
            assert int(answer.headers["Retry-After"]) > 0
            assert answer.headers["X-Request-Id"]
        broken.unlink()
        wait_for(f"{base}/healthz", lambda answer: answer.status_code == 200)
        assert httpx2.get(f"{base}/api/v1/account/").status_code == 401
        for name in ("bus.sqlite", "filigrane.sqlite"):
            for path in tmp_path.glob(f"{name}*"):
                path.write_bytes(b"no database" * 100)
        away = wait_for(f"{base}/healthz", lambda answer: answer.status_code == 503)
        assert away.json()["code"] == "unhealthy"
        assert {"the bus", "the database"} & {part.strip().partition(":")[0] for part in away.json()["details"].split(";")}
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()


def wait_for(url: str, condition: Callable[[httpx2.Response], bool]) -> httpx2.Response:
    until = time.monotonic() + 30
    while True:
        with suppress(httpx2.ConnectError):
            if condition(answer := httpx2.get(url)):
                return answer
        assert time.monotonic() < until, "it never answers so"
        time.sleep(0.05)
