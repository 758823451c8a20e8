"""One role in this process: what `filigrane api|crawler|matcher|scheduler` runs, by hand or as a child of `filigrane serve`."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from core.errors import Unavailable
from core.settings import Settings

if TYPE_CHECKING:
    from core.services import Services

ROLES: Final = ("scheduler", "api", "crawler", "matcher")
PATIENCE: Final = 60.0
"""Seconds that a role waits at its start for a dependency that does not answer."""
_BACK_OFF: Final = (0.2, 0.5, 1.0, 2.0, 5.0)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Options:
    """What a role is told beside the settings."""

    host: str = "127.0.0.1"
    port: int = 8000
    name: str = "local"
    """The crawler's: its local folder and the holder of its leases."""
    only_session: int | None = None
    with_parent: bool = False
    """Standard input is a pipe from the parent: its end is the parent's end, and ours."""


def run(role: str, settings: Settings, options: Options) -> None:
    """Runs the role in the main thread until SIGTERM or SIGINT.

    Raises:
        Unavailable: a dependency did not answer for 60 s.
    """
    from core import telemetry

    telemetry.configure(role)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if options.with_parent:
        threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    _run(role, settings, options, stop)


def _run(role: str, settings: Settings, options: Options, stop: threading.Event) -> None:
    with _opened(settings, stop) as services:
        if stop.is_set():
            return
        if role == "api":
            from api_shim import server

            server.run(services, options.host, options.port, stop)
        elif role == "crawler":
            from crawler import worker as crawling

            crawling.run(services, stop, name=options.name, only_session=options.only_session)
        elif role == "matcher":
            from matcher import worker as matching

            matching.run(services, stop)
        else:
            from scheduler import clock

            clock.run(services, stop)


def _opened(settings: Settings, stop: threading.Event) -> Services:
    """The services; tries again for a while when one does not answer. Raises Unavailable."""
    from core.services import Services

    until = time.monotonic() + PATIENCE
    for attempt in itertools.count():
        try:
            return Services.open(settings)
        except Unavailable as error:
            if stop.is_set() or time.monotonic() >= until:
                raise
            log.warning("role.waits", code=error.code, details=error.details)
            stop.wait(_BACK_OFF[min(attempt, len(_BACK_OFF) - 1)])
    raise AssertionError("counts forever")


def _end_with_parent() -> None:
    """A parent that was killed closes the pipe. Ending at once is safe at any moment, and leaves the place to the next `serve`."""
    os.read(0, 1)
    os._exit(1)
