"""A follower: every partition, no group, no commits."""

from __future__ import annotations

from typing import Literal

from core.bus import Message
from core.bus.kafka.clients import Clients, translated
from core.bus.kafka.reader import Reader
from core.bus.kafka.topics import Topic, Topics
from core.errors import Unavailable


class KafkaFollower(Reader):
    """Implements `core.bus.Follower`. Partitions that are added later are read from their beginning."""

    def __init__(self, clients: Clients, topics: Topics, topic: str, start: Literal["earliest", "latest"]) -> None:
        """Raises Unavailable."""
        super().__init__(clients, topics, topic)
        self._seen: Topic = topics.look(topic)
        self._client = clients.consumer(None)
        partitions = [self._partition(number) for number in range(self._seen.partitions)]
        try:
            with translated("the ends of a topic"):
                self._client.assign(partitions)
                offsets = self._client.end_offsets(partitions) if start == "latest" else self._client.beginning_offsets(partitions)
        except Unavailable:  # who tries again until the brokers are back would leave a client each time
            self.close()
            raise
        for partition, offset in offsets.items():
            self._client.seek(partition, offset)

    def poll(self, timeout: float, max_messages: int = 100) -> list[Message]:
        """Raises Unavailable."""
        self._check_process()
        assert self._client is not None, "closed"
        if (found := self._look()) is not None and found != self._seen:
            self._follow_changes(found)
        return self._messages(self._fetch(self._client, timeout, max_messages))

    def _follow_changes(self, found: Topic) -> None:
        assert self._client is not None
        anew = found.id != self._seen.id
        new = range(0 if anew else self._seen.partitions, found.partitions)
        self._client.assign([self._partition(number) for number in range(found.partitions)])
        for number in new:
            self._client.seek(self._partition(number), 0)
        if anew:
            self._note_missed(None, "topic_made_anew")
        self._seen = found
