"""The file behind the embedded bus: tables, connections, transactions, and how a reader notices that something was written.

A connection belongs to one reader, or is guarded by a lock; it is never carried over a fork (SQLite forbids it).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from core.errors import Corrupt, Unavailable

VERSION: Final = 2
BUSY_SECONDS: Final = 30.0
_LOOK_FIRST, _LOOK_LAST = 0.001, 0.005  # seconds between two looks at data_version: short after news, longer when it is quiet

# One sequence for all topics: what is committed later has the larger number, so a reader that remembers a number misses nothing.
# AUTOINCREMENT: a number is never given twice, even after the newest row was compacted away.
_SCHEMAS: Final = (
    """
CREATE TABLE log (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    headers TEXT NOT NULL,
    published REAL NOT NULL,
    compacted INTEGER NOT NULL
) STRICT;
CREATE INDEX log_order ON log (topic, partition, seq);
CREATE UNIQUE INDEX log_latest ON log (topic, key) WHERE compacted = 1;
CREATE TABLE settings (partitions INTEGER NOT NULL) STRICT;
CREATE TABLE groups (
    topic TEXT NOT NULL, name TEXT NOT NULL, generation INTEGER NOT NULL, PRIMARY KEY (topic, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE members (
    id TEXT PRIMARY KEY, topic TEXT NOT NULL, name TEXT NOT NULL, renewed REAL NOT NULL, lease REAL NOT NULL,
    process TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE cursors (
    topic TEXT NOT NULL, name TEXT NOT NULL, partition INTEGER NOT NULL, committed INTEGER NOT NULL, member TEXT,
    PRIMARY KEY (topic, name, partition)
) STRICT, WITHOUT ROWID;
""",
    """
CREATE TABLE identity (id TEXT NOT NULL) STRICT;
INSERT INTO identity VALUES (lower(hex(randomblob(16))));
CREATE TABLE trimmed (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (topic, partition)
) STRICT, WITHOUT ROWID;
""",
)
"""What each version added."""


@contextmanager
def translated() -> Iterator[None]:
    """Turns SQLite's errors into the project's: full, busy, corrupt, or otherwise away."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except sqlite3.DatabaseError as error:
        raise _unavailable(error) from error


def _unavailable(error: sqlite3.DatabaseError) -> Unavailable:
    primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Corrupt(f"the bus's file is damaged: {error}", code="bus_corrupt")
    if primary == sqlite3.SQLITE_FULL:
        return Unavailable("no space is left for the bus", code="bus_full", retry_after=10)
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Unavailable("the bus's file is locked by another process", code="bus_busy")
    return Unavailable(f"the bus's file cannot be used: {error}", code="bus_unavailable")


class Connection:
    """One SQLite connection in autocommit mode, bound to the process that opened it."""

    def __init__(self, path: Path, *, durable: bool) -> None:
        self._pid = os.getpid()
        with translated():
            self._raw = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            _enter_wal(self._raw)
            # Progress that is lost with the power only comes again; what was published must stay.
            self._raw.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._raw.execute("PRAGMA journal_size_limit = 67108864")

    @property
    def inherited(self) -> bool:
        """Whether this came over a fork."""
        return self._pid != os.getpid()

    def rows(self, sql: str, *parameters: Any) -> list[Any]:
        self._check()
        with translated():
            return self._raw.execute(sql, parameters).fetchall()

    def value(self, sql: str, *parameters: Any) -> Any:
        """The first column of the first row, or None."""
        found = self.rows(sql, *parameters)
        return found[0][0] if found else None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A writing transaction: everything or nothing, alone in the file."""
        self._check()
        with translated():
            self._raw.execute("BEGIN IMMEDIATE")
            try:
                yield self._raw
                self._raw.execute("COMMIT")
            except BaseException:
                if self._raw.in_transaction:
                    self._raw.execute("ROLLBACK")
                raise

    def close(self) -> None:
        if not self.inherited:
            self._raw.close()

    def _check(self) -> None:
        if self.inherited:
            raise RuntimeError("a connection to the bus was carried over a fork; open a consumer or follower in the process that uses it")


def _enter_wal(raw: sqlite3.Connection) -> None:
    """Switches to the write-ahead log; the busy handler does not cover this switch, so two first openers have to try again."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            raw.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def prepare(connection: Connection, partitions: int) -> int:
    """Brings the tables up to this version; returns the number of partitions that the file was made with."""
    with connection.transaction() as raw:
        found = raw.execute("PRAGMA user_version").fetchone()[0]
        if found > VERSION:
            raise Unavailable(f"the bus's file has version {found}, newer than {VERSION}; upgrade this process", code="bus_version")
        for version, schema in enumerate(_SCHEMAS[found:], found + 1):
            for statement in schema.split(";\n"):
                raw.execute(statement)
            raw.execute(f"PRAGMA user_version = {version}")
        if found == 0:
            raw.execute("INSERT INTO settings VALUES (?)", (partitions,))
        return int(raw.execute("SELECT partitions FROM settings").fetchone()[0])


class News:
    """Notices that another connection, of any process, has written: `PRAGMA data_version`, about 2 us a look."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._seen = -1

    def arrived(self) -> bool:
        """Whether anything was written since the last time this said so. Ask before reading, or what comes in between is missed."""
        before, self._seen = self._seen, self._connection.value("PRAGMA data_version")
        return before != self._seen

    def wait(self, until: float) -> bool:
        """Waits for news until `until` (monotonic seconds); False when there was none."""
        pause = _LOOK_FIRST
        while not self.arrived():
            left = until - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(pause, left))
            pause = min(pause * 1.2, _LOOK_LAST)
        return True
