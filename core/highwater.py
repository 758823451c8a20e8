"""How a database that was restored from a backup is noticed: an object in the store knows the highest numbers that were ever given out.

The scheduler writes it every minute. What was given out in the last minute before a loss is not in it, so numbers are raised by a margin.
A database that is restored from a copy younger than that minute is not noticed, and differs from the lost one by as much.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from core.clock import Clock
from core.database import Database
from core.errors import Corrupt, ObjectMissing, Unavailable
from core.objectstore import ObjectStore
from core.repo import sequences

KEY: Final = "operations/highwater"


class Highwater(msgspec.Struct, frozen=True):
    """The highest numbers as of `written`."""

    written: datetime
    ids: dict[str, int]
    """By table."""
    epoch: int
    """Of all leases."""
    registry: int
    """Version, of all accounts."""
    v: int = 1


def stored(store: ObjectStore) -> Highwater | None:
    """What the store knows; None on a fresh one. Raises Unavailable."""
    try:
        return msgspec.json.decode(store.get(KEY), type=Highwater)
    except ObjectMissing:
        return None
    except msgspec.MsgspecError as error:
        raise Corrupt(f"the object {KEY} in the store cannot be read: {error}", code="highwater_unreadable") from error


def current(database: Database, now: datetime) -> Highwater:
    """What the database has given out. Raises Unavailable."""
    with database.read() as tx:
        return Highwater(now, sequences.ids(tx), sequences.epoch(tx), sequences.registry_version(tx))


def lost(known: Highwater, now: Highwater) -> dict[str, tuple[int, int]]:
    """Table -> (highest id that the database knows of, highest that was given out), where the former is lower."""
    return {table: (now.ids.get(table, 0), high) for table, high in known.ids.items() if now.ids.get(table, 0) < high}


def check(database: Database, store: ObjectStore, now: datetime) -> None:
    """Raises Unavailable (`database_restored`) for a database that is older than what the store has seen of it."""
    known = stored(store)
    if known is not None and (behind := lost(known, current(database, now))):
        table, (here, high) = min(behind.items())
        numbers = f"ids of {table}: {here}, given out: {high} by {known.written:%Y-%m-%d %H:%M} UTC"
        raise Unavailable(
            f"the database is older than the object store ({numbers}): it was restored from a backup, or belongs to another store. "
            "Stop every role, then let `filigrane doctor --accept-restored` reconcile them",
            code="database_restored",
            retry_after=30,
        )


def raise_to(database: Database, store: ObjectStore, clock: Clock) -> bool:
    """Writes what the database has given out since, never less than was written; whether there was anything.

    The object is read first: of two schedulers the one that writes later has looked at the database later, or writes again in a minute.
    Raises Unavailable.
    """
    known = stored(store)
    now = current(database, clock.now())
    if known is not None:
        ids = {table: max(known.ids.get(table, 0), now.ids.get(table, 0)) for table in known.ids.keys() | now.ids.keys()}
        now = Highwater(now.written, ids, max(known.epoch, now.epoch), max(known.registry, now.registry))
        if (now.ids, now.epoch, now.registry) == (known.ids, known.epoch, known.registry):
            return False
    store.put(KEY, msgspec.json.encode(now))
    return True
