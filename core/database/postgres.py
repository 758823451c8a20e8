"""PostgreSQL: shared by any number of machines (docs/adr/0006)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar, cast

import psycopg
import structlog
from psycopg.abc import PQGen
from sqlalchemy import URL, Connection, Dialect, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidatePoolError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from core.database.backend import Backend
from core.database.failures import AWAY, BUSY, CONFLICT, failure
from core.errors import Unavailable

RV = TypeVar("RV")
log = structlog.get_logger()

PATIENCE: Final = 40.0
"""Seconds after which a server that does not answer at all is given up. What it answers itself comes earlier."""
PING_PATIENCE: Final = 5.0
"""The same for a connection from the pool, before it is used."""
POOL_SECONDS: Final = 10.0
_TIMEOUTS: Final = {"statement_timeout": "30s", "lock_timeout": "10s", "idle_in_transaction_session_timeout": "60s"}
_CONNECTING: Final = {
    "connect_timeout": "10",
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
    "application_name": "filigrane",
}
_EXHAUSTED: Final = "This connection is closed"
"""What the pool says of new connections that are dead when they are used first: SQLAlchemy 2 has no other sign of it."""
_MIGRATION_LOCK: Final = 0x66696C69
"""Of `pg_advisory_xact_lock`: the letters `fili`."""


class Patient(psycopg.Connection[Any]):
    """A connection that waits for an answer, but not for ever: keepalives do not notice a server that was stopped.

    Its errors say what the server says first; the detail behind it quotes rows, a token's hash too.
    """

    patience: float = PATIENCE

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        limit = timeout if timeout is not None or math.isinf(self.patience) else self.patience
        try:
            return super().wait(gen, interval=interval, timeout=limit)
        except psycopg.Error as error:
            if error.diag.message_primary:
                error.args = (error.diag.message_primary,)
            if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
                self.pgconn.finish()  # cut, or given up in the middle of an exchange: of no use any more
            raise


class Postgres(Backend):
    """The URL's own parameters go before ours; its `options` are added to them."""

    shared = True
    write = "BEGIN ISOLATION LEVEL READ COMMITTED"
    read = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

    def __init__(self, url: URL, connections: int) -> None:
        self._url = url
        self._connections = connections

    def engine(self) -> Engine:
        own = self._url.query.get("options", "")
        options = " ".join([*(f"-c {name}={value}" for name, value in _TIMEOUTS.items()), own if isinstance(own, str) else " ".join(own)])
        given = {name: value for name, value in _CONNECTING.items() if name not in self._url.query}
        engine = create_engine(
            self._url,
            isolation_level="AUTOCOMMIT",
            connect_args={**given, "options": options},
            pool_size=self._connections,
            max_overflow=0,
            pool_timeout=POOL_SECONDS,
            hide_parameters=True,
        )
        event.listen(engine, "do_connect", _connect)
        event.listen(engine, "checkout", _ping)
        return engine

    @contextmanager
    def migration(self, connection: Connection) -> Iterator[None]:
        raw = cast("Patient", connection.connection.dbapi_connection)
        patience, raw.patience = raw.patience, math.inf
        try:
            connection.exec_driver_sql("BEGIN")
            for name in _TIMEOUTS:
                connection.exec_driver_sql(f"SET LOCAL {name} = 0")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
            yield
            connection.commit()
        finally:
            raw.patience = patience

    def unavailable(self, error: BaseException) -> Unavailable | None:
        if isinstance(error, PoolTimeout):  # every connection of this process is in use
            return BUSY.error()
        if isinstance(error, InvalidRequestError) and error.args == (_EXHAUSTED,):
            return AWAY.error()
        cause = error.orig if isinstance(error, DBAPIError) else error
        meant = failure(cause) if isinstance(cause, psycopg.Error) else None
        if meant is None:
            return None
        log.warning("database.unavailable", code=meant.code, reason=str(cause).strip())
        return meant.error()

    def in_conflict(self, error: BaseException) -> bool:
        """Serialization failures and deadlocks; and rows that somebody else made or removed first: the next try sees them."""
        if isinstance(error, Unavailable):
            return error.code == CONFLICT.code
        return isinstance(error, IntegrityError) and getattr(error.orig, "sqlstate", None) in _RACED


def _ping(raw: Patient, record: object, proxy: object) -> None:
    """Raises InvalidatePoolError: the server went away, and may be back."""
    patience = raw.patience
    raw.patience = min(patience, PING_PATIENCE)
    try:
        raw.execute("SELECT 1")
    except psycopg.Error as error:
        raise InvalidatePoolError from error
    raw.patience = patience


def _connect(dialect: Dialect, record: object, arguments: list[Any], named: dict[str, Any]) -> Patient:
    return Patient.connect(*arguments, **named)


_RACED: Final = frozenset({"23503", "23505", "23P01"})
"""Foreign key, unique and exclusion violations."""
