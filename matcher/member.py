"""A member of a consumer group: polls, has the work done, commits; what is interrupted comes again.

The work runs on a thread of its own, and however long it takes (slow pictures, a store that is away for minutes), the bus hears every few
seconds that the member lives: one that is slow is not thrown out, in a loop, with its work begun anew elsewhere.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Final, TypeVar

import structlog

from core.bus import Consumer, Message
from core.errors import Unavailable
from core.monitor import beat
from core.services import Services
from core.shards import GROUP

TRIES: Final = 3
"""For one message; then it lies with the dead letters."""
_POLL_SECONDS: Final = 0.5
_ALIVE_SECONDS: Final = 2.0
_TURN_SECONDS: Final = 20.0
"""What takes longer than this was too much at once."""

T = TypeVar("T")
Work = Callable[[Sequence[Message]], None]
log = structlog.get_logger()


class Stopped(Exception):
    """The worker is to end; what it holds is not committed and comes again."""


class Member:
    """One member of the group on a topic. `work` gets the messages of each poll, also when there are none; it may raise Stopped.

    `missed` is called when the bus has dropped messages that the group had not read, before anything later is committed.
    """

    def __init__(
        self,
        services: Services,
        topic: str,
        stop: threading.Event,
        work: Work,
        *,
        at_once: int,
        group: str = GROUP,
        missed: Callable[[], None] | None = None,
    ) -> None:
        self._services = services
        self._topic = topic
        self._group = group
        self._stop = stop
        self._work = work
        self._missed = missed
        self._most = self._at_once = at_once

    def run(self) -> None:
        """Until the worker is to stop."""
        working = ThreadPoolExecutor(1, thread_name_prefix=self._topic)
        try:
            consumer = self._patiently(partial(self._services.bus.consume, self._topic, self._group))
            try:
                while not self._stop.is_set():
                    self._turn(consumer, working)
            finally:
                working.shutdown(cancel_futures=True)
                consumer.close()
        except Stopped:
            pass
        finally:
            working.shutdown(cancel_futures=True)

    def _turn(self, consumer: Consumer, working: ThreadPoolExecutor) -> None:
        messages = self._patiently(partial(consumer.poll, _POLL_SECONDS, self._at_once))
        if consumer.missed() and self._missed is not None:
            finish(working.submit(self._missed), consumer)
        begun = time.monotonic()
        finish(working.submit(self._work, messages), consumer)
        if messages:
            self._patiently(partial(consumer.commit, messages))
            self._learn(time.monotonic() - begun, len(messages))

    def _learn(self, seconds: float, count: int) -> None:
        """Fewer messages at once after a slow turn, more after a quick one: a death repeats little, and others wait for little."""
        if seconds > _TURN_SECONDS:
            self._at_once = max(1, count // 2)
        else:
            self._at_once = min(self._most, self._at_once * 2)

    def _patiently(self, work: Callable[[], T]) -> T:
        return patiently(work, self._stop, self._topic)


def finish(work: Future[None], consumer: Consumer) -> None:
    """Waits for the work, and says meanwhile that its member lives. Raises what the work does."""
    while not wait([work], _ALIVE_SECONDS).done:
        try:
            consumer.commit(())
        except Unavailable as error:  # if it is thrown out for that, others do the same work: nothing is lost or doubled
            log.warning("matcher.cannot_say_that_it_lives", code=error.code, reason=error.details)
    work.result()


def patiently(work: Callable[[], T], stop: threading.Event, loop: str = "main") -> T:
    """What the work gives, tried again for as long as a dependency is away; each try is a turn of the loop.

    Raises Stopped once `stop` is set.
    """
    while True:
        beat(loop)
        if stop.is_set():
            raise Stopped
        try:
            return work()
        except Unavailable as error:
            log.warning("matcher.waits", code=error.code, reason=error.details)
            stop.wait(error.retry_after)
