"""The bus on one machine: a durable log in one SQLite file, for any number of processes and threads. No broker, no background thread.

A group's partitions are leased to its members. A member renews its membership when it polls or commits (`commit(())` only renews);
one that is silent for `lease` seconds, or whose process is gone, is dropped by the others. Shares follow from the sorted list of
members, so all agree without talking. Leases use the machine's monotonic clock: changes of the wall clock do nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import re
import sqlite3
import threading
import time
import uuid
import zlib
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from core import events
from core.bus import Message, Outgoing, liveness
from core.bus.sqlite import Connection, News, prepare
from core.errors import FiligraneError, InvalidInput, Unavailable

MAX_MESSAGE_BYTES: Final = 1_000_000
_TRIM_ROWS: Final = 1000
_BEAT: Final = 1.0  # seconds between two renewals at most; they cost no sync
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")
_INSERT: Final = "INSERT OR REPLACE INTO log (topic, partition, key, value, headers, published, compacted) VALUES (?, ?, ?, ?, ?, ?, ?)"

logger = logging.getLogger(__name__)

_Row = tuple[str, int, str, bytes, str, float, int]


class MessageTooLarge(InvalidInput):
    """Key, value and headers together are above MAX_MESSAGE_BYTES."""

    default_code = "message_too_large"


def partition_of(key: str, partitions: int) -> int:
    """The partition of a key; the same in every process and version."""
    return zlib.crc32(key.encode()) % partitions


class EmbeddedBus:
    """Implements `core.bus.Bus`. Thread-safe; a process that was forked opens its own connections."""

    def __init__(self, path: Path, *, partitions: int = 8, lease: float = 30.0, compacted: Collection[str] = (events.MEDIA,)) -> None:
        """Opens the file or makes it; `partitions` counts only then.

        Raises:
            Unavailable: the file cannot be opened, is damaged, or comes from a newer version.
        """
        if partitions < 1 or lease <= 0:
            raise InvalidInput("partitions and lease must be positive")
        self.path = path
        self.lease = lease
        self._compacted = frozenset(compacted)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = _Writer(path)
        self._abandoned: list[_Writer] = []
        self.partitions = prepare(self._writer.connection, partitions)

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Returns when all are on the disk: all of them or none.

        Raises:
            InvalidInput: a topic's name or a message's size.
            Unavailable: the disk is full (`bus_full`), or the file locked or damaged.
        """
        if messages:
            self._open_writer().write([self._row(message) for message in messages])

    def consume(self, topic: str, group: str) -> EmbeddedConsumer:
        return EmbeddedConsumer(Connection(self.path, durable=False), _checked(topic), group, self.partitions, self.lease)

    def follow(self, topic: str, start: Literal["earliest", "latest"]) -> EmbeddedFollower:
        connection = Connection(self.path, durable=False)
        begin = (connection.value("SELECT seq FROM sqlite_sequence WHERE name = 'log'") or 0) if start == "latest" else 0
        return EmbeddedFollower(connection, _checked(topic), dict.fromkeys(range(self.partitions), begin))

    def lag(self, topic: str, group: str) -> int:
        writer = self._open_writer()
        with writer.lock:
            read = writer.connection
            committed = dict(read.rows("SELECT partition, committed FROM cursors WHERE topic = ? AND name = ?", topic, group))
            count = "SELECT count(*) FROM log WHERE topic = ? AND partition = ? AND seq > ?"
            return sum(read.value(count, topic, p, committed.get(p, 0)) for p in range(self.partitions))

    def trim(self, topic: str, before: datetime) -> int:
        """Drops what was published before that time and committed by every group that ever read the topic; returns how many.

        Compacted topics are left alone. Works in small transactions, so that publishers are not held up.
        """
        if topic in self._compacted:
            return 0
        return sum(self._trim_partition(topic, partition, before.timestamp()) for partition in range(self.partitions))

    def close(self) -> None:
        """Closes the publishing side; consumers and followers are closed by their owners."""
        self._writer.close()

    def _row(self, message: Outgoing) -> _Row:
        headers = json.dumps(dict(message.headers), separators=(",", ":"))
        size = len(message.key.encode()) + len(message.value) + len(headers)
        if size > MAX_MESSAGE_BYTES:
            raise MessageTooLarge(f"a message of {size} bytes for {message.topic}; at most {MAX_MESSAGE_BYTES} are possible")
        partition = partition_of(message.key, self.partitions)
        compacted = int(message.topic in self._compacted)
        return _checked(message.topic), partition, message.key, message.value, headers, time.time(), compacted

    def _open_writer(self) -> _Writer:
        if self._writer.connection.inherited:
            self._abandoned.append(self._writer)  # SQLite wants a connection that came over a fork left alone, not even closed
            self._writer = _Writer(self.path)
        return self._writer

    def _trim_partition(self, topic: str, partition: int, before: float) -> int:
        dropped = 0
        while True:
            writer = self._open_writer()
            with writer.lock, writer.connection.transaction() as raw:
                oldest = raw.execute(
                    "SELECT seq, published, seq <= coalesce((SELECT min(committed) FROM cursors WHERE topic = ?1 AND partition = ?2), seq)"
                    " FROM log WHERE topic = ?1 AND partition = ?2 ORDER BY seq LIMIT ?3",
                    (topic, partition, _TRIM_ROWS),
                ).fetchall()
                done = [(seq,) for seq, _, _ in itertools.takewhile(lambda row: row[1] < before and row[2], oldest)]
                raw.executemany("DELETE FROM log WHERE seq = ?", done)
            dropped += len(done)
            if len(done) < _TRIM_ROWS:
                return dropped


