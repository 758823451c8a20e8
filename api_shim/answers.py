"""Synchronous searches: the question goes out on the bus, one thread per process collects the answers."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import msgspec
import structlog

from core import events
from core.bus import Follower, Outgoing
from core.errors import FiligraneError, InvalidInput, Unavailable, UnsupportedMedia
from core.events import RESULTS, SEARCHES, MessageInvalid, SearchAnswered, SearchAsked
from core.models import Account
from core.services import Services

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

IN_FLIGHT: Final = 16
"""Searches of this process that wait at the same time; the next one is told to come again."""
_POLL: Final = 0.25
_FAILURES: Final[dict[str, type[FiligraneError]]] = {kind.default_code: kind for kind in (FiligraneError, UnsupportedMedia, Unavailable)}
"""What a matcher's error is besides wrong input."""

_log = structlog.get_logger()


class Answers:
    """Asks and waits. Thread-safe; begins to listen with the first question."""

    def __init__(self, services: Services) -> None:
        self._process = uuid4().hex
        self._services = services
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(IN_FLIGHT)
        self._waiting: dict[str, _Waiting] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def search(
        self,
        account: Account,
        data: bytes,
        *,
        transform: str,
        similar: bool,
        patience: timedelta,
        category: str | None = None,
        request_id: str | None = None,
    ) -> SearchAnswered:
        """Asks which of the account's pictures, and of the crawled ones that it may see (`category`: only these or those), the bytes show.
        They are in the store only until the answer is here.

        Raises:
            InvalidInput, UnsupportedMedia: the matcher could not search with these bytes.
            Unavailable: too many searches at the same time, or no answer within `patience`.
        """
        search_id = uuid4().hex
        question = SearchAsked(
            search=search_id,
            account=account.id,
            registry_version=account.registry_version,
            key=f"queries/{search_id}",
            transform=transform,
            similar=similar,
            deadline=self._services.clock.now() + patience,
            reply_to=self._process,
            request_id=request_id or search_id,
            category=category,
        )
        with self._place():
            self._services.store.put(question.key, data)
            try:
                answer = self._ask(question)
            finally:
                self._services.store.delete([question.key])
        if answer.error_code is not None:
            kind = _FAILURES.get(answer.error_code, InvalidInput)
            raise kind(answer.error_details or "the picture could not be searched with", code=answer.error_code)
        return answer

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Holds a place for one search. Raises Unavailable when all are taken."""
        if not self._places.acquire(blocking=False):
            raise Unavailable("too many searches at the same time", code="searches_busy", retry_after=2)
        try:
            yield
        finally:
            self._places.release()

    def _ask(self, question: SearchAsked) -> SearchAnswered:
        """Publishes the question and waits for its answer until its deadline. Raises Unavailable: none came."""
        self._listen()
        waiting = self._waiting[question.search] = _Waiting(similar=question.similar)
        try:
            self._services.bus.publish([Outgoing(SEARCHES, question.search, events.encode(question), {"request_id": question.request_id})])
            return waiting.whole.result((question.deadline - self._services.clock.now()).total_seconds())
        except FutureTimeout as error:
            raise Unavailable("the search was not answered in time", code="search_timeout", retry_after=5) from error
        finally:
            self._waiting.pop(question.search, None)

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
                if message.key == self._process:
                    self._deliver(message.value)
        follower.close()

    def _deliver(self, value: bytes) -> None:
        try:
            answer = events.decode(value)
        except MessageInvalid as error:
            _log.warning("answers.unreadable", details=error.details)
            return
        if isinstance(answer, SearchAnswered) and (waiting := self._waiting.get(answer.search)) is not None:
            waiting.put(answer)


class _Waiting:
    """A question of which parts are answered; the answer of one shard is already whole. `put` is called by one thread."""

    def __init__(self, *, similar: bool) -> None:
        self._similar = similar
        self.whole: Future[SearchAnswered] = Future()
        self._parts: dict[int, SearchAnswered] = {}

    def put(self, part: SearchAnswered) -> None:
        """The last one counts that each shard gave: it may have been asked twice, and answered in another life."""
        self._parts[part.shard] = part
        parts = [found for shard in range(part.shards) if (found := self._parts.get(shard)) is not None]
        if len(parts) == part.shards and not self.whole.done():
            self.whole.set_result(_merged(parts, similar=self._similar))


def _merged(parts: Sequence[SearchAnswered], *, similar: bool) -> SearchAnswered:
    """What all shards found, `similar` pictures the most alike first; what one could not say, nobody can."""
    failed = next((part for part in parts if part.error_code is not None), None)
    counts = [part.candidates for part in parts if part.candidates is not None]
    hits = [hit for part in parts for hit in part.hits]
    if similar:
        hits.sort(key=lambda hit: -(hit.score or 0.0))
    return failed or msgspec.structs.replace(
        parts[0],
        hits=tuple(hits),
        web=tuple(hit for part in parts for hit in part.web),
        candidates=sum(counts) if counts else None,
    )
