"""The database's seam: transactions over SQLAlchemy, SQLite now."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from core.errors import Unavailable

BUSY_SECONDS = 10


class Database:
    """Transactions on one database. Thread-safe; each process opens its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = _engine(url)
        self._pid = os.getpid()

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
        if os.getpid() != self._pid:
            raise RuntimeError("a database was carried over a fork; open one in each process")
        try:
            with Session(self.engine, expire_on_commit=False, autoflush=True) as tx:
                tx.execute(text(begin))
                yield tx
        except OperationalError as error:
            raise _unavailable(error) from error

    def migrate(self) -> None:
        """Brings the schema to the newest version; several processes may do it at once. Raises Unavailable."""
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        try:
            with self.engine.connect() as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
                connection.commit()
        except OperationalError as error:
            raise _unavailable(error) from error

    def close(self) -> None:
        self.engine.dispose()


def _engine(url: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False, "isolation_level": None})

    @event.listens_for(engine, "connect")
    def _pragmas(connection: sqlite3.Connection, _: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        # FULL: a committed row is what *stored* means; it must survive the loss of power
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
        cursor.close()

    return engine


def _unavailable(error: OperationalError) -> Unavailable:
    said = str(error.orig)
    if "full" in said:
        return Unavailable("the database's disk is full; free some space", code="database_full", retry_after=10)
    return Unavailable(f"the database does not answer: {said}", code="database_busy")
