"""The bus on one machine: a durable log in one SQLite file, for any number of processes and threads. No broker, no background thread."""

from __future__ import annotations

import itertools
import json
import threading
import time
import zlib
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

import structlog

from core import events
from core.bus import RETENTION_DAYS, Outgoing, check_size, checked, retention
from core.bus.members import EmbeddedConsumer, EmbeddedFollower
from core.bus.sqlite import Connection, prepare
from core.errors import FiligraneError, InvalidInput, Unavailable

_TRIM_EVERY: Final = 3600.0  # seconds
_INSERT: Final = "INSERT OR REPLACE INTO log (topic, partition, key, value, headers, published, compacted) VALUES (?, ?, ?, ?, ?, ?, ?)"

log = structlog.get_logger()

_Row = tuple[str, int, str, bytes, str, float, int]


def partition_of(key: str, partitions: int) -> int:
    """The partition of a key; the same in every process and version."""
    return zlib.crc32(key.encode()) % partitions


class EmbeddedBus:
    """Implements `core.bus.Bus`. Thread-safe; a process that was forked opens its own connections."""

    def __init__(
        self,
        path: Path,
        *,
        partitions: int = 8,
        lease: float = 30.0,
        retention: timedelta = timedelta(days=RETENTION_DAYS),
        compacted: Collection[str] = (events.MEDIA,),
    ) -> None:
        """Opens the file or makes it; `partitions` counts only then. What is older than `retention` and committed is dropped hourly.

        Raises:
            Unavailable: the file cannot be opened, is damaged, or comes from a newer version.
        """
        if partitions < 1 or lease <= 0:
            raise InvalidInput("partitions and lease must be positive")
        self.path = path
        self.lease = lease
        self.retention = retention
        self._next_trim = 0.0
        self._compacted = frozenset(compacted)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = _Writer(path)
        self._abandoned: list[_Writer] = []
        self.partitions = prepare(self._writer.connection, partitions)
        self._identity = self._writer.connection.value("SELECT id FROM identity")

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Returns when all are on the disk: all of them or none.

        Raises:
            InvalidInput: a topic's name or a message's size.
            Unavailable: the disk is full (`bus_full`), or the file locked or damaged.
        """
        if messages:
            self._open_writer().write([self._row(message) for message in messages])
            if time.monotonic() >= self._next_trim:
                self._trim_all()

    def consume(self, topic: str, group: str) -> EmbeddedConsumer:
        return EmbeddedConsumer(Connection(self.path, durable=False), checked(topic), group, self.partitions, self.lease)

    def follow(self, topic: str, start: Literal["earliest", "latest"]) -> EmbeddedFollower:
        connection = Connection(self.path, durable=False)
        begin = (connection.value("SELECT seq FROM sqlite_sequence WHERE name = 'log'") or 0) if start == "latest" else 0
        return EmbeddedFollower(connection, checked(topic), dict.fromkeys(range(self.partitions), begin))

    def lag(self, topic: str, group: str) -> int:
        writer = self._open_writer()
        with writer.lock:
            read = writer.connection
            committed = dict(read.rows("SELECT partition, committed FROM cursors WHERE topic = ? AND name = ?", topic, group))
            count = "SELECT count(*) FROM log WHERE topic = ? AND partition = ? AND seq > ?"
            return sum(read.value(count, topic, p, committed.get(p, 0)) for p in range(self.partitions))

    def identity(self, topic: str) -> str:
        """The file's: its topics live and die together."""
        return f"{self._identity}/{checked(topic)}"

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
        check_size(message, size)
        partition = partition_of(message.key, self.partitions)
        compacted = int(message.topic in self._compacted)
        return checked(message.topic), partition, message.key, message.value, headers, time.time(), compacted

    def _open_writer(self) -> _Writer:
        if self._writer.connection.inherited:
            self._abandoned.append(self._writer)  # SQLite wants a connection that came over a fork left alone, not even closed
            self._writer = _Writer(self.path)
        return self._writer

    def _trim_partition(self, topic: str, partition: int, before: float) -> int:
        dropped = 0
        while True:
            writer = self._open_writer()
            with writer.lock:
                now = retention.trim(writer.connection, topic, partition, before)
            dropped += now
            if not now:
                return dropped

    def _trim_all(self) -> None:
        """Now and then, from publishing: nobody else has to think of it."""
        self._next_trim = time.monotonic() + _TRIM_EVERY
        before = datetime.now(UTC) - self.retention
        try:
            with self._open_writer().lock:
                topics = retention.topics(self._writer.connection)
            for topic in topics:
                self.trim(topic, before)
        except Unavailable as error:  # what was published is safe; the next time will do
            log.warning("bus.trim_failed", details=error.details)


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
