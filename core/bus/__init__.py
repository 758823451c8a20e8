"""What is to be processed: the bus's seam. `embedded` is a durable log in one SQLite file, `kafka` a cluster.

A topic has partitions; messages of one key keep their order in one partition. Two ways to read: as a member of a group (each
partition belongs to one member at a time, progress is committed after the work), or following (every partition, no group, no commits).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from core.errors import InvalidInput
from core.events import FEATURES
from core.telemetry import counter

MAX_MESSAGE_BYTES: Final = 1_000_000
RETENTION_DAYS: Final = 7
"""How long messages are kept, at least; dead letters for ever, of a compacted topic the last of each key."""
_SHORT: Final = {FEATURES: 1}
"""Large messages, which can be made again from others."""
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")

missed_total = counter("filigrane_bus_missed_total", "Times that messages were found to be gone before a reader had them.", ["topic"])
fenced_total = counter("filigrane_bus_fenced_total", "Commits of partitions that had gone to another member.", ["topic"])


class MessageTooLarge(InvalidInput):
    """Key, value and headers together are above MAX_MESSAGE_BYTES, or what a broker takes."""

    default_code = "message_too_large"


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
        """These, and all before them in their partitions, are done. What was not committed comes again, here or to another member.

        Partitions that have gone to another member are left alone and counted. `commit(())` says that this member is alive, which
        work of more than some seconds has to say now and then.
        """

    def missed(self) -> bool:
        """Whether messages were dropped before this member had them, found since the last call.

        Ask after `poll` and before `commit`: what was found is found again by another member until something later is committed.
        """

    def close(self) -> None:
        """Leaves the group; others take over at once."""


class Follower(Protocol):
    """Reads all partitions of a topic, alone. Used by one thread."""

    def poll(self, timeout: float, max_messages: int = 100) -> list[Message]: ...

    def close(self) -> None: ...


class Bus(Protocol):
    """Thread-safe; one per process."""

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Returns when all are durable (acknowledged).

        Raises:
            InvalidInput: a topic's name; MessageTooLarge. Nothing was published.
            Unavailable: some may have been published; publish all again. None of them arrives on its own after this was raised.
        """

    def consume(self, topic: str, group: str) -> Consumer: ...

    def follow(self, topic: str, start: Literal["earliest", "latest"]) -> Follower:
        """`latest` is fixed before this returns: whatever is published afterwards is seen."""

    def lag(self, topic: str, group: str) -> int:
        """Messages of the topic that the group has not committed."""

    def identity(self, topic: str) -> str:
        """Changes when the topic was deleted and made anew: whoever remembers another one knows that messages are gone."""

    def close(self) -> None: ...


def checked(topic: str) -> str:
    """The topic's name. Raises InvalidInput."""
    if not _TOPIC.fullmatch(topic):
        raise InvalidInput(f"not a topic's name: {topic!r}", code="topic_invalid")
    return topic


def retention_days(topic: str) -> int:
    """How long a cluster keeps the topic's messages, at least."""
    return _SHORT.get(topic, RETENTION_DAYS)


def check_size(message: Outgoing, size: int) -> None:
    """Raises MessageTooLarge for one whose key, value and headers have more bytes than may be."""
    if size > MAX_MESSAGE_BYTES:
        raise MessageTooLarge(f"a message of {size} bytes for {message.topic}; at most {MAX_MESSAGE_BYTES} are possible")


def last_offsets(messages: Sequence[Message]) -> dict[int, int]:
    """Partition -> the last offset among the messages."""
    last: dict[int, int] = {}
    for message in messages:
        last[message.partition] = max(message.offset, last.get(message.partition, 0))
    return last


def dead_letter(message: Message, code: str, reason: str) -> Outgoing:
    """The message for `<topic>.dead`: original bytes, why, and the request id that it carried."""
    headers = {**message.headers, "code": code, "reason": reason[:500], "source": f"{message.topic}/{message.partition}/{message.offset}"}
    return Outgoing(f"{message.topic}.dead", message.key, message.value, headers)
