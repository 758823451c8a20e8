"""Synchronous searches: the question goes out on the bus, one thread per process collects the answers."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import structlog

from core import events
from core.bus import Follower, Outgoing
from core.errors import FiligraneError, Unavailable
from core.events import RESULTS, SEARCHES, MessageInvalid, SearchAnswered, SearchAsked
from core.services import Services

if TYPE_CHECKING:
    from collections.abc import Iterator

IN_FLIGHT: Final = 16
"""Searches of this process that wait at the same time; the next one is told to come again."""
_POLL: Final = 0.25

_log = structlog.get_logger()


class Answers:
    """Asks and waits. Thread-safe; begins to listen with the first question."""

    def __init__(self, services: Services) -> None:
        self.process = uuid4().hex
        self._services = services
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(IN_FLIGHT)
        self._waiting: dict[str, Future[SearchAnswered]] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def room(self) -> Iterator[None]:
        """Holds a place for one search. Raises Unavailable when all are taken."""
        if not self._room.acquire(blocking=False):
            raise Unavailable("too many searches at the same time", code="searches_busy", retry_after=2)
        try:
            yield
        finally:
            self._room.release()

    def ask(self, question: SearchAsked) -> SearchAnswered:
        """Publishes the question and waits for its answer until its deadline. Raises Unavailable: none came."""
        self._listen()
        future: Future[SearchAnswered] = Future()
        self._waiting[question.search] = future
        try:
            self._services.bus.publish([Outgoing(SEARCHES, question.search, events.encode(question))])
            return future.result((question.deadline - self._services.clock.now()).total_seconds())
        except FutureTimeout as error:
            raise Unavailable("the search was not answered in time", code="search_timeout", retry_after=5) from error
        finally:
            self._waiting.pop(question.search, None)

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10)

    def _listen(self) -> None:
        with self._lock:
            if self._thread is None:
                follower = self._services.bus.follow(RESULTS, "latest")
                self._thread = threading.Thread(target=self._collect, args=(follower,), name="answers", daemon=True)
                self._thread.start()

    def _collect(self, follower: Follower) -> None:
        while not self._stop.is_set():
            try:
                messages = follower.poll(_POLL)
            except FiligraneError as error:
                _log.warning("answers.failed", code=error.code, details=error.details)
                self._stop.wait(_POLL)
                continue
            for message in messages:
                if message.key == self.process:
                    self._deliver(message.value)
        follower.close()

    def _deliver(self, value: bytes) -> None:
        try:
            answer = events.decode(value)
        except MessageInvalid as error:
            _log.warning("answers.unreadable", details=error.details)
            return
        if isinstance(answer, SearchAnswered) and (future := self._waiting.pop(answer.search, None)) is not None:
            future.set_result(answer)
