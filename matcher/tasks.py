"""What is done with messages of pictures: those that cannot be read or worked on lie with the dead letters, and hold up no other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Final, TypeVar

import structlog
from structlog.contextvars import bound_contextvars

from core import telemetry
from core.bus import Message, dead_letter
from core.errors import FiligraneError, NotFound, UnsupportedMedia
from core.events import IMAGES, FeaturesFound, ImageFound, MessageInvalid, decode
from core.repo import crawls, healing
from core.repo.matches import MatchDraft
from core.services import Services
from matcher.member import TRIES, Stopped, patiently
from matcher.reading import DAMAGED, Task
from matcher.recording import record

_RETRYABLE: Final = frozenset({"decoder_died", DAMAGED})

T = TypeVar("T")
log = structlog.get_logger()
outcomes: Final = telemetry.counter("filigrane_matcher_images", "Messages of images, by what became of them", ["outcome"])


class Tasks:
    """The messages of a topic; used by one thread."""

    AT_ONCE = 64
    """How many are worked on together."""

    def __init__(self, services: Services, topic: str, stop: threading.Event) -> None:
        self._services = services
        self._topic = topic
        self._stop = stop

    def missed(self) -> None:
        """Messages were dropped unread: the scheduler is told, which sends them again from what is stored. Raises Stopped."""
        now = self._services.clock.now()
        self.patiently(lambda: self._services.database.transact(lambda tx: healing.note_missed(tx, IMAGES, now)))
        log.error("matcher.messages_missed", topic=self._topic)

    def wanted(self, messages: Sequence[Message]) -> list[Task]:
        """Those that can be read, of sessions that are still there. Raises Stopped."""
        tasks = list(self._readable(messages))
        gone = self.patiently(lambda: self._deleted({task.event.session for task in tasks}))
        for task in tasks:
            if task.event.session in gone:
                outcomes.labels("session_deleted").inc()
                with _about(task):
                    log.info("matcher.session_deleted", session=task.event.session)
        return [task for task in tasks if task.event.session not in gone]

    def attempt(self, task: Task, work: Callable[[], T]) -> T | None:
        """What the work gives; None once the message lies with the dead letters (or is of no use to us), which holds up no other."""
        with _about(task):
            for tries in range(1, TRIES + 1):
                try:
                    return self.patiently(work)
                except Stopped:
                    raise
                except UnsupportedMedia as error:
                    outcomes.labels("unsupported").inc()
                    log.info("matcher.unsupported", reason=error.details)
                    return None
                except FiligraneError as error:
                    if self._stop.is_set():  # its decoder was ended for that
                        raise Stopped from error
                    log.warning("matcher.image_failed", code=error.code, reason=error.details, tries=tries)
                    if tries == TRIES or error.code not in _RETRYABLE:
                        self._bury(task.message, error.code, error.details)
                        return None
                except Exception as error:
                    log.exception("matcher.image_failed", tries=tries)
                    if tries == TRIES:
                        self._bury(task.message, "internal", f"{type(error).__name__}: {error}")
            return None

    def record(self, found: Sequence[tuple[Task, list[MatchDraft]]]) -> None:
        """All matches, some hundreds in a transaction; if one fails for what is in it, each message on its own. Raises Stopped."""
        recorded = found
        try:
            self.patiently(partial(record, self._services, [draft for _, some in found for draft in some]))
        except Stopped:
            raise
        except Exception:
            log.exception("matcher.record_failed", messages=[place(task.message) for task, _ in found])
            recorded = [(task, some) for task, some in found if self.attempt(task, partial(record, self._services, some)) is not None]
        for task, some in recorded:
            with _about(task):
                log.info("matcher.matched", pictures=sorted({draft.picture_id for draft in some}), matches=len(some))

    def patiently(self, work: Callable[[], T]) -> T:
        return patiently(work, self._stop, self._topic)

    def _readable(self, messages: Sequence[Message]) -> Iterator[Task]:
        for message in messages:
            try:
                event = decode(message.value)
                if isinstance(event, ImageFound) and self._topic == IMAGES:
                    yield Task(message, event)
                elif isinstance(event, FeaturesFound) and self._topic != IMAGES:
                    yield Task(message, event.image, event.fingerprint)
                else:
                    raise MessageInvalid(f"a message of type {type(event).__name__} is not for this topic")
            except MessageInvalid as error:
                self._bury(message, error.code, error.details)

    def _deleted(self, sessions: set[int]) -> set[int]:
        gone = set()
        with self._services.database.read() as tx:
            for session in sessions:
                try:
                    crawls.get_session(tx, None, session)
                except NotFound:
                    gone.add(session)
        return gone

    def _bury(self, message: Message, code: str, reason: str) -> None:
        outcomes.labels("dead").inc()
        log.warning("matcher.image_dead", code=code, reason=reason, **place(message))
        self.patiently(lambda: self._services.bus.publish([dead_letter(message, code, reason)]))


def place(message: Message) -> dict[str, object]:
    """Where a message is, and whose request it belongs to, for a line of the log."""
    found: dict[str, object] = {"topic": message.topic, "partition": message.partition, "offset": message.offset}
    return found | ({"request_id": message.headers["request_id"]} if "request_id" in message.headers else {})


def _about(task: Task) -> AbstractContextManager[None]:
    """Every line of the log in here names the picture: one can be followed through all processes."""
    event = task.event
    return bound_contextvars(**(place(task.message) | {"request_id": event.request_id, "url": event.url, "sha256": event.sha256}))
