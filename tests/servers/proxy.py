"""An HTTP proxy in front of a server, which does to calls and answers what a test tells it to."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back to the client."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    cut: int | None = None
    """After so many bytes of the body the connection ends."""
    reset: bool = False
    """Whether it ends by a reset, which may take with it what is under way."""

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")

    def with_header(self, name: str, value: str) -> Answer:
        kept = tuple(pair for pair in self.headers if pair[0].lower() != name.lower())
        return replace(self, headers=(*kept, (name, value)))


@dataclass
class Call:
    """What a client asks for. Its body is read when somebody looks at it."""

    handler: BaseHTTPRequestHandler
    upstream: int
    method: str = field(init=False)
    target: str = field(init=False)

    def __post_init__(self) -> None:
        self.method, self.target = self.handler.command, self.handler.path

    def header(self, name: str) -> str:
        return self.handler.headers.get(name, "")

    @property
    def length(self) -> int:
        return int(self.header("Content-Length") or 0)

    def forward(self) -> Answer:
        """The server's answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=60)
        try:
            connection.putrequest(self.method, self.target, skip_host=True, skip_accept_encoding=True)
            for name, value in self.handler.headers.items():
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.endheaders(self.handler.rfile.read(self.length) or None)
            response = connection.getresponse()
            return Answer(response.status, tuple(response.getheaders()), response.read())
        finally:
            connection.close()


Behaviour = Callable[[Call], Answer | None]
"""Gives the answer to a call, with or without forwarding it; None resets the connection."""


class Proxy:
    """Listens on a loopback port; `behaviour` may be changed at any time."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.behaviour: Behaviour = Call.forward
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                try:
                    answer = proxy.behaviour(Call(self, proxy.upstream))
                except (OSError, http.client.HTTPException):
                    answer = None
                _send(self, answer)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


def _send(handler: BaseHTTPRequestHandler, answer: Answer | None) -> None:
    handler.close_connection = True
    if answer is None:
        _reset(handler.connection)
        return
    head = [f"HTTP/1.1 {answer.status} Told"]
    head += [
        f"{name}: {value}" for name, value in answer.headers if name.lower() not in ("connection", "transfer-encoding", "content-length")
    ]
    length = answer.header("Content-Length") if handler.command == "HEAD" else str(len(answer.body))
    head += [f"Content-Length: {length or 0}", "Connection: close", "", ""]
    try:
        handler.wfile.write("\r\n".join(head).encode("latin-1"))
        if handler.command != "HEAD":
            handler.wfile.write(answer.body[: answer.cut])
        handler.wfile.flush()
    except OSError:
        return
    if answer.cut is not None and answer.reset:
        _reset(handler.connection)


def _reset(connection: socket.socket) -> None:
    """RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
