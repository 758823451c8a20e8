"""The bus on many machines: Apache Kafka, by kafka-python. What was decided about it, and why, is in docs/adr/0004."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Literal

from kafka import KafkaProducer, OffsetSpec, TopicPartition
from kafka.errors import MessageSizeTooLargeError, RecordListTooLargeError

from core import events
from core.bus import MessageTooLarge, Outgoing, check_size
from core.bus.kafka.clients import DELIVERY_SECONDS, Clients, translated
from core.bus.kafka.follower import KafkaFollower
from core.bus.kafka.member import KafkaConsumer
from core.bus.kafka.topics import Topics
from core.errors import Unavailable

_SETTLED_SECONDS: Final = DELIVERY_SECONDS + 5.0


class KafkaBus:
    """Implements `core.bus.Bus`. Thread-safe; a process that was forked opens its own clients."""

    def __init__(
        self,
        servers: str,
        *,
        partitions: int = 8,
        prefix: str = "",
        options: Mapping[str, Any] | None = None,
        api_version: str = "",
        compacted: Collection[str] = (events.MEDIA,),
    ) -> None:
        """Asks the brokers (`host:port,host:port`) whether they are there. `prefix` begins the name of every topic and group.

        Raises:
            InvalidInput: an option that no client knows, or that is not to be changed.
            Unavailable: no broker answers within some seconds, or not to us.
        """
        self._clients = Clients(servers, options or {}, api_version)
        self._topics = Topics(self._clients, prefix, partitions, frozenset(compacted))
        self._prefix = prefix
        self._away = False
        self._trying = threading.Lock()
        self._clients.admin()

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Returns when all are acknowledged by every replica in sync; some may be there although this raises.

        Raises:
            InvalidInput: a topic's name or a message's size.
            Unavailable: within half a minute (`bus_timeout`), or at once while others have found no broker (`bus_unavailable`).
        """
        for message in messages:
            self._topics.name(message.topic)
            check_size(message, _size(message))
        if messages:
            with self._one_at_a_time_while_away():
                self._publish(messages)

    def consume(self, topic: str, group: str) -> KafkaConsumer:
        """A member, which joins with its first poll."""
        self._topics.name(topic)
        return KafkaConsumer(self._clients, self._topics, topic, f"{self._prefix}{group}")

    def follow(self, topic: str, start: Literal["earliest", "latest"]) -> KafkaFollower:
        """Raises Unavailable."""
        return KafkaFollower(self._clients, self._topics, topic, start)

    def lag(self, topic: str, group: str) -> int:
        """Raises Unavailable."""
        of_group = f"{self._prefix}{group}"
        name = self._topics.name(topic)
        partitions = [TopicPartition(name, p) for p in range(self._topics.look(topic).partitions)]
        ask = partial(self._clients.ask, "the lag of a group")
        committed = ask(lambda admin: admin.list_group_offsets({of_group: partitions})[of_group])
        begins = ask(lambda admin: admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.EARLIEST)))
        ends = ask(lambda admin: admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST)))
        done = {p: max(begins[p].offset, committed[p].offset if p in committed else 0) for p in partitions}
        return sum(max(0, ends[p].offset - done[p]) for p in partitions)

    def identity(self, topic: str) -> str:
        """Raises Unavailable."""
        return self._topics.look(topic).id

    def close(self) -> None:
        """Takes a few seconds at most; consumers and followers are closed by their owners."""
        self._clients.close()

    def _publish(self, messages: Sequence[Outgoing]) -> None:
        try:
            for topic in {message.topic for message in messages}:
                self._topics.ensure(topic)
            producer = self._clients.producer()
            try:
                with translated("publishing"):
                    self._send(producer, messages)
            except Unavailable:
                self._clients.drop_producer(producer)  # what it remembers of a topic that was made anew may hold up all that follows
                raise
        except Unavailable:
            self._topics.forget()  # one of them may be gone, and is made again the next time
            raise

    def _send(self, producer: KafkaProducer, messages: Sequence[Outgoing]) -> None:
        until = time.monotonic() + _SETTLED_SECONDS
        futures = []
        try:
            for message in messages:
                headers = [(name, value.encode()) for name, value in message.headers.items()]
                futures.append(producer.send(self._topics.name(message.topic), message.value, message.key.encode(), headers))
        finally:
            # all is acknowledged or given up: none may arrive after we said that it failed
            producer.flush(max(0.0, until - time.monotonic()))
        try:
            for future in futures:
                future.get(0)
        except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
            raise MessageTooLarge("a message is larger than the brokers take: see their message.max.bytes") from error

    @contextmanager
    def _one_at_a_time_while_away(self) -> Iterator[None]:
        """Once a publish has failed, one caller tries and the others are told at once, instead of all waiting out the deadline."""
        alone = self._away
        if alone and not self._trying.acquire(blocking=False):
            raise Unavailable("the Kafka brokers are away: another publish waits for them", code="bus_unavailable")
        try:
            yield
            self._away = False
        except Unavailable:
            self._away = True
            raise
        finally:
            if alone:
                self._trying.release()


def _size(message: Outgoing) -> int:
    headers = sum(len(name.encode()) + len(value.encode()) for name, value in message.headers.items())
    return len(message.key.encode()) + len(message.value) + headers
