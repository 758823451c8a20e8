"""Pictures that crawls found: a poll's messages become matches, or, where what is registered is divided into shards, features for them.

They are worked on together: one read per stretch of a segment, decoding in the pool, matches in as few transactions as is kind to others;
then the commit. Everything is idempotent: what is interrupted comes again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import NamedTuple

import msgspec
import structlog

from core.bus import Message, Outgoing
from core.events import FEATURES, IMAGES, FeaturesFound, ImageFound, encode
from core.repo import accounts
from core.repo.matches import MatchDraft
from core.services import Services
from matcher.copies.features import Fingerprint
from matcher.crawled.writer import CrawledWriter, Found
from matcher.decode import Decoders
from matcher.member import Member, Stopped
from matcher.pipeline import Pipeline, Source
from matcher.reading import Reader, Task
from matcher.tasks import Tasks, outcomes

log = structlog.get_logger()


def run(services: Services, pipeline: Pipeline, stop: threading.Event) -> None:
    """Works as a member of the group on the topic `images` until `stop` is set."""
    with suppress(Stopped), ExitStack() as opened:
        decoders = opened.enter_context(Decoders())
        images = (Images if pipeline.shard.alone else Spreading)(services, pipeline, decoders, stop)
        opened.callback(images.close)
        opened.callback(decoders.abandon)
        log.info("matcher.running", shard=str(pipeline.shard))
        Member(services, IMAGES, stop, images.work, at_once=Tasks.AT_ONCE, missed=images.missed).run()


class _Seen(NamedTuple):
    """What is written of a picture, so that it can be searched, and what is in it."""

    task: Task
    crawled: Found
    drafts: list[MatchDraft]


class Images:
    """What is done with the messages of a poll; used by one thread."""

    def __init__(self, services: Services, pipeline: Pipeline, decoders: Decoders, stop: threading.Event) -> None:
        self._services = services
        self._pipeline = pipeline
        self._tasks = Tasks(services, IMAGES, stop)
        self._reader = Reader(services, decoders, stop)
        self._crawled = CrawledWriter(services)
        self.missed = self._tasks.missed
        self.close = self._reader.close

    def work(self, messages: Sequence[Message]) -> None:
        """Everything that the messages ask for, up to the matches being recorded. Raises Stopped."""
        tasks = self._tasks.wanted(messages)
        versions = self._tasks.patiently(partial(_versions, self._services, tasks))
        found = [seen for task, source in self._sources(tasks) if (seen := self._see(_caught_up(task, versions), source)) is not None]
        self._tasks.patiently(partial(self._crawled.store, [seen.crawled for seen in found]))
        for seen in found:
            outcomes.labels("matched" if seen.drafts else "nothing").inc()
        found += self._registered_since(found, versions)
        self._tasks.record([(seen.task, seen.drafts) for seen in found if seen.drafts])

    def _see(self, task: Task, source: Source) -> _Seen | None:
        """What is in the picture; None once its message lies with the dead letters, or is of no use to us."""

        def look() -> _Seen:
            print_ = self._pipeline.fingerprint(task.event.sha256, source) if self._crawled.wants(task.event) else None
            return _Seen(task, self._crawled.found(task.event, print_), self._pipeline.matches(task.event, source))

        return self._tasks.attempt(task, look)

    def _registered_since(self, found: Sequence[_Seen], versions: Mapping[int, int]) -> list[_Seen]:
        """What is in the pictures of that which was registered while they were worked on.

        The registrar commits, then the crawled files are looked through; here the file was committed, and the versions are read after it:
        one of both always sees the other.
        """
        now = self._tasks.patiently(partial(_versions, self._services, [seen.task for seen in found]))
        late = [seen.task for seen in found if _has_risen(seen.task.event, versions, now)]
        again = (self._see(_caught_up(task, now), self._reader.source(task.event)) for task in late)
        return [seen for seen in again if seen is not None]

    def _sources(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Source]]:
        """Each task with a way to its picture; those first that the cache answers."""
        needed = []
        for task in tasks:
            if not self._crawled.wants(task.event) and self._tasks.patiently(partial(self._pipeline.known, task.event)):
                yield task, self._reader.source(task.event)
            else:
                needed.append(task)
        yield from self._reader.pictures(needed)


class _Decoded(NamedTuple):
    """What is written of a picture, so that it can be searched, and what is published."""

    task: Task
    crawled: Found
    print_: Fingerprint


class Spreading:
    """Decodes each picture once, for all shards; used by one thread."""

    def __init__(self, services: Services, pipeline: Pipeline, decoders: Decoders, stop: threading.Event) -> None:
        self._services = services
        self._pipeline = pipeline
        self._tasks = Tasks(services, IMAGES, stop)
        self._reader = Reader(services, decoders, stop)
        self._crawled = CrawledWriter(services)
        self.missed = self._tasks.missed
        self.close = self._reader.close

    def work(self, messages: Sequence[Message]) -> None:
        """Features of the pictures that the messages tell of, published. Raises Stopped."""
        tasks = self._tasks.wanted(messages)
        found = [seen for task, source in self._reader.pictures(tasks) if (seen := self._see(task, source)) is not None]
        self._tasks.patiently(partial(self._crawled.store, [seen.crawled for seen in found]))
        # read after the crawled file was committed: what is registered later is looked for in it
        versions = self._tasks.patiently(partial(_versions, self._services, [seen.task for seen in found]))
        known = [(_caught_up(seen.task, versions).event, seen.print_) for seen in found]
        outgoing = [features(event, print_) for event, print_ in known if event.registry_version or event.shared]
        self._tasks.patiently(partial(self._services.bus.publish, outgoing))
        outcomes.labels("spread").inc(len(found))

    def _see(self, task: Task, source: Source) -> _Decoded | None:
        """None once its message lies with the dead letters, or is of no use to us."""

        def look() -> _Decoded:
            print_, wanted = self._pipeline.fingerprint(task.event.sha256, source), self._crawled.wants(task.event)
            return _Decoded(task, self._crawled.found(task.event, print_ if wanted else None), print_)

        return self._tasks.attempt(task, look)


def features(event: ImageFound, print_: Fingerprint) -> Outgoing:
    """The message for the shards."""
    return Outgoing(FEATURES, event.sha256, encode(FeaturesFound(event, print_.to_bytes())), {"request_id": event.request_id})


def _versions(services: Services, tasks: Sequence[Task]) -> dict[int, int]:
    """Of the registries that pictures are matched against."""
    shared = any(task.event.shared for task in tasks)
    with services.database.read() as tx:
        return accounts.registry_versions(tx, None if shared else {task.event.account for task in tasks})


def _caught_up(task: Task, versions: Mapping[int, int]) -> Task:
    """The task, to be matched against what is registered by now."""
    version = max(task.event.registry_version, versions.get(task.event.account, 0))
    return task._replace(event=msgspec.structs.replace(task.event, registry_version=version))


def _has_risen(event: ImageFound, before: Mapping[int, int], now: Mapping[int, int]) -> bool:
    return before != now if event.shared else before.get(event.account) != now.get(event.account)
