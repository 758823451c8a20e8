"""What takes processor time while somebody waits: a few at once, each for as long as its caller has patience."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Final, TypeVar

from api_shim.errors import TimedOut
from core.errors import Unavailable
from matcher.decode import Decoders

IN_FLIGHT: Final = 16
"""Calls that wait at the same time; the next one is told to come again."""

T = TypeVar("T")


class Workshop:
    """Thread-safe."""

    def __init__(self, decoders: Decoders) -> None:
        self._decoders = decoders
        self._places = threading.BoundedSemaphore(IN_FLIGHT)
        self._threads = ThreadPoolExecutor(decoders.size, thread_name_prefix="workshop")

    def run(self, patience: float, function: Callable[..., T], *args: Any) -> T:
        """What the function gives or raises in a decoder process.

        Raises:
            TimedOut: not within `patience` seconds. What has begun is finished in vain, the rest is not begun.
            Unavailable: too many at once.
        """
        if patience <= 0:
            raise _timed_out()
        if not self._places.acquire(blocking=False):
            raise Unavailable("too many pictures are marked or looked at at the same time", code="watermarking_busy", retry_after=2)
        future = self._threads.submit(self._decoders.run, function, *args)
        future.add_done_callback(lambda _: self._places.release())
        try:
            return future.result(patience)
        except FutureTimeout as error:
            future.cancel()
            raise _timed_out() from error

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _timed_out() -> TimedOut:
    return TimedOut("this was not done within the timeout")
