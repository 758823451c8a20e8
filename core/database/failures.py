"""What PostgreSQL's errors mean to us: codes that stay, and what to do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from core.errors import Unavailable

if TYPE_CHECKING:
    import psycopg


class Failure(NamedTuple):
    code: str
    details: str
    retry_after: int = 1

    def error(self) -> Unavailable:
        return Unavailable(self.details, code=self.code, retry_after=self.retry_after)


AWAY: Final = Failure("database_unavailable", "the database does not answer: see that it runs, and that FILIGRANE_DATABASE_URL names it")
BUSY: Final = Failure("database_busy", "the database is busy; try again")
CROWDED: Final = Failure("database_busy", "the database takes no more connections: raise its max_connections, or run fewer processes", 5)
CONFLICT: Final = Failure("database_conflict", "others changed the same rows at the same time; try again")
READ_ONLY: Final = Failure("database_read_only", "the database takes no writes now: it is a standby, or set to read-only", 5)
FULL: Final = Failure("database_full", "the database's disk is full; free some space", 10)
WRONG_USER: Final = Failure("database_refused", "the database refuses this user: correct user and password in FILIGRANE_DATABASE_URL", 10)
NO_DATABASE: Final = Failure("database_refused", "there is no such database: create it, or correct its name in FILIGRANE_DATABASE_URL", 10)
NO_RIGHTS: Final = Failure("database_refused", "the database's user may not do this: make it the owner of the database", 10)
DAMAGED: Final = Failure("database_unavailable", "the database cannot read its own files; look into its log", 10)

_STATES: Final = {
    "08": AWAY,
    "25006": READ_ONLY,
    "25P03": AWAY,  # we were silent for too long in a transaction
    "28": WRONG_USER,
    "3D000": NO_DATABASE,
    "40": CONFLICT,
    "42501": NO_RIGHTS,
    "53": BUSY,
    "53100": FULL,
    "53300": CROWDED,
    "55P03": BUSY,  # a lock that is held for longer than lock_timeout
    "57": AWAY,
    "57014": BUSY,  # a statement that took longer than statement_timeout
    "58": DAMAGED,
    "58P01": DAMAGED,
    "XX001": DAMAGED,
    "XX002": DAMAGED,
}
"""By SQLSTATE, else by its class."""

_TEXTS: Final = (
    (re.compile(r"password authentication failed|no password supplied|role .* does not exist|no pg_hba\.conf entry"), WRONG_USER),
    (re.compile(r"database .* does not exist"), NO_DATABASE),
    (re.compile(r"too many (clients|connections)|remaining connection slots"), CROWDED),
    (re.compile(r"session is read-only"), READ_ONLY),  # no host of the URL fits its target_session_attrs
)
"""Why no connection came about has no SQLSTATE, only words."""


def failure(error: psycopg.Error) -> Failure | None:
    """None: not the database's fault, nor its network's."""
    if error.sqlstate is not None:
        return _STATES.get(error.sqlstate) or _STATES.get(error.sqlstate[:2])
    import psycopg  # whoever uses SQLite does not pay for it

    if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return None
    return next((meant for words, meant in _TEXTS if words.search(str(error))), AWAY)
