"""What members and followers have in common: one client, positions that never jump silently, messages from records."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

import kafka
import structlog
from kafka import TopicPartition
from kafka.errors import KafkaError, LogTruncationError, NoOffsetForPartitionError, OffsetOutOfRangeError

from core.bus import Message, missed_total
from core.bus.kafka.clients import Clients, translated
from core.bus.kafka.topics import Topic, Topics

LOOK_SECONDS: Final = 5.0
CLOSING_SECONDS: Final = 2.0
Records = Mapping[TopicPartition, list[Any]]

log = structlog.get_logger()


class Reader:
    """Reads one topic with a client of its own, in one thread of one process."""

    def __init__(self, clients: Clients, topics: Topics, topic: str) -> None:
        self.topic = topic
        self._clients = clients
        self._topics = topics
        self._name = topics.name(topic)
        self._pid = os.getpid()
        self._client: kafka.KafkaConsumer | None = None
        self._next_look = 0.0
        self._missed = False

    def close(self) -> None:
        """Idempotent; takes a few seconds at most."""
        if self._pid == os.getpid() and self._client is not None:
            client, self._client = self._client, None
            with suppress(KafkaError):  # it could not say that it goes: its session's end says so
                client.close(autocommit=False, timeout_ms=int(CLOSING_SECONDS * 1000))

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise RuntimeError("a reader of the bus was carried over a fork; open a consumer or follower in the process that uses it")

    def _partition(self, number: int) -> TopicPartition:
        return TopicPartition(self._name, number)

    def _fetch(self, client: kafka.KafkaConsumer, seconds: float, limit: int) -> Records:
        """What comes within that time. Where a position is not in the log (any more), the oldest message there comes next."""
        with translated("reading"):
            try:
                records: Records = client.poll(timeout_ms=int(seconds * 1000), max_records=limit)
                return records
            except OffsetOutOfRangeError as error:
                self._begin_again(client, error.args[0])
            except NoOffsetForPartitionError as error:
                self._begin_again(client, dict.fromkeys(error.args[0]))
            except LogTruncationError as error:  # the cluster has lost what it had acknowledged
                self._begin_again(client, dict.fromkeys(error.divergent_offsets, math.inf))
        return {}

    def _begin_again(self, client: kafka.KafkaConsumer, positions: Mapping[TopicPartition, float | None]) -> None:
        """Goes to the oldest message of partitions whose positions were lost; None is a position that never was."""
        for partition, begin in client.beginning_offsets(list(positions)).items():
            position = positions[partition]
            client.seek(partition, begin)
            if begin > 0 or position is not None:
                self._note_missed(partition.partition, "expired" if (position or 0) < begin else "truncated")

    def _note_missed(self, partition: int | None, reason: str) -> None:
        self._missed = True
        missed_total.labels(self.topic).inc()
        log.error("bus.messages_missed", topic=self.topic, partition=partition, reason=reason)

    def _look(self) -> Topic | None:
        """The topic as it is now, every few seconds; None in between. Raises Unavailable."""
        if time.monotonic() < self._next_look:
            return None
        found = self._topics.look(self.topic)
        self._next_look = time.monotonic() + LOOK_SECONDS
        return found

    def _messages(self, records: Records) -> list[Message]:
        return [self._message(record) for of_partition in records.values() for record in of_partition]

    def _message(self, record: Any) -> Message:
        return Message(self.topic, record.partition, record.offset, _text(record.key), bytes(record.value or b""), _headers(record.headers))


def _text(data: bytes | None) -> str:
    """Whoever wrote it: it is there to be read, or to be buried with a reason."""
    return bytes(data or b"").decode(errors="replace")


def _headers(pairs: Iterable[tuple[str, bytes | None]]) -> dict[str, str]:
    return {name: _text(value) for name, value in pairs}
