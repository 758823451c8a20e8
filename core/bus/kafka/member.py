"""A member of a consumer group: what it may commit, how it stays, and how it comes back."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import kafka
from kafka import ConsumerRebalanceListener, OffsetAndMetadata, TopicPartition
from kafka.errors import CommitFailedError, RebalanceInProgressError
from kafka.structs import MemberState

from core.bus import Message, fenced_total, last_offsets
from core.bus.kafka.clients import Clients, translated
from core.bus.kafka.reader import Reader, Records, log
from core.bus.kafka.topics import Topic, Topics
from core.errors import Unavailable
from core.telemetry import counter

_SLICE: Final = 1.0  # seconds of one poll of the client at most
_STUCK_SECONDS: Final = 10.0
_REBALANCE_SECONDS: Final = 10.0
_GROUP_MS: Final = 10_000
remade_total = counter("filigrane_bus_members_remade_total", "Members whose rejoin did not end, and that were made anew.", ["topic"])


class KafkaConsumer(Reader):
    """Implements `core.bus.Consumer`.

    `fenced` counts partitions whose commit came too late: they had gone to another member, which gets those messages again.
    """

    def __init__(self, clients: Clients, topics: Topics, topic: str, group: str) -> None:
        super().__init__(clients, topics, topic)
        self.fenced = 0
        self._group = group
        self._seen: Topic | None = None
        self._turns = itertools.count()
        self._unsettled_since: float | None = None
        self._assignments: deque[_Assignment] = deque()
        self._last = _NONE
        self._owned: dict[int, int] = {}
        self._delivered: dict[int, int] = {}
        self._committed: dict[int, int] = {}
        self._ready: deque[Message] = deque()

    def poll(self, timeout: float, max_messages: int = 100) -> list[Message]:
        """Raises Unavailable. May take a second longer while partitions are being shared out."""
        until = time.monotonic() + timeout
        while True:
            messages = self._kept(max_messages) or self._poll(until - time.monotonic(), max_messages)
            if messages or time.monotonic() >= until:
                return messages

    def commit(self, messages: Sequence[Message]) -> None:
        """Raises Unavailable; then the same may be committed again."""
        self._check_process()
        offsets = self._committable(last_offsets(messages))
        if offsets:
            self._commit(offsets)
        elif self._client is not None:
            self._stay()

    def missed(self) -> bool:
        missed, self._missed = self._missed, False
        return missed

    # --- reading

    def _poll(self, seconds: float, limit: int) -> list[Message]:
        client = self._joined()
        if (found := self._look()) is not None:
            if self._seen is not None and found.id != self._seen.id:
                self._begin_anew(client)
            self._seen = found
        return self._turn(client, min(max(seconds, 0.0), _SLICE), limit)

    def _turn(self, client: kafka.KafkaConsumer, seconds: float, limit: int) -> list[Message]:
        """One poll of the client, and what it tells of the group. Takes a second where partitions are being shared out."""
        if not _is_settled(client):
            # kafka-python 3.0.12 forgets a rejoin that outlasts a poll, and throws away one that ends between two: see docs/adr/0004
            client._coordinator.request_rejoin()
            seconds = _SLICE
        records = self._fetch(client, seconds, limit)
        messages = self._handed(self._take_part(client, records))
        self._watch(client)
        return messages

    def _joined(self) -> kafka.KafkaConsumer:
        self._check_process()
        if self._client is None:
            self._topics.ensure(self.topic)
            self._client = self._clients.consumer(self._group)
            self._client.subscribe([self._name], listener=_Listener(self._client, self._assignments))
        return self._client

    def _begin_anew(self, client: kafka.KafkaConsumer) -> None:
        """The topic was deleted and made again: the offsets that we hold are of the other one."""
        self._note_missed(None, "topic_made_anew")
        self._delivered.clear()
        self._committed.clear()
        self._ready.clear()
        for partition in client.assignment():
            client.seek(partition, 0)

    def _handed(self, records: Records) -> list[Message]:
        for partition, of_partition in records.items():
            number = partition.partition
            if not self._holds(number):
                self._committed[number] = of_partition[0].offset
            self._delivered[number] = self._owned[number]
        return self._messages(records)

    def _kept(self, limit: int) -> list[Message]:
        """Messages that came while the member only meant to stay, of partitions that are still its own."""
        kept = [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]
        return [message for message in kept if self._holds(message.partition)]

    # --- the group

    def _take_part(self, client: kafka.KafkaConsumer, records: Records) -> Records:
        """Follows the assignments that the poll brought; gives back the records of partitions whose position is right."""
        lapsed: set[int] = set()
        while self._assignments:
            lapsed |= self._take(self._assignments.popleft())
        if stale := [p for p in client.assignment() if p.partition in lapsed]:
            self._return_to_committed(client, stale)
        return {p: of_partition for p, of_partition in records.items() if p.partition in self._owned and p not in stale}

    def _take(self, assignment: _Assignment) -> frozenset[int]:
        """Ownership goes on only from one generation to the next; else somebody else may have had the partition in between.

        Returns those for which the client may still hold a position from before.
        """
        last, self._last = self._last, assignment
        goes_on = assignment.member == last.member and assignment.generation == last.generation + 1
        before = self._owned if goes_on else {}
        self._owned = {p: before[p] if p in before else next(self._turns) for p in assignment.partitions}
        return frozenset() if goes_on else assignment.partitions & last.partitions

    def _return_to_committed(self, client: kafka.KafkaConsumer, partitions: Collection[TopicPartition]) -> None:
        try:
            with translated("the group's offsets"):
                for partition in partitions:
                    committed = client.committed(partition, timeout_ms=_GROUP_MS)
                    if committed is None:
                        self._begin_again(client, {partition: None})
                    else:
                        client.seek(partition, committed)
        except Unavailable:
            self.close()  # its positions are of no use; a new client begins at what is committed
            raise

    def _holds(self, partition: int) -> bool:
        """Whether the partition has been ours ever since its last messages were handed out."""
        return partition in self._owned and self._delivered.get(partition) == self._owned[partition]

    def _watch(self, client: kafka.KafkaConsumer) -> None:
        """A rejoin that does not end, for whatever reason, does so without a word: then a new client takes this one's place."""
        now = time.monotonic()
        if _is_settled(client):
            self._unsettled_since = None
        elif self._unsettled_since is None:
            self._unsettled_since = now
        elif now - self._unsettled_since > _STUCK_SECONDS:
            log.warning("bus.member_remade", topic=self.topic, group=self._group)
            remade_total.labels(self.topic).inc()
            self.close()

    def close(self) -> None:
        super().close()
        self._forget()

    def _forget(self) -> None:
        """Nothing is ours any more; the listener of an old client writes to its own list."""
        self._unsettled_since = None
        self._assignments = deque()
        self._last = _NONE
        self._owned = {}
        self._ready = deque()

    # --- committing

    def _committable(self, last: Mapping[int, int]) -> dict[TopicPartition, OffsetAndMetadata]:
        """What to tell the group: nothing of partitions that were lost (they are counted), and never less than before."""
        for partition in last:
            if not self._holds(partition):
                self._note_fenced(partition)
        return {
            self._partition(partition): OffsetAndMetadata(offset + 1, "", -1)
            for partition, offset in last.items()
            if self._holds(partition) and offset >= self._committed.get(partition, 0)
        }

    def _commit(self, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        """Tells the group; waits for a rebalance to end, and then tells it what is still ours."""
        until = time.monotonic() + _REBALANCE_SECONDS
        while offsets and not self._told(offsets):
            if time.monotonic() >= until:
                self._owned.clear()
            self._stay()
            for partition in [p for p in offsets if not self._holds(p.partition)]:
                self._note_fenced(partition.partition)
                del offsets[partition]

    def _told(self, offsets: dict[TopicPartition, OffsetAndMetadata]) -> bool:
        """False while the group is rebalancing, or when this is no member of it any more."""
        client = self._joined()
        with translated("committing"):
            try:
                client.commit(offsets, timeout_ms=_GROUP_MS)
            except RebalanceInProgressError:
                return False
            except CommitFailedError as error:
                if not any(isinstance(cause, RebalanceInProgressError) for cause in error.args):
                    self._owned.clear()
                return False
        self._committed.update({partition.partition: told.offset for partition, told in offsets.items()})
        return True

    def _stay(self) -> None:
        """Says that this member is alive, and takes part in a rebalance; what it reads in passing is kept for the next poll."""
        client = self._joined()
        client.pause(*client.assignment())
        self._ready.extend(self._turn(client, 0.0, 1))
        remade = self._client is not client
        if not remade:
            client.resume(*client.paused())

    def _note_fenced(self, partition: int) -> None:
        self.fenced += 1
        fenced_total.labels(self.topic).inc()
        log.warning("bus.commit_too_late", topic=self.topic, partition=partition)


@dataclass(frozen=True, slots=True)
class _Assignment:
    """What the group gave to this member."""

    member: str
    generation: int
    partitions: frozenset[int]


_NONE: Final = _Assignment("", -1, frozenset())


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Writes down each assignment; called by the client's own thread, in the midst of a poll."""

    def __init__(self, client: kafka.KafkaConsumer, assignments: deque[_Assignment]) -> None:
        self._client = client
        self._assignments = assignments

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        group = self._client.group_metadata()
        self._assignments.append(_Assignment(group.member_id, group.generation_id, frozenset(p.partition for p in assigned)))

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        pass


def _is_settled(client: kafka.KafkaConsumer) -> bool:
    return bool(client.group_metadata().state == MemberState.STABLE)
