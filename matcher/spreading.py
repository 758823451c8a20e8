"""Pictures that crawls found become features for the shards that what is registered is divided into."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from core.bus import Message, Outgoing
from core.events import FEATURES, FeaturesFound, ImageFound, encode
from matcher.copies.features import Fingerprint
from matcher.pictures import Pictures, caught_up
from matcher.pipeline import Source
from matcher.tasks import outcomes


class Spreading(Pictures[Fingerprint]):
    """Decodes each picture once, for all shards."""

    def work(self, messages: Sequence[Message]) -> None:
        """Features of the pictures that the messages tell of, published. Raises Stopped."""
        seen = self._look(self._tasks.wanted(messages))
        # read after the crawled file was committed: what is registered later is looked for in it
        versions = self._versions([each.task for each in seen])
        known = [(caught_up(each.task, versions).event, each.made) for each in seen]
        outgoing = [features(event, print_) for event, print_ in known if event.registry_version or event.shared]
        self._tasks.patiently(partial(self._services.bus.publish, outgoing))
        outcomes.labels("spread").inc(len(seen))

    def _make(self, event: ImageFound, source: Source) -> Fingerprint:
        return self._pipeline.fingerprint(event.sha256, source)


def features(event: ImageFound, print_: Fingerprint) -> Outgoing:
    """The message for the shards."""
    return Outgoing(FEATURES, event.sha256, encode(FeaturesFound(event, print_.to_bytes())), {"request_id": event.request_id})
