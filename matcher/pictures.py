"""Pictures of a poll, for whoever makes something of them: each is looked at, and what makes it searchable is stored."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Generic, NamedTuple, TypeVar

import msgspec

from core.bus import Message
from core.events import IMAGES, ImageFound
from core.repo import accounts
from core.services import Services
from matcher.crawled.writer import CrawledWriter, Found
from matcher.decode import Decoders
from matcher.pipeline import Pipeline, Source
from matcher.reading import Reader, Task
from matcher.tasks import Tasks

T = TypeVar("T")


class Seen(NamedTuple, Generic[T]):
    """What is written of a picture, so that it can be searched, and what was made of it."""

    task: Task
    crawled: Found
    made: T


class Pictures(ABC, Generic[T]):
    """What is done with the messages of a poll; used by one thread."""

    def __init__(self, services: Services, pipeline: Pipeline, decoders: Decoders, stop: threading.Event) -> None:
        self._services = services
        self._pipeline = pipeline
        self._tasks = Tasks(services, IMAGES, stop)
        self._reader = Reader(services, decoders, stop)
        self._crawled = CrawledWriter(services)
        self.missed = self._tasks.missed
        self.close = self._reader.close

    @abstractmethod
    def work(self, messages: Sequence[Message]) -> None:
        """Everything that the messages ask for. Raises Stopped."""

    @abstractmethod
    def _make(self, event: ImageFound, source: Source) -> T:
        """Raises Unavailable, and what `source` does."""

    def _is_known(self, event: ImageFound) -> bool:
        """Whether the picture need not be decoded again. Raises Unavailable."""
        return self._pipeline.has_fingerprint(event.sha256)

    def _look(self, tasks: Sequence[Task]) -> list[Seen[T]]:
        """Those of them that can be used, stored to be searched; the others' messages lie with the dead letters. Raises Stopped."""
        seen = [found for task, source in self._sources(tasks) if (found := self._see(task, source)) is not None]
        self._tasks.patiently(partial(self._crawled.store, [each.crawled for each in seen]))
        return seen

    def _see(self, task: Task, source: Source) -> Seen[T] | None:
        """None once its message lies with the dead letters, or is of no use to us. Raises Stopped."""
        event = task.event

        def look() -> Seen[T]:
            print_ = self._pipeline.fingerprint(event.sha256, source) if self._crawled.wants(event) else None
            return Seen(task, self._crawled.found(event, print_), self._make(event, source))

        return self._tasks.attempt(task, look)

    def _sources(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Source]]:
        """Each task with a way to its picture; those first that a cache answers."""
        needed = []
        for task in tasks:
            if self._tasks.patiently(partial(self._is_known, task.event)):
                yield task, self._reader.source(task.event)
            else:
                needed.append(task)
        yield from self._reader.pictures(needed)

    def _versions(self, tasks: Sequence[Task]) -> dict[int, int]:
        """Of the registries that the pictures are matched against. Raises Stopped."""
        return self._tasks.patiently(partial(_versions, self._services, tasks))


def _versions(services: Services, tasks: Sequence[Task]) -> dict[int, int]:
    shared = any(task.event.shared for task in tasks)
    with services.database.read() as tx:
        return accounts.registry_versions(tx, None if shared else {task.event.account for task in tasks})


def caught_up(task: Task, versions: Mapping[int, int]) -> Task:
    """The task, to be matched against what is registered by now."""
    version = max(task.event.registry_version, versions.get(task.event.account, 0))
    return task._replace(event=msgspec.structs.replace(task.event, registry_version=version))
