"""All that the scheduler does, in one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from core import highwater, outbox
from core.repo import crawls
from core.services import Services
from scheduler import crawled, figures, heal, sweep


class Job(NamedTuple):
    """`run` yields after each bounded piece of work how much it did, so that the clock can stop in between.

    Any job may run in two schedulers at once, and be cut anywhere.
    """

    name: str
    seconds: float
    run: Callable[[Services], Iterator[int]]
    alone: bool = False
    """Of several schedulers one at a time does it, since twice would be a waste."""


def wake_due(services: Services) -> Iterator[int]:
    """Sessions whose next cycle is due are pending, and the crawlers hear of it."""
    woken = services.database.transact(lambda tx: crawls.due(tx, services.clock.now()))
    if woken:
        outbox.drain(services)
    yield len(woken)


def note_highwater(services: Services) -> Iterator[int]:
    """The highest ids, epochs and versions, by which a database that was restored from a backup is noticed."""
    yield int(highwater.raise_to(services.database, services.store, services.clock))


def drain_outbox(services: Services) -> Iterator[int]:
    """Messages whose writers died before they sent them."""
    while count := outbox.drain(services):
        yield count


JOBS: Final = (
    Job("due", 1, wake_due),
    Job("outbox", 1, drain_outbox),
    Job("heal", 10, heal.resend, alone=True),
    Job("topics", 10, heal.topics, alone=True),
    Job("figures", 15, figures.look),
    Job("segments", 60, sweep.segments, alone=True),
    Job("statics", 60, sweep.statics, alone=True),
    Job("watermarkings", 60, sweep.watermarkings, alone=True),
    Job("deleted_sessions", 60, sweep.deleted_sessions, alone=True),
    Job("crawled", 60, crawled.merge, alone=True),
    Job("crawled_over", 600, crawled.remove, alone=True),
    Job("highwater", 60, note_highwater, alone=True),
    Job("bus", 600, sweep.bus),
    Job("orphans", 3600, sweep.orphans, alone=True),
    Job("store", 3600, sweep.store, alone=True),
)
