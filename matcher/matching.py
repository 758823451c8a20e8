"""A shard's work: features that were published once for all shards become matches with what this one holds."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial

from core.bus import Message
from core.errors import InvalidImage
from core.events import FEATURES
from core.repo.matches import MatchDraft
from core.services import Services
from matcher.copies.features import Fingerprint, FingerprintInvalid
from matcher.decode import Decoders
from matcher.member import Member, Stopped
from matcher.pipeline import Pipeline, Source
from matcher.reading import Reader, Task
from matcher.tasks import Tasks, outcomes


def run(services: Services, pipeline: Pipeline, stop: threading.Event) -> None:
    """Works as a member of the shard's group on the topic `features` until `stop` is set."""
    with suppress(Stopped), ExitStack() as opened:
        decoders = opened.enter_context(Decoders(1))
        matching = Matching(services, pipeline, decoders, stop)
        opened.callback(matching.close)
        opened.callback(decoders.abandon)
        Member(services, FEATURES, stop, matching.work, at_once=Tasks.AT_ONCE, group=pipeline.shard.group, missed=matching.missed).run()


class Matching:
    """What is done with the messages of a poll; used by one thread."""

    def __init__(self, services: Services, pipeline: Pipeline, decoders: Decoders, stop: threading.Event) -> None:
        self._pipeline = pipeline
        self._tasks = Tasks(services, FEATURES, stop)
        self._reader = Reader(services, decoders, stop)
        self.missed = self._tasks.missed
        self.close = self._reader.close

    def work(self, messages: Sequence[Message]) -> None:
        """Everything that the messages ask for, up to the matches being recorded. Raises Stopped."""
        tasks = self._tasks.wanted(messages)
        seen = [(task, drafts) for task in tasks if (drafts := self._tasks.attempt(task, partial(self._matches, task))) is not None]
        for _, drafts in seen:
            outcomes.labels("matched" if drafts else "nothing").inc()
        self._tasks.record([(task, drafts) for task, drafts in seen if drafts])

    def _matches(self, task: Task) -> list[MatchDraft]:
        return self._pipeline.matches(task.event, Source(partial(_fingerprint, task), self._reader.source(task.event).pixels))


def _fingerprint(task: Task) -> Fingerprint:
    try:
        return Fingerprint.from_bytes(task.fingerprint)
    except FingerprintInvalid as error:
        raise InvalidImage(f"the features cannot be read: {error}", code="features_invalid") from error
