"""Pictures that crawls found: a poll's messages become matches, or, where what is registered is divided into shards, features for them.

They are worked on together: one read per stretch of a segment, decoding in the pool, matches in as few transactions as is kind to others;
then the commit. Everything is idempotent: what is interrupted comes again.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress

import structlog

from core.bus import Message
from core.events import IMAGES, ImageFound
from core.repo.matches import MatchDraft
from core.services import Services
from matcher.decode import Decoders
from matcher.member import Member, Stopped
from matcher.pictures import Pictures, Seen, caught_up
from matcher.pipeline import Pipeline, Source
from matcher.spreading import Spreading
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


class Images(Pictures[list[MatchDraft]]):
    """Matches them with everything that is registered."""

    def work(self, messages: Sequence[Message]) -> None:
        """Everything that the messages ask for, up to the matches being recorded. Raises Stopped."""
        tasks = self._tasks.wanted(messages)
        versions = self._versions(tasks)
        seen = self._look([caught_up(task, versions) for task in tasks])
        for each in seen:
            outcomes.labels("matched" if each.made else "nothing").inc()
        seen += self._registered_since(seen, versions)
        self._tasks.record([(each.task, each.made) for each in seen if each.made])

    def _make(self, event: ImageFound, source: Source) -> list[MatchDraft]:
        return self._pipeline.matches(event, source)

    def _is_known(self, event: ImageFound) -> bool:
        return super()._is_known(event) or (not self._crawled.wants(event) and self._pipeline.known(event))

    def _registered_since(self, seen: Sequence[Seen[list[MatchDraft]]], versions: Mapping[int, int]) -> list[Seen[list[MatchDraft]]]:
        """What is in the pictures of that which was registered while they were worked on.

        The registrar commits, then the crawled files are looked through; here the file was committed, and the versions are read after it:
        one of both always sees the other.
        """
        now = self._versions([each.task for each in seen])
        late = [caught_up(each.task, now) for each in seen if _has_risen(each.task.event, versions, now)]
        again = (self._see(task, self._reader.source(task.event)) for task in late)
        return [each for each in again if each is not None]


def _has_risen(event: ImageFound, before: Mapping[int, int], now: Mapping[int, int]) -> bool:
    return before != now if event.shared else before.get(event.account) != now.get(event.account)
