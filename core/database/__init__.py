"""The database's seam: transactions over SQLAlchemy, on SQLite or PostgreSQL. Isolation, locks and clocks: docs/adr/0006."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Engine, make_url, text
from sqlalchemy.orm import Session

from core.database.backend import Backend
from core.database.failures import READ_ONLY
from core.database.sqlite import Sqlite
from core.errors import Unavailable
from core.telemetry import counter

T = TypeVar("T")

CONNECTIONS: Final = 10
TRIES: Final = 8
_PAUSE: Final = 0.005
_migrating: Final = threading.Lock()
"""Alembic keeps its context in the module: one migration at a time in a process."""
_conflicts: Final = counter("filigrane_database_conflicts_total", "Transactions that were tried again because another came between.")


class Database:
    """Transactions on one database. Thread-safe; a process that was forked opens its own connections."""

    def __init__(self, url: str | URL, *, connections: int = CONNECTIONS) -> None:
        """`connections`: the most that this process opens to a database server."""
        self.url = make_url(url)
        self._backend = _backend(self.url, connections)
        self._engine = self._backend.engine()
        self._pid = os.getpid()
        self._abandoned: list[Engine] = []

    @property
    def shared(self) -> bool:
        """Whether processes of other machines use it too."""
        return self._backend.shared

    @property
    def engine(self) -> Engine:
        if os.getpid() != self._pid:
            # a connection that came over a fork is left alone, not even closed: its other end is the parent's
            self._abandoned.append(self._engine)
            self._engine, self._pid = self._backend.engine(), os.getpid()
        return self._engine

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that may write: commits at the end, rolls back on any error. Raises Unavailable.

        SQLite's are alone from their beginning. PostgreSQL's see what others have committed before each statement, and lock what they
        decide on.
        """
        with self._session(self._backend.write) as tx:
            yield tx
            tx.commit()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A consistent view; nothing that is done in it is kept. Raises Unavailable."""
        with self._session(self._backend.read) as tx:
            yield tx
            tx.expunge_all()  # what was read stays readable
            tx.rollback()

    def transact(self, work: Callable[[Session], T]) -> T:
        """What the work gives, done in a `write`; once more from the beginning when another transaction came between, TRIES times in all.

        The work touches nothing but its transaction. Raises Unavailable.
        """
        for pause in (_PAUSE * 2**tried for tried in range(TRIES - 1)):
            try:
                with self.write() as tx:
                    return work(tx)
            except Exception as error:
                if not self._backend.in_conflict(error):
                    raise
                _conflicts.inc()
            time.sleep(random.uniform(pause / 2, pause))  # noqa: S311
        with self.write() as tx:
            return work(tx)

    @contextmanager
    def _session(self, begin: str) -> Iterator[Session]:
        with self._failures(), Session(self.engine, expire_on_commit=False) as tx:
            tx.execute(text(begin))
            yield tx

    def migrate(self) -> None:
        """Brings the schema to the newest version; several processes may do it at once. Raises Unavailable."""
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parents[1] / "migrations").replace("%", "%%"))
        with _migrating, self._failures(), self.engine.connect() as connection, self._backend.migration(connection):
            config.attributes["connection"] = connection  # a second process waits for its turn, then finds all done
            command.upgrade(config, "head")

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except CommandError as error:
            raise Unavailable(f"the database was made by a newer version of this program: {error}", code="database_newer") from error
        except Exception as error:
            meant = self._backend.unavailable(error)
            if meant is None:
                raise
            if meant.code == READ_ONLY.code:  # after a failover another host may take writes: no old connection is kept
                self._engine.dispose()
            raise meant from error

    def close(self) -> None:
        self.engine.dispose()


def _backend(url: URL, connections: int) -> Backend:
    if url.get_backend_name() != "postgresql":
        return Sqlite(url)
    from core.database.postgres import Postgres  # whoever uses SQLite does not pay for psycopg

    return Postgres(url, connections)
