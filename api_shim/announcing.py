"""Sends what a write put into the outbox, beside the request: whoever made it waits a moment for that, and not for a bus that is away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from typing import Final

PATIENCE: Final = 1.0
"""Seconds. What is not sent by then is sent later, or by the scheduler."""
_WAITING: Final = 2
"""Drains that are under way or queued: one that has yet to begin finds all that was committed before."""


class Announcer:
    """One drain at a time. Thread-safe."""

    def __init__(self, drain: Callable[[], object], patience: float = PATIENCE) -> None:
        self._drain = drain
        self._patience = patience
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="announcing")
        self._places = threading.BoundedSemaphore(_WAITING)

    def announce(self) -> None:
        """Returns once what is committed now is sent, or after a moment."""
        if not self._places.acquire(blocking=False):
            return
        future: Future[object] = self._thread.submit(self._drain)
        future.add_done_callback(lambda _: self._places.release())
        with suppress(FutureTimeout):
            future.result(self._patience)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
