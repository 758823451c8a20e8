"""Topics of the cluster: their names there, and made on first use, by whichever process is first."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from kafka import KafkaAdminClient
from kafka.errors import NoError, TopicAlreadyExistsError, UnknownTopicOrPartitionError

from core.bus import checked, retention_days
from core.bus.kafka.clients import Clients
from core.errors import InvalidInput, Unavailable

_LONGEST: Final = 249  # Kafka's own limit
_PATIENCE: Final = 10.0


@dataclass(frozen=True, slots=True)
class Topic:
    """What the cluster says of a topic."""

    id: str
    partitions: int


class Topics:
    """Thread-safe."""

    def __init__(self, clients: Clients, prefix: str, partitions: int, compacted: frozenset[str]) -> None:
        self._clients = clients
        self._prefix = prefix
        self._partitions = partitions
        self._compacted = compacted
        self._there: set[str] = set()

    def name(self, topic: str) -> str:
        """Its name in the cluster. Raises InvalidInput."""
        name = f"{self._prefix}{checked(topic)}"
        if len(name) > _LONGEST or name in (".", ".."):
            raise InvalidInput(f"not a topic's name in Kafka: {name!r}", code="topic_invalid")
        return name

    def ensure(self, topic: str) -> None:
        """Makes the topic, unless it was there when last looked at. Raises Unavailable."""
        if topic not in self._there:
            self.look(topic)

    def forget(self) -> None:
        """What is there is to be looked at again."""
        self._there = set()

    def look(self, topic: str) -> Topic:
        """What the cluster says now; a topic that is not there is made. Raises Unavailable."""
        name = self.name(topic)
        until = time.monotonic() + _PATIENCE
        while True:
            (found,) = self._clients.ask(f"the topic {name}", lambda admin: admin.describe_topics([name]))
            if _is_ready(found):
                self._there = self._there | {topic}
                return Topic(str(found["topic_id"]), len(found["partitions"]))
            if time.monotonic() > until:
                raise Unavailable(f"the topic {name} has no leaders", code="bus_timeout")
            if found["error_code"] == UnknownTopicOrPartitionError.errno:
                self._make(topic)
            time.sleep(0.05)

    def _make(self, topic: str) -> None:
        name = self.name(topic)
        config = {"num_partitions": self._partitions, "configs": self._config(topic)}

        def make(admin: KafkaAdminClient) -> None:
            with suppress(TopicAlreadyExistsError):  # made by another process; or it is being deleted, and not yet gone
                admin.create_topics({name: config})

        self._clients.ask(f"making the topic {name}", make)

    def _config(self, topic: str) -> dict[str, str]:
        if topic in self._compacted:
            return {"cleanup.policy": "compact"}
        milliseconds = -1 if topic.endswith(".dead") else retention_days(topic) * 86_400_000
        return {"cleanup.policy": "delete", "retention.ms": str(milliseconds)}


def _is_ready(found: Any) -> bool:
    """Whether the topic is there and each partition has a leader."""
    partitions = found["partitions"]
    return bool(found["error_code"] == NoError.errno and partitions and all(p["leader_id"] >= 0 for p in partitions))
