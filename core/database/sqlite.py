"""SQLite: one file, one writer at a time."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.exc import DBAPIError, OperationalError

from core.database.backend import Backend
from core.errors import Unavailable

BUSY_SECONDS: Final = 10


class Sqlite(Backend):
    shared = False
    write = "BEGIN IMMEDIATE"
    read = "BEGIN"

    def __init__(self, url: URL) -> None:
        self._url = url

    def engine(self) -> Engine:
        """Its connections are bounded by the threads that use it, not by the pool: a request must not wait for another's connection."""
        arguments = {"timeout": BUSY_SECONDS, "check_same_thread": False, "isolation_level": None}
        engine = create_engine(self._url, connect_args=arguments, poolclass=QueuePool, max_overflow=-1, hide_parameters=True)
        event.listen(engine, "connect", _prepare)
        return engine

    @contextmanager
    def migration(self, connection: Connection) -> Iterator[None]:
        connection.exec_driver_sql(self.write)
        yield
        connection.commit()

    def unavailable(self, error: BaseException) -> Unavailable | None:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if not isinstance(cause, sqlite3.DatabaseError):
            return None
        code = cause.sqlite_errorcode & 0xFF if hasattr(cause, "sqlite_errorcode") else 0
        opening = cause is error  # what a connection says of itself is not wrapped
        if opening or isinstance(error, OperationalError) or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return _unavailable(cause, code)
        return None

    def in_conflict(self, error: BaseException) -> bool:
        return False  # writers are alone


def _prepare(connection: sqlite3.Connection, _: Any) -> None:
    _enter_wal(connection)
    connection.execute("PRAGMA foreign_keys=ON")
    # FULL: a committed row is what *stored* means; it must survive the loss of power
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")


def _enter_wal(connection: sqlite3.Connection) -> None:
    """Switches to the write-ahead log; the busy handler does not cover this switch, so two first openers have to try again."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def _unavailable(error: sqlite3.DatabaseError, code: int) -> Unavailable:
    if code == sqlite3.SQLITE_FULL:
        return Unavailable("the database's disk is full; free some space", code="database_full", retry_after=10)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Unavailable("the database is busy; try again", code="database_busy")
    return Unavailable(f"the database does not work: {error}", code="database_unavailable")
