"""Pictures that crawls found: a poll's messages become matches.

They are worked on together: one read per stretch of a segment, decoding in the pool, matches in as few transactions as is kind to others;
then the commit. Everything is idempotent: what is interrupted comes again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import partial
from typing import Final, TypeVar

import structlog
from structlog.contextvars import bound_contextvars

from core import telemetry
from core.bus import Message, dead_letter
from core.errors import FiligraneError, NotFound, UnsupportedMedia
from core.events import IMAGES, MEDIA, ImageFound, MediaChanged, MessageInvalid, decode
from core.repo import crawls, healing, matches
from core.repo.matches import MatchDraft
from core.services import Services
from matcher.decode import Decoders
from matcher.member import TRIES, Member, Stopped, patiently
from matcher.pipeline import Pipeline, Source, stage_seconds
from matcher.reading import DAMAGED, Reader, Task
from matcher.registry import Registry

_AT_ONCE: Final = 64
_DRAFTS: Final = 500
"""Matches in one transaction: others wait for it."""
_RETRYABLE: Final = frozenset({"decoder_died", DAMAGED})

T = TypeVar("T")
log = structlog.get_logger()
_IMAGES: Final = telemetry.counter("filigrane_matcher_images", "Messages of images, by what became of them", ["outcome"])
_MATCHES: Final = telemetry.counter("filigrane_matcher_matches", "Matches recorded for the first time")


def run(services: Services, registry: Registry, pipeline: Pipeline, stop: threading.Event) -> None:
    """Works as a member of the group on the topic `images` until `stop` is set."""
    with suppress(Stopped), ExitStack() as opened:
        follower = patiently(lambda: services.bus.follow(MEDIA, "latest"), stop, IMAGES)
        opened.callback(follower.close)
        decoders = opened.enter_context(Decoders())
        images = Images(services, registry, pipeline, decoders, stop)
        opened.callback(images.close)
        opened.callback(decoders.abandon)

        def work(messages: Sequence[Message]) -> None:
            patiently(lambda: images.hear(follower.poll(0)), stop, IMAGES)
            images.work(messages)

        log.info("matcher.running")
        Member(services, IMAGES, stop, work, at_once=_AT_ONCE, missed=images.missed).run()


class Images:
    """What is done with the messages of a poll; used by one thread."""

    def __init__(self, services: Services, registry: Registry, pipeline: Pipeline, decoders: Decoders, stop: threading.Event) -> None:
        self._services = services
        self._registry = registry
        self._pipeline = pipeline
        self._reader = Reader(services, decoders, stop)
        self._stop = stop

    def close(self) -> None:
        self._reader.close()

    def hear(self, messages: Sequence[Message]) -> None:
        """Messages of the topic `media`."""
        for message in messages:
            try:
                event = decode(message.value)
            except MessageInvalid as error:
                log.error("matcher.media_message_invalid", **place(message), reason=error.details)
                continue
            if isinstance(event, MediaChanged):
                self._registry.heard(event)

    def missed(self) -> None:
        """Messages were dropped unread: the scheduler is told, which sends them again from what is stored. Raises Stopped."""
        now = self._services.clock.now()
        self._patiently(lambda: self._services.database.transact(lambda tx: healing.note_missed(tx, IMAGES, now)))
        log.error("matcher.messages_missed")

    def work(self, messages: Sequence[Message]) -> None:
        """Everything that the messages ask for, up to the matches being recorded. Raises Stopped."""
        found: list[tuple[Task, list[MatchDraft]]] = []
        for task, source in self._sources(self._wanted(list(self._readable(messages)))):
            drafts = self._attempt(task, partial(self._pipeline.matches, task.event, source))
            if drafts is not None:
                _IMAGES.labels("matched" if drafts else "nothing").inc()
                found.append((task, drafts))
        self._record([(task, drafts) for task, drafts in found if drafts])

    def _readable(self, messages: Sequence[Message]) -> Iterator[Task]:
        for message in messages:
            try:
                event = decode(message.value)
                if not isinstance(event, ImageFound):
                    raise MessageInvalid(f"a message of type {type(event).__name__} is not for this topic")
                yield Task(message, event)
            except MessageInvalid as error:
                self._bury(message, error.code, error.details)

    def _wanted(self, tasks: Sequence[Task]) -> list[Task]:
        """Those of sessions that are still there."""
        gone = self._patiently(lambda: self._deleted({task.event.session for task in tasks}))
        for task in tasks:
            if task.event.session in gone:
                _IMAGES.labels("session_deleted").inc()
                with _about(task):
                    log.info("matcher.session_deleted", session=task.event.session)
        return [task for task in tasks if task.event.session not in gone]

    def _deleted(self, sessions: set[int]) -> set[int]:
        gone = set()
        with self._services.database.read() as tx:
            for session in sessions:
                try:
                    crawls.get_session(tx, None, session)
                except NotFound:
                    gone.add(session)
        return gone

    def _sources(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Source]]:
        """Each task with a way to its picture; those first that the cache answers."""
        needed = []
        for task in tasks:
            if self._patiently(partial(self._pipeline.known, task.event)):
                yield task, self._reader.source(task.event)
            else:
                needed.append(task)
        yield from self._reader.pictures(needed)

    def _attempt(self, task: Task, work: Callable[[], T]) -> T | None:
        """What the work gives; None once the message lies with the dead letters (or is of no use to us), which holds up no other."""
        with _about(task):
            for tries in range(1, TRIES + 1):
                try:
                    return self._patiently(work)
                except Stopped:
                    raise
                except UnsupportedMedia as error:
                    _IMAGES.labels("unsupported").inc()
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

    def _record(self, found: Sequence[tuple[Task, list[MatchDraft]]]) -> None:
        """All matches, some hundreds in a transaction; if one fails for what is in it, each message on its own."""
        drafts = sorted((draft for _, some in found for draft in some), key=lambda draft: (draft.account_id, draft.picture_id))
        recorded = found
        try:
            for start in range(0, len(drafts), _DRAFTS):
                self._patiently(partial(self._upsert, drafts[start : start + _DRAFTS]))
        except Stopped:
            raise
        except Exception:
            log.exception("matcher.record_failed", messages=[place(task.message) for task, _ in found])
            recorded = [(task, some) for task, some in found if self._attempt(task, partial(self._upsert, some)) is not None]
        for task, some in recorded:
            with _about(task):
                log.info("matcher.matched", pictures=sorted({draft.picture_id for draft in some}), matches=len(some))

    def _upsert(self, drafts: Sequence[MatchDraft]) -> int:
        """How many are new."""
        now = self._services.clock.now()
        with stage_seconds.labels("record").time():
            new = self._services.database.transact(lambda tx: matches.record(tx, drafts, now))
        _MATCHES.inc(len(new))
        return len(new)

    def _bury(self, message: Message, code: str, reason: str) -> None:
        _IMAGES.labels("dead").inc()
        log.warning("matcher.image_dead", code=code, reason=reason, **place(message))
        self._patiently(lambda: self._services.bus.publish([dead_letter(message, code, reason)]))

    def _patiently(self, work: Callable[[], T]) -> T:
        return patiently(work, self._stop, IMAGES)


def place(message: Message) -> dict[str, object]:
    """Where a message is, and whose request it belongs to, for a line of the log."""
    found: dict[str, object] = {"topic": message.topic, "partition": message.partition, "offset": message.offset}
    return found | ({"request_id": message.headers["request_id"]} if "request_id" in message.headers else {})


def _about(task: Task) -> AbstractContextManager[None]:
    """Every line of the log in here names the picture: one can be followed through all processes."""
    event = task.event
    return bound_contextvars(**(place(task.message) | {"request_id": event.request_id, "url": event.url, "sha256": event.sha256}))
