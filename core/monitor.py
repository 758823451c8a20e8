"""What an operator's programs ask a role: /metrics, /healthz (its loop turns), /readyz (its parts answer). Never on the API's port."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import msgspec
import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from core.errors import InvalidInput
from core.health import OK
from core.telemetry import gauge

STILL: Final = 60.0
"""Seconds after which a loop that has not turned counts as stuck."""
PATHS: Final = ("/metrics", "/healthz", "/readyz")

Parts = Callable[[], dict[str, str]]
Answer = tuple[int, str, bytes]
log = structlog.get_logger()


class Pulse:
    """When each loop of the role turned last, in monotonic time. A loop counts from its first turn on."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def beat(self, loop: str = "main") -> None:
        self._last[loop] = time.monotonic()

    def end(self, loop: str = "main") -> None:
        """The loop is over, as it should be."""
        self._last.pop(loop, None)

    def clear(self) -> None:
        """No loop has turned yet."""
        self._last.clear()

    def age(self) -> float:
        """Seconds since the one turned that has waited longest."""
        return time.monotonic() - min(list(self._last.values()), default=time.monotonic())


_pulse: Final = Pulse()
beat: Final = _pulse.beat
"""Says that a loop of this process's role has turned."""
end: Final = _pulse.end
gauge("filigrane_loop_age_seconds", "Seconds since the role's loop turned last; above 60 it counts as stuck.").set_function(_pulse.age)


def alive(age: float) -> Answer:
    """/healthz: 200 while the loop turns."""
    status = 200 if age <= STILL else 503
    return _json(status, {"status": "ok" if status == 200 else "stuck", "seconds": round(age, 1)})


def ready(parts: dict[str, str]) -> Answer:
    """/readyz: 200 when every part answers, else 503 that names those that do not."""
    status = 200 if all(said == OK for said in parts.values()) else 503
    return _json(status, {"status": "ok" if status == 200 else "unavailable", "parts": parts})


def _json(status: int, value: object) -> Answer:
    return status, "application/json", msgspec.json.encode(value)


@contextmanager
def monitoring(listen: str, parts: Parts) -> Iterator[int | None]:
    """Answers at `host:port` for as long as the context lasts; gives the port. An empty address: nowhere, None.

    Raises:
        InvalidInput: the address cannot be listened on.
    """
    if not listen:
        yield None
        return
    _pulse.clear()
    with _server(listen, parts) as server:
        port = int(server.server_address[1])
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, name="monitor", daemon=True).start()
        log.info("monitor.listening", address=listen, port=port)
        try:
            yield port
        finally:
            server.shutdown()


def _server(listen: str, parts: Parts) -> ThreadingHTTPServer:
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    kind = _Server6 if ":" in host else _Server
    try:
        return kind((host, int(port)), type("Handler", (_Handler,), {"parts": staticmethod(parts)}))
    except (OSError, OverflowError) as error:
        raise InvalidInput(f"FILIGRANE_METRICS_LISTEN: cannot listen on {listen}: {error}", code="settings_invalid") from error


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    parts: Parts
    timeout = 10.0
    server_version = "filigrane"
    sys_version = ""

    def do_GET(self) -> None:
        status, kind, body = self._answer(self.path.partition("?")[0])
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, path: str) -> Answer:
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest()
        if path == "/healthz":
            return alive(_pulse.age())
        if path == "/readyz":
            return ready(self.parts())
        return _json(404, {"status": "there is nothing at this address"})

    def log_message(self, format: str, *args: object) -> None:
        """Who asks is no news."""
