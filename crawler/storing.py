"""Storing goes on until it is done, whatever is away or full; sending is tried once, the rest is left to heal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

import structlog

from core.errors import NotFound, ObjectMissing, StaleLease
from core.models import CrawlSession
from core.services import Services
from crawler import publish
from crawler.cycle import Cycle
from crawler.figures import closings_total, published, sends_total
from crawler.publish import Closing

BACK_OFF: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between two tries; the last one from then on."""

T = TypeVar("T")

log = structlog.get_logger()


async def again_and_again(cycle: Cycle, what: str, call: Callable[[], Awaitable[T]]) -> T | None:
    """What `call` gives once it succeeds; None when the cycle was lost meanwhile.

    Raises:
        StaleLease, NotFound: the domain has another holder, or the session is gone.
    """
    attempt = 0
    while not cycle.lost:
        try:
            return await call()
        except (StaleLease, NotFound) as error:
            if not isinstance(error, ObjectMissing):
                closings_total.labels("stale").inc()
                raise
            log.error(f"crawler.{what}_failed", session=cycle.session.id, error=error.details, attempt=attempt)
        except Exception as error:  # whatever it is: nothing may be lost, so it is tried again
            closings_total.labels("retried").inc()
            log.warning(f"crawler.{what}_failed", session=cycle.session.id, error=str(error), kind=type(error).__name__, attempt=attempt)
        await asyncio.sleep(BACK_OFF[min(attempt, len(BACK_OFF) - 1)])
        attempt += 1
    return None


def send(services: Services, session: CrawlSession, closing: Closing, tar_keys: Mapping[int, str]) -> None:
    """Publishes the messages of a stored closing, if the bus takes them now."""
    try:
        publish.send(services, session, closing, tar_keys)
        sends_total.labels("sent").inc()
        published(closing.piece.records, services.clock.now().timestamp())
    except Exception as error:  # whatever it is: the piece is stored, and what comes after it goes on
        sends_total.labels("left to heal").inc()
        log.warning("crawler.send_failed", session=session.id, piece=closing.seq, kind=type(error).__name__, error=str(error))
