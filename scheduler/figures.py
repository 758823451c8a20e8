"""What waits in the whole installation, as gauges of whichever scheduler one asks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from core.events import IMAGES
from core.repo import crawled, figures
from core.services import Services
from core.shards import lags
from core.telemetry import gauge

_STATES: Final = ("pending", "running", "done", "failed", "paused")

_SESSIONS: Final = gauge("filigrane_scheduler_sessions", "Sessions by state.", ["state"])
_OUTBOX: Final = gauge("filigrane_scheduler_outbox_rows", "Messages that follow a database write and are not sent yet.")
_UNSENT: Final = gauge("filigrane_scheduler_unsent_pieces", "Stored journal pieces whose messages the bus has not acknowledged.")
_UNSENT_AGE: Final = gauge("filigrane_scheduler_unsent_seconds", "Age of the oldest of them; 0 without any.")
_CRAWLED: Final = gauge("filigrane_scheduler_crawled", "Crawled pictures that can be searched: their files, pictures and bytes.", ["of"])
_LAG: Final = gauge("filigrane_scheduler_images_lag", "Messages of `images` that the matchers have not finished.")
_SHARDS: Final = gauge("filigrane_scheduler_features_lag", "Messages of `features` that a shard's matchers have not finished.", ["shard"])
_LOOKED: Final = gauge("filigrane_scheduler_figures_seconds", "When these gauges were last brought up to date, in seconds since 1970.")


def look(services: Services) -> Iterator[int]:
    """Brings the gauges up to date; yields how many figures were read."""
    with services.database.read() as tx:
        waiting = figures.waiting(tx)
        kept = crawled.totals(tx)
    for state in _STATES:
        _SESSIONS.labels(state).set(waiting.sessions.get(state, 0))
    _OUTBOX.set(waiting.outbox)
    _UNSENT.set(waiting.unsent)
    _UNSENT_AGE.set(_age(waiting.oldest_unsent, services.clock.now()))
    for name, count in zip(("files", "pictures", "bytes"), kept, strict=True):
        _CRAWLED.labels(name).set(count)
    for reader, lag in lags(services.bus, services.settings.registry_shards).items():
        (_LAG if reader == IMAGES else _SHARDS.labels(reader)).set(lag)
    _LOOKED.set(time.time())
    yield 1


def _age(since: datetime | None, now: datetime) -> float:
    return max(0.0, (now - since).total_seconds()) if since else 0.0
