"""The server process: listens, answers what is no HTTP in JSON, stops when told."""

from __future__ import annotations

import json
import socket
import threading
import time

import httpx2
import pytest

from api_shim import server
from core.errors import InvalidInput
from core.services import Services


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_serves_until_told_to_stop(services: Services) -> None:
    stop, port = threading.Event(), free_port()
    thread = threading.Thread(target=server.run, args=(services, "127.0.0.1", port, stop))
    thread.start()
    try:
        base = f"http://127.0.0.1:{port}"
        for _ in range(200):
            try:
                assert httpx2.get(f"{base}/healthz").status_code == 200
                break
            except httpx2.ConnectError:
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
            server.run(services, "127.0.0.1", port, stop)
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
