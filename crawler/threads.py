"""Threads for calls that block, in pools of their own: what hangs in one pool holds up nobody else, nor the end of the process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """A fixed number of daemon threads. The standard pool's are waited for at the end, however long a server that is away keeps them."""

    def __init__(self, number: int, name: str) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._number = number
        for each in range(number):
            threading.Thread(target=self._work, name=f"{name}-{each}", daemon=True).start()

    async def run(self, call: Callable[..., T], *args: object) -> T:
        """What `call` gives or raises; when this is cancelled before a thread was free, it is not called at all."""
        future: Future[T] = Future()
        self._calls.put((future, partial(copy_context().run, call, *args)))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """The threads end when they have done what they were given; nobody waits for them."""
        for _ in range(self._number):
            self._calls.put(None)

    def _work(self) -> None:
        while (given := self._calls.get()) is not None:
            future, call = given
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except BaseException as error:  # it is the caller's
                future.set_exception(error)
            else:
                future.set_result(result)
