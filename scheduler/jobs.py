"""What the clock does: one table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from core import outbox
from core.repo import crawls
from core.services import Services
from scheduler import heal


class Job(NamedTuple):
    name: str
    seconds: float
    run: Callable[[Services], int]
    """Returns how much there was to do."""


def wake_due(services: Services) -> int:
    """Sessions whose next cycle is due become pending."""
    with services.database.write() as tx:
        woken = crawls.due(tx, services.clock.now())
    if woken:
        outbox.drain(services)
    return len(woken)


JOBS: Final = (
    Job("due", 1.0, wake_due),
    Job("outbox", 2.0, heal.send_outbox),
    Job("pieces", 5.0, heal.send_pieces),
    Job("expired", 60.0, heal.delete_expired),
    Job("sweep", 3600.0, heal.sweep),
)
