"""Pictures that crawls found: a poll's messages become matches.

They are worked on together: one read per stretch of a segment, decoding in the pool, matches in as few transactions as is kind to others;
then the commit. Everything is idempotent: what is interrupted comes again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import partial
from typing import Final, NamedTuple, TypeVar

import msgspec
import structlog
from structlog.contextvars import bound_contextvars

from core import telemetry
from core.bus import Message, dead_letter
from core.errors import FiligraneError, NotFound, UnsupportedMedia
from core.events import IMAGES, MEDIA, ImageFound, MediaChanged, MessageInvalid, decode
from core.repo import accounts, crawls, healing
from core.repo.matches import MatchDraft
from core.services import Services
from matcher.crawled.writer import CrawledWriter, Found
from matcher.decode import Decoders
from matcher.member import TRIES, Member, Stopped, patiently
from matcher.pipeline import Pipeline, Source
from matcher.reading import DAMAGED, Reader, Task
from matcher.recording import record
from matcher.registry import Registry

_AT_ONCE: Final = 64
_RETRYABLE: Final = frozenset({"decoder_died", DAMAGED})

T = TypeVar("T")
log = structlog.get_logger()
_IMAGES: Final = telemetry.counter("filigrane_matcher_images", "Messages of images, by what became of them", ["outcome"])


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


class _Seen(NamedTuple):
    """What is written of a picture, so that it can be searched, and what is in it."""

    task: Task
    crawled: Found
    drafts: list[MatchDraft]


class Images:
    """What is done with the messages of a poll; used by one thread."""

    def __init__(self, services: Services, registry: Registry, pipeline: Pipeline, decoders: Decoders, stop: threading.Event) -> None:
        self._services = services
        self._registry = registry
        self._pipeline = pipeline
        self._reader = Reader(services, decoders, stop)
        self._crawled = CrawledWriter(services)
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
        tasks = self._wanted(list(self._readable(messages)))
        versions = self._patiently(partial(self._versions, tasks))
        found = [seen for task, source in self._sources(tasks) if (seen := self._see(_caught_up(task, versions), source)) is not None]
        self._patiently(partial(self._crawled.store, [seen.crawled for seen in found]))
        for seen in found:
            _IMAGES.labels("matched" if seen.drafts else "nothing").inc()
        found += self._registered_since(found, versions)
        self._record([(seen.task, seen.drafts) for seen in found if seen.drafts])

    def _see(self, task: Task, source: Source) -> _Seen | None:
        """What is in the picture; None once its message lies with the dead letters, or is of no use to us."""

        def look() -> _Seen:
            print_ = self._pipeline.fingerprint(task.event.sha256, source) if self._crawled.wants(task.event) else None
            return _Seen(task, self._crawled.found(task.event, print_), self._pipeline.matches(task.event, source))

        return self._attempt(task, look)

    def _registered_since(self, found: Sequence[_Seen], versions: Mapping[int, int]) -> list[_Seen]:
        """What is in the pictures of that which was registered while they were worked on.

        The registrar commits, then the crawled files are looked through; here the file was committed, and the versions are read after it:
        one of both always sees the other.
        """
        now = self._patiently(partial(self._versions, [seen.task for seen in found]))
        late = [seen.task for seen in found if _has_risen(seen.task.event, versions, now)]
        again = (self._see(_caught_up(task, now), self._reader.source(task.event)) for task in late)
        return [seen for seen in again if seen is not None]

    def _versions(self, tasks: Sequence[Task]) -> dict[int, int]:
        """Of the registries that pictures are matched against."""
        shared = any(task.event.shared for task in tasks)
        with self._services.database.read() as tx:
            return accounts.registry_versions(tx, None if shared else {task.event.account for task in tasks})

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
            if not self._crawled.wants(task.event) and self._patiently(partial(self._pipeline.known, task.event)):
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
        recorded = found
        try:
            self._patiently(partial(record, self._services, [draft for _, some in found for draft in some]))
        except Stopped:
            raise
        except Exception:
            log.exception("matcher.record_failed", messages=[place(task.message) for task, _ in found])
            recorded = [(task, some) for task, some in found if self._attempt(task, partial(record, self._services, some)) is not None]
        for task, some in recorded:
            with _about(task):
                log.info("matcher.matched", pictures=sorted({draft.picture_id for draft in some}), matches=len(some))

    def _bury(self, message: Message, code: str, reason: str) -> None:
        _IMAGES.labels("dead").inc()
        log.warning("matcher.image_dead", code=code, reason=reason, **place(message))
        self._patiently(lambda: self._services.bus.publish([dead_letter(message, code, reason)]))

    def _patiently(self, work: Callable[[], T]) -> T:
        return patiently(work, self._stop, IMAGES)


def _caught_up(task: Task, versions: Mapping[int, int]) -> Task:
    """The task, to be matched against what is registered by now."""
    version = max(task.event.registry_version, versions.get(task.event.account, 0))
    return Task(task.message, msgspec.structs.replace(task.event, registry_version=version))


def _has_risen(event: ImageFound, before: Mapping[int, int], now: Mapping[int, int]) -> bool:
    return before != now if event.shared else before.get(event.account) != now.get(event.account)


def place(message: Message) -> dict[str, object]:
    """Where a message is, and whose request it belongs to, for a line of the log."""
    found: dict[str, object] = {"topic": message.topic, "partition": message.partition, "offset": message.offset}
    return found | ({"request_id": message.headers["request_id"]} if "request_id" in message.headers else {})


def _about(task: Task) -> AbstractContextManager[None]:
    """Every line of the log in here names the picture: one can be followed through all processes."""
    event = task.event
    return bound_contextvars(**(place(task.message) | {"request_id": event.request_id, "url": event.url, "sha256": event.sha256}))
