"""The matcher's process: images as a member of a group, searches on a thread of its own.

A poll's messages are worked on together: one read per stretch of a segment, decoding in the pool, matches in one transaction, then the
commit. Everything is idempotent: what is interrupted comes again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import cv2
import faiss
import structlog

from core import telemetry
from core.bus import Message, Outgoing, dead_letter
from core.errors import FiligraneError, NotFound, ObjectMissing, Unavailable, UnsupportedMedia
from core.events import (
    IMAGES,
    MEDIA,
    RESULTS,
    SEARCHES,
    ImageFound,
    MediaChanged,
    MessageInvalid,
    SearchAnswered,
    SearchAsked,
    StoredAt,
    decode,
    encode,
)
from core.repo import crawls, matches
from core.repo.matches import MatchDraft
from core.services import Services
from matcher.decode import Decoders, Picture
from matcher.pipeline import Pipeline
from matcher.registry import Registry

GROUP: Final = "matcher"
TRIES: Final = 3
_AT_ONCE: Final = 64
_STRETCH: Final = 16 << 20
_GAP: Final = 256 << 10
_POLL_SECONDS: Final = 0.5
_RETRYABLE: Final = "decoder_died"

T = TypeVar("T")
log = structlog.get_logger()
_IMAGES: Final = telemetry.counter("filigrane_matcher_images", "Messages of images, by what became of them", ["outcome"])
_SEARCHES: Final = telemetry.counter("filigrane_matcher_searches", "Searches, by what became of them", ["outcome"])
_MATCHES: Final = telemetry.counter("filigrane_matcher_matches", "Matches recorded for the first time")


class Stopped(Exception):
    """The worker is to end; what it holds is not committed and comes again."""


def run(services: Services, stop: threading.Event) -> None:
    """Works until `stop` is set; then finishes the picture at hand."""
    # one picture at a time per thread: the libraries' own threads would only wait for each other, busily
    cv2.setNumThreads(1)
    faiss.omp_set_num_threads(1)
    registry = Registry(services)
    pipeline = Pipeline(registry)
    searching = threading.Thread(target=_searches, args=(services, pipeline, stop), name="searches")
    searching.start()
    try:
        with Decoders() as decoders:
            Images(services, registry, pipeline, decoders, stop).run()
    finally:
        stop.set()
        searching.join()


@dataclass(frozen=True, slots=True)
class Task:
    """A message and the picture that it tells of."""

    message: Message
    event: ImageFound


class Images:
    """The member of the group `matcher` on the topic `images`."""

    def __init__(self, services: Services, registry: Registry, pipeline: Pipeline, decoders: Decoders, stop: threading.Event) -> None:
        self._services = services
        self._registry = registry
        self._pipeline = pipeline
        self._decoders = decoders
        self._stop = stop
        self._threads = ThreadPoolExecutor(decoders.size, thread_name_prefix="decoding")

    def run(self) -> None:
        consumer = self._services.bus.consume(IMAGES, GROUP)
        follower = self._services.bus.follow(MEDIA, "latest")
        try:
            while not self._stop.is_set():
                messages = self._patiently(partial(consumer.poll, _POLL_SECONDS, _AT_ONCE))
                self._patiently(lambda: self._hear(follower.poll(0)))
                if messages:
                    self.work(messages)
                    self._patiently(partial(consumer.commit, messages))
        except Stopped:
            pass
        finally:
            self._threads.shutdown(cancel_futures=True)
            follower.close()
            consumer.close()

    def work(self, messages: Sequence[Message]) -> None:
        """Everything that the messages ask for, up to the matches being recorded. Raises Stopped."""
        tasks = list(self._readable(messages))
        gone = self._patiently(lambda: self._deleted({t.event.session for t in tasks}))
        for task in tasks:
            if task.event.session in gone:
                _IMAGES.labels("session_deleted").inc()
        live = [task for task in tasks if task.event.session not in gone]
        found: list[tuple[Task, list[MatchDraft]]] = []
        for task, load in self._loaded(live):
            drafts = self._attempt(task, partial(self._pipeline.matches, task.event, load))
            if drafts is not None:
                found.append((task, drafts))
        self._record(found)

    def _readable(self, messages: Sequence[Message]) -> Iterator[Task]:
        for message in messages:
            try:
                event = decode(message.value)
                if not isinstance(event, ImageFound):
                    raise MessageInvalid(f"a message of type {type(event).__name__} is not for this topic")
                yield Task(message, event)
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

    def _loaded(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Callable[[], Picture]]]:
        """Each task with a way to its picture; those that the cache does not answer are read and decoded ahead, a stretch at a time."""
        needed = []
        for task in tasks:
            if self._patiently(partial(self._pipeline.known, task.event)):
                yield task, partial(self._picture, task.event)
            else:
                needed.append(task)
        for stretch in stretches(needed):
            ahead = self._ahead(stretch)
            for task in stretch:
                future = ahead.get(task.event.sha256)
                yield task, _waiting(future, partial(self._picture, task.event))

    def _ahead(self, stretch: Sequence[Task]) -> dict[str, Future[Picture]]:
        """Decoding of a stretch's pictures, under way; empty where it could not be read in one go."""
        start = min(t.event.bytes.offset for t in stretch)
        end = max(t.event.bytes.offset + t.event.bytes.length for t in stretch)
        try:
            data = self._read(stretch[0].event, start, end - start)
        except FiligraneError:
            return {}  # each picture on its own then, with its own error
        futures = {}
        for digest, place in {t.event.sha256: t.event.bytes for t in stretch}.items():
            futures[digest] = self._threads.submit(self._decoders.read, data[place.offset - start : place.offset - start + place.length])
        return futures

    def _picture(self, event: ImageFound) -> Picture:
        return self._decoders.read(self._bytes(event))

    def _bytes(self, event: ImageFound) -> bytes:
        data = self._read(event, event.bytes.offset, event.bytes.length)
        if len(data) != event.bytes.length:
            raise ObjectMissing(f"{event.bytes.key} ends before the picture does")
        return data

    def _read(self, event: ImageFound, offset: int, length: int) -> bytes:
        """Bytes of a segment, or of the artifact that it was joined into. Raises ObjectMissing, Unavailable."""
        try:
            return self._services.store.get_range(event.bytes.key, offset, length)
        except ObjectMissing:
            with self._services.database.read() as tx:
                key, base = crawls.resolve_segment(tx, event.session, event.cycle, event.bytes.seq)
            return self._services.store.get_range(key, base + offset, length)

    def _attempt(self, task: Task, work: Callable[[], list[MatchDraft]]) -> list[MatchDraft] | None:
        """What the work gives; None once the message lies with the dead letters (or is of no use to us), which holds up no other."""
        for tries in range(1, TRIES + 1):
            try:
                drafts = self._patiently(work)
                _IMAGES.labels("matched" if drafts else "nothing").inc()
                return drafts
            except UnsupportedMedia:
                _IMAGES.labels("unsupported").inc()
                return None
            except FiligraneError as error:
                if tries == TRIES or error.code != _RETRYABLE:
                    self._bury(task.message, error.code, error.details)
                    return None
            except Stopped:
                raise
            except Exception as error:
                log.exception("matcher.image_failed", url=task.event.url, tries=tries, request_id=task.event.request_id)
                if tries == TRIES:
                    self._bury(task.message, "internal", f"{type(error).__name__}: {error}")
        return None

    def _record(self, found: Sequence[tuple[Task, list[MatchDraft]]]) -> None:
        """All matches in one transaction; if that fails for what is in them, each message in its own."""
        if not any(drafts for _, drafts in found):
            return
        try:
            self._patiently(partial(self._upsert, [draft for _, drafts in found for draft in drafts]))
        except Stopped:
            raise
        except Exception:
            log.exception("matcher.record_failed")
            for task, drafts in found:
                self._attempt(task, partial(self._upsert, drafts))

    def _upsert(self, drafts: list[MatchDraft]) -> list[MatchDraft]:
        with self._services.database.write() as tx:
            new = [matches.upsert(tx, draft, self._services.clock.now()) for draft in drafts]
        _MATCHES.inc(sum(match is not None for match in new))
        return drafts

    def _hear(self, messages: Sequence[Message]) -> None:
        for message in messages:
            try:
                event = decode(message.value)
            except MessageInvalid as error:
                log.error("matcher.media_message_invalid", offset=message.offset, reason=error.details)
                continue
            if isinstance(event, MediaChanged):
                self._registry.heard(event)

    def _bury(self, message: Message, code: str, reason: str) -> None:
        _IMAGES.labels("dead").inc()
        log.warning("matcher.image_dead", code=code, reason=reason, partition=message.partition, offset=message.offset)
        self._patiently(lambda: self._services.bus.publish([dead_letter(message, code, reason)]))

    def _patiently(self, work: Callable[[], T]) -> T:
        """What the work gives, tried again for as long as a dependency is away. Raises Stopped."""
        return patiently(work, self._stop)


