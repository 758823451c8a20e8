"""The API's server process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Self

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api_shim.app import create_app
from api_shim.errors import error_body
from api_shim.middleware import Requests
from core import scrub
from core.errors import InvalidInput, Unavailable
from core.monitor import beat
from core.opening import Opening

DRAIN_SECONDS: Final = 25
"""How long requests that have begun may still take once the server is told to stop."""
RETRY_SECONDS: Final = 2
_BACKLOG: Final = 512
_TICK: Final = 0.05
_JOIN_SECONDS: Final = 10

_log = structlog.get_logger()


def run(opening: Opening, host: str, port: int, stop: threading.Event) -> None:
    """Listens at once and serves as soon as the services are open, until `stop` is set; finishes what has begun and closes the services.

    Raises:
        InvalidInput: the address cannot be listened on.
    """
    listening = _listen(host, port)
    door = Door(opening, stop)
    config = uvicorn.Config(
        door,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    _log.info("api.listening", address=host, port=listening.getsockname()[1])
    with listening, door:
        _Server(config, stop).run(sockets=[listening])
    _log.info("api.stopped")


class Door:
    """The application once its services are open; 503 that says what is away before that. A context that ends both."""

    def __init__(self, opening: Opening, stop: threading.Event) -> None:
        self._opening = opening
        self._stop = stop
        self._app: Starlette | None = None
        self._closed = Requests(self._not_yet)
        self._waiting = threading.Thread(target=self._open, name="door", daemon=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._app or self._closed)(scope, receive, send)

    async def _not_yet(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = scrub.text(f"{self._opening.error.details} [{self._opening.error.code}]")
        raise Unavailable(f"this server is starting: {reason}", code="starting", retry_after=RETRY_SECONDS)

    def _open(self) -> None:
        while not self._stop.is_set():
            services = self._opening.services
            if services is not None:
                self._app = create_app(services)
                _log.info("api.ready")
                return
            self._stop.wait(_TICK)

    def __enter__(self) -> Self:
        self._waiting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.join(_JOIN_SECONDS)
        if self._app is not None:
            self._app.state.api.close()
        if self._opening.services is not None:
            self._opening.services.close()


class _Server(uvicorn.Server):
    """Stops by the event; leaves the process's signals alone."""

    def __init__(self, config: uvicorn.Config, stop: threading.Event) -> None:
        super().__init__(config)
        self._stop = stop

    async def on_tick(self, counter: int) -> bool:
        beat()
        return await super().on_tick(counter) or self._stop.is_set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Protocol(HttpToolsProtocol):
    """What is no HTTP gets the API's error shape too."""

    def send_400_response(self, msg: str) -> None:
        body = error_body(InvalidInput(msg, code="bad_request"))
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode() + body)
        self.transport.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise InvalidInput(f"cannot listen on {host}:{port}: {error.strerror}", code="listen_failed") from error
