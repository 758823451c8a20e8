"""The API's server process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api_shim.app import create_app
from api_shim.errors import error_body
from core.errors import InvalidInput
from core.services import Services

DRAIN_SECONDS: Final = 25
"""How long requests that have begun may still take once the server is told to stop."""
_BACKLOG: Final = 512

_log = structlog.get_logger()


def run(services: Services, host: str, port: int, stop: threading.Event) -> None:
    """Serves until `stop` is set; requests that have begun are finished. Signals are the caller's.

    Raises:
        InvalidInput: the address cannot be listened on.
    """
    listening = _listen(host, port)
    config = uvicorn.Config(
        create_app(services),
        http=_Protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    _log.info("api.listening", host=host, port=listening.getsockname()[1])
    with listening:
        _Server(config, stop).run(sockets=[listening])
    _log.info("api.stopped")


class _Server(uvicorn.Server):
    """Stops by the event; leaves the process's signals alone."""

    def __init__(self, config: uvicorn.Config, stop: threading.Event) -> None:
        super().__init__(config)
        self._stop = stop

    async def on_tick(self, counter: int) -> bool:
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
