"""What is to be processed: the bus's seam. `embedded` is a durable log in one SQLite file, Kafka joins it behind the same protocol.

A topic has partitions; messages of one key keep their order in one partition. Two ways to read: as a member of a group (each
partition belongs to one member at a time, progress is committed after the work), or following (every partition, no group, no commits).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Outgoing:
    topic: str
    key: str
    value: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Message:
    topic: str
    partition: int
    offset: int
    key: str
    value: bytes
    headers: Mapping[str, str]


class Consumer(Protocol):
    """A member of a group. Used by one thread."""

    def poll(self, timeout: float, max_messages: int = 100) -> list[Message]:
        """What is next in this member's partitions; waits up to `timeout` seconds for the first one."""

    def commit(self, messages: Sequence[Message]) -> None:
        """These, and all before them in their partitions, are done. What was not committed comes again, here or to another member."""

    def close(self) -> None:
        """Leaves the group; others take over at once."""


class Follower(Protocol):
    """Reads all partitions of a topic, alone. Used by one thread."""

    def poll(self, timeout: float, max_messages: int = 100) -> list[Message]: ...

    def close(self) -> None: ...


class Bus(Protocol):
    """Thread-safe; one per process."""

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Returns when all are durable (acknowledged). Raises Unavailable."""

    def consume(self, topic: str, group: str) -> Consumer: ...

    def follow(self, topic: str, start: Literal["earliest", "latest"]) -> Follower:
        """`latest` is fixed before this returns: whatever is published afterwards is seen."""

    def lag(self, topic: str, group: str) -> int:
        """Messages of the topic that the group has not committed."""

    def close(self) -> None: ...


def dead_letter(message: Message, code: str, reason: str) -> Outgoing:
    """The message for `<topic>.dead`: original bytes, why, and the request id that it carried."""
    headers = {**message.headers, "code": code, "reason": reason[:500], "source": f"{message.topic}/{message.partition}/{message.offset}"}
    return Outgoing(f"{message.topic}.dead", message.key, message.value, headers)
