"""Whether the parts answer: each is asked in a thread of its own, so that one that hangs is told apart from one that refuses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Final

import structlog
from sqlalchemy import text

from core import scrub
from core.errors import FiligraneError
from core.events import IMAGES
from core.services import Services
from core.shards import GROUP

PATIENCE: Final = 5.0
"""Seconds that a part may take to answer."""
OK: Final = "ok"

Check = Callable[[], object]
log = structlog.get_logger()


def checks_of(services: Services) -> dict[str, Check]:
    """One small question to each part, by the part's name."""

    def database() -> None:
        with services.database.read() as tx:
            tx.execute(text("SELECT 1"))

    return {
        "database": database,
        "object store": lambda: next(iter(services.store.list("queries/")), None),
        "bus": lambda: services.bus.lag(IMAGES, GROUP),
    }


class Health:
    """Asks when it is asked. Thread-safe. A question that hangs is not asked a second time until it has ended."""

    def __init__(self, checks: Mapping[str, Check], patience: float = PATIENCE) -> None:
        self._checks = dict(checks)
        self._patience = patience
        self._lock = threading.Lock()
        self._asked: dict[str, Future[None]] = {}

    def look(self) -> dict[str, str]:
        """Part -> `ok`, or what is wrong with it; all within the patience of one."""
        until = time.monotonic() + self._patience
        asked = {part: self._ask(part) for part in self._checks}
        return {part: self._said(part, future, until) for part, future in asked.items()}

    def _ask(self, part: str) -> Future[None]:
        with self._lock:
            future = self._asked.get(part)
            if future is None or future.done():
                future = self._asked[part] = Future()
                threading.Thread(target=_answer, args=(self._checks[part], future), name=f"health {part}", daemon=True).start()
            return future

    def _said(self, part: str, future: Future[None], until: float) -> str:
        try:
            future.result(max(0.0, until - time.monotonic()))
        except FutureTimeout:
            return f"does not answer within {self._patience:g} s"
        except FiligraneError as error:
            return scrub.text(f"{error.details} [{error.code}]")
        except Exception as error:
            log.error("health.check_failed", part=part, kind=type(error).__name__, error=str(error))
            return f"fails with {type(error).__name__}"
        return OK


def _answer(check: Check, future: Future[None]) -> None:
    try:
        check()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(None)
