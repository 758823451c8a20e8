"""The database's seam: transactions over SQLAlchemy, SQLite now."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Engine, QueuePool, create_engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from core.errors import Unavailable

BUSY_SECONDS: Final = 10
_migrating: Final = threading.Lock()
"""Alembic keeps its context in the module: one migration at a time in a process."""


class Database:
    """Transactions on one database. Thread-safe; a process that was forked opens its own connections."""

    def __init__(self, url: str | URL) -> None:
        self.url = url
        self._engine = _engine(url)
        self._pid = os.getpid()
        self._abandoned: list[Engine] = []

    @property
    def engine(self) -> Engine:
        if os.getpid() != self._pid:
            # SQLite wants a connection that came over a fork left alone, not even closed
            self._abandoned.append(self._engine)
            self._engine, self._pid = _engine(self.url), os.getpid()
        return self._engine

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that may write: begins IMMEDIATE, commits at the end, rolls back on any error. Raises Unavailable."""
        with self._session("BEGIN IMMEDIATE") as tx:
            yield tx
            tx.commit()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A consistent view; nothing that is done in it is kept. Raises Unavailable."""
        with self._session("BEGIN") as tx:
            yield tx
            tx.expunge_all()  # what was read stays readable
            tx.rollback()

    @contextmanager
    def _session(self, begin: str) -> Iterator[Session]:
        with _failures(), Session(self.engine, expire_on_commit=False) as tx:
            tx.execute(text(begin))
            yield tx

    def migrate(self) -> None:
        """Brings the schema to the newest version; several processes may do it at once. Raises Unavailable."""
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
        with _migrating, _failures(), self.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # the second process waits here, then finds all done
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()

    def close(self) -> None:
        self.engine.dispose()


def _engine(url: str | URL) -> Engine:
    """Its connections are bounded by the threads that use it, not by the pool: a request must not wait for another's connection."""
    arguments = {"timeout": BUSY_SECONDS, "check_same_thread": False, "isolation_level": None}
    engine = create_engine(url, connect_args=arguments, poolclass=QueuePool, max_overflow=-1)
    event.listen(engine, "connect", _prepare)
    return engine


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


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise _unavailable(error.orig) from error
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.DatabaseError) and _primary(error.orig) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _unavailable(error.orig) from error
        raise
    except sqlite3.DatabaseError as error:  # while a connection was opened
        raise _unavailable(error) from error
    except CommandError as error:
        raise Unavailable(f"the database was made by a newer version of this program: {error}", code="database_newer") from error


def _unavailable(error: BaseException | None) -> Unavailable:
    code = _primary(error)
    if code == sqlite3.SQLITE_FULL:
        return Unavailable("the database's disk is full; free some space", code="database_full", retry_after=10)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Unavailable("the database is busy; try again", code="database_busy")
    return Unavailable(f"the database does not work: {error}", code="database_unavailable")


def _primary(error: BaseException | None) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
