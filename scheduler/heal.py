"""Publishes again what was stored and never acknowledged, because its worker died or the bus was away."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

import structlog

from core.errors import FiligraneError
from core.models import Segment
from core.repo import crawls
from core.services import Services
from core.telemetry import counter
from crawler.publish import messages_of_piece

PATIENCE: Final = timedelta(seconds=30)
"""How long the worker that stored a piece has for its messages."""
_PIECES: Final = 1000

log = structlog.get_logger()
healed_total = counter(
    "filigrane_scheduler_healed_total", "Journal pieces whose messages were published again, or could not be.", ["outcome"]
)


def resend(services: Services) -> Iterator[int]:
    """Yields 1 per piece sent. One that cannot be read does not hold up the others; it is tried again next time."""
    with services.database.read() as tx:
        rows = crawls.unsent(tx, services.clock.now() - PATIENCE, _PIECES)
    for row in rows:
        try:
            _resend(services, row)
        except FiligraneError as error:
            healed_total.labels(error.code).inc()
            log.warning("scheduler.heal_failed", session=row.session_id, cycle=row.cycle, piece=row.seq, error=error.details)
        except Exception:
            healed_total.labels("internal").inc()
            log.exception("scheduler.heal_failed", session=row.session_id, cycle=row.cycle, piece=row.seq)
        else:
            healed_total.labels("sent").inc()
            yield 1


def _resend(services: Services, row: Segment) -> None:
    services.bus.publish(messages_of_piece(services, row))
    with services.database.write() as tx:
        crawls.mark_sent(tx, row.session_id, row.cycle, row.seq, services.clock.now())
