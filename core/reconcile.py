"""Makes a database that was restored from a backup one with object store and bus again, which have seen more than it knows.

What was given out since the backup is lost to the database, and must not be given out a second time: an old object or message would be
taken for a new one. So every number goes above all that the store has seen; unfinished cycles begin anew; all states are announced. Objects
that no row names any more are swept as usual, and messages about what is gone are counted skips.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, NamedTuple

from core import highwater
from core.repo import retention, sequences
from core.services import Services

MARGIN: Final = 1_000_000
"""More ids than are given out between the last look at them and a loss."""
_EPOCHS: Final = 1_000
_PIECE: Final = 500
_KEY: Final = re.compile(r"(?:crawl|batches|frontiers)/(\d+)/(\d+)[/-](\d+)(?:/|$)", re.ASCII)
_OF_CYCLES: Final = ("crawl/", "batches/", "frontiers/")


class Reconciled(NamedTuple):
    """What was done."""

    tables: int
    """Whose ids go on above those that were given out."""
    leases: int
    """Ended, with a higher epoch."""
    sessions: int
    """Whose next cycle is a new one."""
    announced: int
    """Messages that wait in the outbox."""


class _Place(NamedTuple):
    session: int
    cycle: int
    epoch: int


class _Seen(NamedTuple):
    epoch: int
    cycles: dict[int, int]
    """Session -> the highest cycle among objects that no row names."""


def reconcile(services: Services) -> Reconciled:
    """To be called while no role runs. Changes nothing in a database that is no older than its store. May be repeated.

    Raises:
        Unavailable: a part does not answer; nothing is done.
    """
    known = highwater.stored(services.store)
    now = highwater.current(services.database, services.clock.now())
    if known is None or not (behind := highwater.lost(known, now)):
        return Reconciled(0, 0, 0, 0)
    seen = _look(services)
    with services.database.write() as tx:
        leases = sequences.raise_epochs(tx, max(known.epoch, now.epoch, seen.epoch) + _EPOCHS)
        sequences.raise_registries(tx, max(known.registry, now.registry) + MARGIN)
        sessions = sequences.begin_anew(tx, seen.cycles)
        announced = sequences.announce_all(tx, services.clock.now())
    # Last: PostgreSQL's sequences do not roll back, and from then on there is nothing to be noticed any more.
    with services.database.write() as tx:
        sequences.raise_ids(tx, {table: high + MARGIN for table, high in known.ids.items()})
    highwater.raise_to(services.database, services.store, services.clock)
    return Reconciled(len(behind), leases, sessions, announced)


def _look(services: Services) -> _Seen:
    """What the objects of cycles tell by their keys."""
    epoch, cycles = 0, dict[int, int]()
    for prefix in _OF_CYCLES:
        for keys in _pieces(services, prefix):
            epoch = max([epoch, *(place.epoch for place in _places(keys))])
            with services.database.read() as tx:
                unowned = retention.unowned(tx, prefix, keys)
            for place in _places(unowned):
                cycles[place.session] = max(cycles.get(place.session, 0), place.cycle)
    return _Seen(epoch, cycles)


def _pieces(services: Services, prefix: str) -> Iterator[list[str]]:
    found = (info.key for info in services.store.list(prefix))
    while keys := list(islice(found, _PIECE)):
        yield keys


def _places(keys: Iterable[str]) -> list[_Place]:
    return [_Place(*map(int, found.groups())) for key in keys if (found := _KEY.match(key))]
