"""Storing goes on until it is done, whatever is away or full; sending is tried once, and not at all while the bus is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from core.errors import NotFound, ObjectMissing, StaleLease
from core.models import CrawlSession
from core.services import Services
from crawler import publish
from crawler.cycle import Cycle
from crawler.figures import closings_total, published, sends_total
from crawler.publish import Closing
from crawler.running import Running
from crawler.threads import Threads

BACK_OFF: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between two tries; the last one from then on."""
AWAY_FOR: Final = 10.0
"""Seconds after a piece could not be sent in which no other is tried: each of them would wait for the bus in vain."""
MAX_UNSENT: Final = 16
"""Stored pieces that may wait to be sent; what comes on top is left to heal."""

T = TypeVar("T")

log = structlog.get_logger()


async def again_and_again(cycle: Cycle, what: str, call: Callable[[], Awaitable[T]]) -> T | None:
    """What `call` gives once it succeeds; None when the cycle was lost meanwhile.

    Raises:
        StaleLease, NotFound: the domain has another holder, or the session is gone.
    """
    attempt = 0
    while not cycle.lost:
        try:
            return await call()
        except (StaleLease, NotFound) as error:
            if not isinstance(error, ObjectMissing):
                closings_total.labels("stale").inc()
                raise
            log.error(f"crawler.{what}_failed", session=cycle.session.id, epoch=cycle.held.epoch, error=error.details, attempt=attempt)
        except Exception as error:  # whatever it is: nothing may be lost, so it is tried again
            closings_total.labels("retried").inc()
            named = {"session": cycle.session.id, "epoch": cycle.held.epoch, "kind": type(error).__name__, "attempt": attempt}
            log.warning(f"crawler.{what}_failed", error=str(error), **named)
        await asyncio.sleep(BACK_OFF[min(attempt, len(BACK_OFF) - 1)])
        attempt += 1
    return None


class Sender:
    """Publishes the messages of stored pieces if the bus takes them now, and leaves the others to heal. Holds up nobody."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._threads = Threads(2, "send")
        self._waiting = 0
        self._away_until = float("-inf")

    async def send(self, session: CrawlSession, closing: Closing, tar_keys: Mapping[int, str]) -> None:
        """`tar_keys`: seq -> object key, of the whole cycle."""
        if self._waiting >= MAX_UNSENT:
            self._leave(session, closing, "too many wait")
            return
        self._waiting += 1
        try:
            await self._threads.run(self._send, session, closing, tar_keys)
        finally:
            self._waiting -= 1

    def _send(self, session: CrawlSession, closing: Closing, tar_keys: Mapping[int, str]) -> None:
        if self._services.clock.monotonic() < self._away_until:
            self._leave(session, closing, "the bus was away a moment ago")
            return
        try:
            publish.send(self._services, session, closing, tar_keys)
            sends_total.labels("sent").inc()
            published(closing.piece.records, self._services.clock.now().timestamp())
        except Exception as error:  # whatever it is: the piece is stored, and what comes after it goes on
            self._away_until = self._services.clock.monotonic() + AWAY_FOR
            self._leave(session, closing, f"{type(error).__name__}: {error}")

    def _leave(self, session: CrawlSession, closing: Closing, reason: str) -> None:
        sends_total.labels("left to heal").inc()
        log.warning("crawler.left_to_heal", session=session.id, cycle=session.cycle_count, piece=closing.seq, reason=reason)

    def close(self) -> None:
        self._threads.close()


class Storing:
    """Closings on their way: a cycle's are stored one after the other, then sent."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._threads = Threads(8, "store")
        self._sender = Sender(running.services)
        self._tasks: set[asyncio.Task[None]] = set()

    def close_segments(self, cycle: Cycle, *, everything: bool = False) -> None:
        """Stores what is due, or everything."""
        closing = cycle.close_segments(everything=everything)
        if closing is not None:
            self.start(cycle, closing)

    def start(self, cycle: Cycle, closing: Closing) -> None:
        cycle.unstored += 1
        self._spawn(self._store(cycle, closing))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _store(self, cycle: Cycle, closing: Closing) -> None:
        async with cycle.storing:
            rows = await self.until_done(cycle, "store", publish.store, self._running.services, cycle.held, cycle.session, closing)
            cycle.unstored -= 1
            if rows is None:
                return
            closings_total.labels("stored").inc()
            cycle.stored(rows)
            self._running.journal.cover(*cycle.key, closing.piece.first + len(closing.piece.records) - 1)
            for segment in closing.segments:
                segment.path.unlink(missing_ok=True)
        self._spawn(self._sender.send(cycle.session, closing, dict(cycle.progress.tar_keys)))
        self._running.wake(cycle)

    async def until_done(self, cycle: Cycle, what: str, call: Callable[..., T], *args: object) -> T | None:
        """Again and again while the store or the database is away or full; None when the cycle is lost."""
        try:
            return await again_and_again(cycle, what, partial(self._threads.run, call, *args))
        except (StaleLease, NotFound) as error:
            self._running.lose(cycle, error.details)
            return None

    async def settle(self, timeout: float) -> None:
        """Waits until nothing is on its way any more, at most so many seconds; then gives up: it is all on this disk."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
        for task in self._tasks:
            task.cancel()
        self._threads.close()
        self._sender.close()