def patiently(work: Callable[[], T], stop: threading.Event) -> T:
    """What the work gives, tried again for as long as a dependency is away. Raises Stopped once `stop` is set."""
    while True:
        if stop.is_set():
            raise Stopped
        try:
            return work()
        except Unavailable as error:
            log.warning("matcher.waits", code=error.code, reason=error.details)
            stop.wait(error.retry_after)


def stretches(tasks: Sequence[Task]) -> Iterator[list[Task]]:
    """Tasks whose pictures lie near each other in one segment, in the order of their bytes: one read each."""
    stretch: list[Task] = []
    end = 0
    for task in sorted(tasks, key=lambda t: (t.event.bytes.key, t.event.bytes.offset)):
        if stretch and not _near(stretch[0].event.bytes, end, task.event.bytes):
            yield stretch
            stretch = []
        end = max(end, _end(task.event.bytes)) if stretch else _end(task.event.bytes)
        stretch.append(task)
    if stretch:
        yield stretch


def _end(place: StoredAt) -> int:
    return place.offset + place.length


def _near(first: StoredAt, end: int, place: StoredAt) -> bool:
    return first.key == place.key and place.offset - end <= _GAP and _end(place) - first.offset <= _STRETCH


def _waiting(future: Future[Picture] | None, load: Callable[[], Picture]) -> Callable[[], Picture]:
    """The decoded picture; on a second try it is read anew."""
    pending = [future] if future is not None else []

    def get() -> Picture:
        return pending.pop().result() if pending else load()

    return get