class _Writer:
    """The publishing connection. Who comes while another is writing joins the next transaction: one sync for all of them."""

    def __init__(self, path: Path) -> None:
        self.connection = Connection(path, durable=True)
        self.lock = threading.Lock()
        self._queue = threading.Lock()
        self._waiting: list[_Batch] = []

    def write(self, rows: Sequence[_Row]) -> None:
        batch = _Batch(rows)
        with self._queue:
            self._waiting.append(batch)
        with self.lock:
            if not batch.settled:
                self._write_all(self._take_waiting())
        if batch.error is not None:
            raise batch.error

    def _take_waiting(self) -> list[_Batch]:
        with self._queue:
            batches, self._waiting = self._waiting, []
        return batches

    def _write_all(self, batches: Sequence[_Batch]) -> None:
        error: FiligraneError | None = Unavailable("publishing was interrupted", code="bus_interrupted")
        try:
            with self.connection.transaction() as raw:
                raw.executemany(_INSERT, itertools.chain.from_iterable(batch.rows for batch in batches))
            error = None
        except FiligraneError as failure:
            error = failure
        finally:
            for batch in batches:
                batch.settled, batch.error = True, error

    def close(self) -> None:
        with self.lock:
            self.connection.close()


class _Batch:
    def __init__(self, rows: Sequence[_Row]) -> None:
        self.rows = rows
        self.settled = False
        self.error: FiligraneError | None = None


class _Reader:
    """Reads partitions of a topic from a position each, in turn, so that a full one does not hide the others."""

    def __init__(self, connection: Connection, topic: str, positions: dict[int, int]) -> None:
        self._connection = connection
        self._news = News(connection)
        self._topic = topic
        self._positions = positions
        self._turn = 0

    def _read(self, max_messages: int) -> list[Message]:
        messages: list[Message] = []
        for partition in self._next_order():
            if len(messages) >= max_messages:
                break
            found = self._connection.rows(
                "SELECT seq, key, value, headers FROM log WHERE topic = ? AND partition = ? AND seq > ? ORDER BY seq LIMIT ?",
                self._topic,
                partition,
                self._positions[partition],
                max_messages - len(messages),
            )
            if found:
                self._positions[partition] = found[-1][0]
                messages += [Message(self._topic, partition, seq, key, value, json.loads(headers)) for seq, key, value, headers in found]
        return messages

    def _next_order(self) -> list[int]:
        owned = sorted(self._positions)
        self._turn += 1
        at = self._turn % len(owned) if owned else 0
        return owned[at:] + owned[:at]


class EmbeddedFollower(_Reader):
    """Implements `core.bus.Follower`."""

    def poll(self, timeout: float, max_messages: int = 100) -> list[Message]:
        until = time.monotonic() + timeout
        while True:
            self._news.arrived()
            if (messages := self._read(max_messages)) or not self._news.wait(until):
                return messages

    def close(self) -> None:
        self._connection.close()


