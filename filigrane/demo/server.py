"""Serves a plan on loopback: every host on a port of its own, HTTP/1.1 with keep-alive and conditional requests, each request noted."""

from __future__ import annotations

import hashlib
import json
import mimetypes
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Final
from urllib.parse import unquote

from filigrane.demo.plan import Place, Plan

_TYPES: Final = {
    ".webp": "image/webp",
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}
_WITH_LINKS: Final = frozenset({".html", ".css", ".txt"})
_NOT_FOUND: Final = b"<!doctype html><title>Not here</title><p>Nothing is here. <a href='/'>To the front page</a>"


@dataclass(frozen=True)
class Request:
    host: str
    path: str
    status: int
    at: float
    """Monotonic seconds, when the request's headers had been read."""
    user_agent: str


class Served:
    """A plan that answers: addresses, and what was asked for."""

    def __init__(self, plan: Plan, urls: Mapping[str, str], log: IO[str] | None) -> None:
        self.plan = plan
        self.urls = dict(urls)
        """Host of the plan -> base URL without a slash at the end."""
        self._log = log
        self._lock = threading.Lock()
        self._requests: list[Request] = []

    def url(self, place: Place) -> str:
        return self.urls[place.site] + place.path

    def place(self, url: str) -> Place | None:
        """Where an address is in the plan; None outside of it."""
        for host, base in self.urls.items():
            if url == base or url.startswith(base + "/"):
                return Place(host, url[len(base) :] or "/")
        return None

    @property
    def requests(self) -> list[Request]:
        """What was asked for until now, in order of arrival."""
        with self._lock:
            return sorted(self._requests, key=lambda request: request.at)

    def note(self, request: Request) -> None:
        with self._lock:
            self._requests.append(request)
            if self._log is not None:
                self._log.write(json.dumps(asdict(request)) + "\n")
                self._log.flush()


@contextmanager
def serve(plan: Plan, log: Path | None = None) -> Iterator[Served]:
    """Serves the plan from threads until the block ends; `log` gets one JSON line per request.

    Raises:
        OSError: no free port on 127.0.0.1.
    """
    with ExitStack() as stack:
        servers = {host: stack.enter_context(_Server(host, plan.folder / host)) for host in plan.hosts}
        urls = {host: f"http://127.0.0.1:{server.server_port}" for host, server in servers.items()}
        served = Served(plan, urls, stack.enter_context(log.open("a")) if log else None)
        for server in servers.values():
            server.served = served
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
        yield served


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client may keep its connection open
    served: Served

    def __init__(self, host: str, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.host = host
        self.files = {_path_of(file, folder): file for file in folder.rglob("*") if file.is_file()}
        """All that there is, by its path: nothing else can be reached."""

    def server_bind(self) -> None:
        super().server_bind()
        self.server_name = "127.0.0.1"  # the base class asks the resolver

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):  # a client that went away is no news
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def _path_of(file: Path, folder: Path) -> str:
    return "/" + file.relative_to(folder).as_posix().removesuffix("index.html")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave in one piece
    server: _Server

    def do_GET(self) -> None:
        self._answer(time.monotonic())

    do_HEAD = do_GET

    def _answer(self, at: float) -> None:
        path = self.path.partition("?")[0]
        plan = self.server.served.plan
        target = plan.redirects.get(Place(self.server.host, path))
        if target is not None:
            status = self._send(HTTPStatus.FOUND, b"", {"Location": self.server.served.url(target)})
        elif (file := self.server.files.get(unquote(path))) is not None:
            status = self._send_file(file)
        else:
            status = self._send(HTTPStatus.NOT_FOUND, _NOT_FOUND, {"Content-Type": _TYPES[".html"]})
        self.server.served.note(Request(self.server.host, path, status, at, self.headers.get("User-Agent", "")))

    def _send_file(self, file: Path) -> int:
        body = file.read_bytes()
        if file.suffix in _WITH_LINKS:
            body = self._with_addresses(body)
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        known = {"ETag": etag, "Last-Modified": self.date_time_string(int(file.stat().st_mtime))}
        if self.headers.get("If-None-Match") == etag:
            return self._send(HTTPStatus.NOT_MODIFIED, b"", known)
        kind = _TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        return self._send(HTTPStatus.OK, body, {"Content-Type": kind, **known})

    def _with_addresses(self, body: bytes) -> bytes:
        """Files name hosts as `demo://host`; ports are only known now."""
        for host, base in self.server.served.urls.items():
            body = body.replace(f"demo://{host}".encode(), base.encode())
        return body

    def _send(self, status: HTTPStatus, body: bytes, headers: Mapping[str, str]) -> int:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()
        return int(status)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are noted, not printed."""
