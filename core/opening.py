"""Services that are being opened: again and again until every part answers, while the process already listens and can be asked."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Final

import structlog

from core import scrub
from core.errors import FiligraneError, Unavailable
from core.health import Health, checks_of
from core.monitor import beat, end
from core.services import Services
from core.settings import Settings

BACK_OFF: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between two tries; the last one from then on."""
_TICK: Final = 0.1

log = structlog.get_logger()


class Opening:
    """Opens in a thread of its own: a part that hangs holds up nobody who asks, or wants to end."""

    def __init__(self, settings: Settings, stop: threading.Event) -> None:
        self.settings = settings
        self.services: Services | None = None
        self.error: FiligraneError = Unavailable("database, store and bus have not answered yet", code="starting")
        """Why it has not worked so far."""
        self._stop = stop
        self._opened = threading.Event()
        self._health: Health | None = None

    def start(self) -> None:
        threading.Thread(target=self._open, name="opening", daemon=True).start()

    def wait(self, patience: float) -> Services | None:
        """The services; None when the process is to stop first.

        Raises:
            FiligraneError: a setting is wrong.
            Unavailable: a part did not answer for `patience` seconds.
        """
        until = time.monotonic() + patience
        while not self._opened.wait(_TICK):
            beat("opening")
            if self._stop.is_set():
                return None
            if time.monotonic() >= until or not isinstance(self.error, Unavailable):
                log.error("services.given_up", seconds=patience, code=self.error.code, details=self.error.details)
                raise self.error
        end("opening")
        return self.services

    def parts(self) -> dict[str, str]:
        """Part -> `ok` or what is wrong with it; until they are open, what keeps them from it."""
        if self._health is None:
            return {"services": scrub.text(f"{self.error.details} [{self.error.code}]")}
        return self._health.look()

    def _open(self) -> None:
        for attempt in itertools.count():
            try:
                services = Services.open(self.settings)
            except FiligraneError as error:
                self.error = error
            except Exception as error:
                log.exception("services.failed")
                self.error = FiligraneError(f"the services cannot be opened: {type(error).__name__}")
            else:
                self._health = Health(checks_of(services))
                self.services = services
                self._opened.set()
                return
            log.warning("services.wait", code=self.error.code, details=self.error.details, attempt=attempt)
            if self._stop.wait(BACK_OFF[min(attempt, len(BACK_OFF) - 1)]):
                return