class EmbeddedConsumer(_Reader):
    """Implements `core.bus.Consumer`: one member of a group.

    `fenced` counts partitions whose commit came too late: they had gone to another member, which gets those messages again.
    """

    def __init__(self, connection: Connection, topic: str, group: str, partitions: int, lease: float) -> None:
        super().__init__(connection, topic, {})
        self.fenced = 0
        self._group = group
        self._member = uuid.uuid4().hex
        self._lease = lease
        self._process = liveness.identity()
        self._generation = -1
        self._next_beat = 0.0
        with connection.transaction() as raw:
            raw.execute("INSERT OR IGNORE INTO groups VALUES (?, ?, 0)", (topic, group))
            raw.executemany("INSERT OR IGNORE INTO cursors VALUES (?, ?, ?, 0, NULL)", [(topic, group, p) for p in range(partitions)])
        self._beat()

    def poll(self, timeout: float, max_messages: int = 100) -> list[Message]:
        until = time.monotonic() + timeout
        while True:
            self._news.arrived()
            if time.monotonic() >= self._next_beat or self._generation_now() != self._generation:
                self._beat()
            messages = self._read(max_messages)
            if messages or (not self._news.wait(min(until, self._next_beat)) and time.monotonic() >= until):
                return messages

    def commit(self, messages: Sequence[Message]) -> None:
        with self._connection.transaction() as raw:
            for partition, offset in _last_offsets(messages).items():
                found = raw.execute(
                    "UPDATE cursors SET committed = max(committed, ?) WHERE topic = ? AND name = ? AND partition = ? AND member = ?",
                    (offset, self._topic, self._group, partition, self._member),
                )
                if found.rowcount == 0:
                    self._note_fenced(partition)
            self._renew(raw)

    def close(self) -> None:
        """Idempotent."""
        if self._connection.inherited:
            return
        with contextlib.suppress(sqlite3.ProgrammingError):  # closed already
            with self._connection.transaction() as raw:
                raw.execute("DELETE FROM members WHERE id = ?", (self._member,))
                self._raise_generation(raw)
            self._connection.close()

    def _generation_now(self) -> int:
        return int(self._connection.value("SELECT generation FROM groups WHERE topic = ? AND name = ?", self._topic, self._group))

    def _beat(self) -> None:
        """Renews the membership, drops silent members, and takes or gives partitions until this member has its share."""
        with self._connection.transaction() as raw:
            changed = self._drop_silent(raw) + self._renew(raw)
            members = [row[0] for row in raw.execute("SELECT id FROM members WHERE topic = ? AND name = ? ORDER BY id", self._ours)]
            cursors = raw.execute("SELECT partition, committed, member FROM cursors WHERE topic = ? AND name = ?", self._ours).fetchall()
            mine = {partition: committed for partition, committed, member in cursors if member == self._member}
            free = {partition: committed for partition, committed, member in cursors if member not in members}
            fair = share(len(cursors), len(members), members.index(self._member))
            given = self._give(raw, mine, len(mine) - fair)
            taken = self._take(raw, free, fair - len(mine))
            if changed or given:
                self._raise_generation(raw)
            self._generation = self._generation_now()
        kept = mine.keys() - given
        self._positions = {p: self._positions.get(p, mine[p]) for p in kept} | taken

    @property
    def _ours(self) -> tuple[str, str]:
        return self._topic, self._group

    def _renew(self, raw: sqlite3.Connection) -> int:
        """Says that this member lives; returns 1 if its membership is new or was dropped."""
        now = time.monotonic()
        self._next_beat = now + min(self._lease / 5, _BEAT)
        new = raw.execute("SELECT 1 FROM members WHERE id = ?", (self._member,)).fetchone() is None
        raw.execute(
            "INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?, ?, ?)", (self._member, *self._ours, now, self._lease, self._process)
        )
        return int(new)

    def _drop_silent(self, raw: sqlite3.Connection) -> int:
        others = raw.execute(
            "SELECT id, renewed, lease, process FROM members WHERE topic = ? AND name = ? AND id != ?", (*self._ours, self._member)
        ).fetchall()
        silent = [(id_,) for id_, renewed, lease, process in others if _is_over(renewed, lease) or liveness.is_gone(process)]
        raw.executemany("DELETE FROM members WHERE id = ?", silent)
        return len(silent)

    def _give(self, raw: sqlite3.Connection, mine: dict[int, int], count: int) -> set[int]:
        """Gives up that many partitions, those first in which nothing is uncommitted."""
        given = sorted(mine, key=lambda p: (self._positions.get(p, 0) > mine[p], -p))[: max(count, 0)]
        self._assign(raw, None, given)
        return set(given)

    def _take(self, raw: sqlite3.Connection, free: dict[int, int], count: int) -> dict[int, int]:
        taken = {p: free[p] for p in sorted(free)[: max(count, 0)]}
        self._assign(raw, self._member, taken)
        return taken

    def _assign(self, raw: sqlite3.Connection, member: str | None, partitions: Iterable[int]) -> None:
        raw.executemany(
            "UPDATE cursors SET member = ? WHERE topic = ? AND name = ? AND partition = ?", [(member, *self._ours, p) for p in partitions]
        )

    def _raise_generation(self, raw: sqlite3.Connection) -> None:
        """Tells the other members to look again."""
        raw.execute("UPDATE groups SET generation = generation + 1 WHERE topic = ? AND name = ?", self._ours)

    def _note_fenced(self, partition: int) -> None:
        self.fenced += 1
        logger.warning("commit came too late, the partition has another member", extra={"topic": self._topic, "partition": partition})


def share(partitions: int, members: int, rank: int) -> int:
    """How many partitions the member at `rank` (0-based) of the sorted members gets; shares differ by at most one."""
    return partitions // members + (rank < partitions % members)


def _is_over(renewed: float, lease: float) -> bool:
    """Whether a lease has ended; a renewal in the future is from before a restart of the machine."""
    return not 0 <= time.monotonic() - renewed <= lease


def _last_offsets(messages: Sequence[Message]) -> dict[int, int]:
    last: dict[int, int] = {}
    for message in messages:
        last[message.partition] = max(message.offset, last.get(message.partition, 0))
    return last


def _checked(topic: str) -> str:
    if not _TOPIC.fullmatch(topic):
        raise InvalidInput(f"not a topic's name: {topic!r}", code="topic_invalid")
    return topic


__all__ = ["MAX_MESSAGE_BYTES", "EmbeddedBus", "EmbeddedConsumer", "EmbeddedFollower", "MessageTooLarge", "partition_of"]