def _searches(services: Services, pipeline: Pipeline, stop: threading.Event) -> None:
    consumer = services.bus.consume(SEARCHES, GROUP)
    try:
        with Decoders(1) as decoders:
            while not stop.is_set():
                for message in patiently(partial(consumer.poll, _POLL_SECONDS, 1), stop):
                    answer(services, pipeline, decoders, message, stop)
                    patiently(partial(consumer.commit, [message]), stop)
    except Stopped:
        pass
    finally:
        consumer.close()


def answer(services: Services, pipeline: Pipeline, decoders: Decoders, message: Message, stop: threading.Event) -> None:
    """Answers one search; drops what came too late, since nobody waits for it any more."""
    try:
        event = decode(message.value)
        if not isinstance(event, SearchAsked):
            raise MessageInvalid(f"a message of type {type(event).__name__} is not for this topic")
    except MessageInvalid as error:
        _SEARCHES.labels("dead").inc()
        patiently(partial(services.bus.publish, [dead_letter(message, error.code, error.details)]), stop)
        return
    if services.clock.now() >= event.deadline:
        _SEARCHES.labels("late").inc()
        return
    reply = _reply(services, pipeline, decoders, event)
    _SEARCHES.labels(reply.error_code or "answered").inc()
    patiently(lambda: services.bus.publish([Outgoing(RESULTS, event.reply_to, encode(reply))]), stop)


def _reply(services: Services, pipeline: Pipeline, decoders: Decoders, event: SearchAsked) -> SearchAnswered:
    try:
        picture = decoders.read(services.store.get(event.key))
        return SearchAnswered(event.search, tuple(pipeline.search(event, picture)))
    except FiligraneError as error:
        return SearchAnswered(event.search, (), error.code, error.details)
    except Exception:
        log.exception("matcher.search_failed", search=event.search, request_id=event.request_id)
        return SearchAnswered(event.search, (), "internal", "the search failed")
