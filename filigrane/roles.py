"""One role in this process: what `filigrane api|crawler|matcher|scheduler` runs, by hand or as a child of `filigrane serve`."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from core.settings import Settings

if TYPE_CHECKING:
    from core.services import Services

ROLES: Final = ("scheduler", "api", "crawler", "matcher")
PATIENCE: Final = 60.0
"""Seconds that a worker waits at its start for a part that does not answer. The API waits for ever, and answers 503."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a role is told beside the settings."""

    host: str = "127.0.0.1"
    port: int = 8000
    name: str | None = None
    """The crawler's local folder; None = the first one that no other crawler has."""
    only_session: int | None = None
    with_parent: bool = False
    """Standard input is a pipe from the parent: its end is the parent's end, and ours."""


def run(role: str, settings: Settings, options: Options) -> None:
    """Runs the role in the main thread until SIGTERM or SIGINT.

    Raises:
        InvalidInput: a setting is wrong.
        Unavailable: a part did not answer a worker for 60 s.
    """
    import structlog

    from core import telemetry

    telemetry.configure(role)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    structlog.get_logger().info("role.started")
    if options.with_parent:
        threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    _run(role, settings, options, stop)


def _run(role: str, settings: Settings, options: Options, stop: threading.Event) -> None:
    from core.monitor import monitoring
    from core.opening import Opening

    opening = Opening(settings, stop)
    opening.start()
    with monitoring(settings.metrics_listen, opening.parts):
        if role == "api":
            from api_shim import server

            server.run(opening, options.host, options.port, stop)
        elif (services := opening.wait(PATIENCE)) is not None:
            with services:
                _work(role, services, options, stop)


def _work(role: str, services: Services, options: Options, stop: threading.Event) -> None:
    if role == "crawler":
        from crawler import worker as crawling

        crawling.run(services, stop, name=options.name, only_session=options.only_session)
    elif role == "matcher":
        from matcher import worker as matching

        matching.run(services, stop)
    else:
        from scheduler import clock

        clock.run(services, stop)


def _end_with_parent() -> None:
    """A parent that was killed closes the pipe. Ending at once is safe at any moment, and leaves the place to the next `serve`."""
    os.read(0, 1)
    os._exit(1)
