"""Heals what a crash left between two steps: messages that were stored and never acknowledged, objects that no row knows.

Everything here may run twice at once: it publishes again what is idempotent and deletes what nobody can ask for.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

import structlog

from core import outbox
from core.errors import ObjectMissing
from core.repo import crawls, objects
from core.services import Services
from core.telemetry import counter
from crawler.publish import messages_of_piece

UNSENT_AFTER: Final = timedelta(seconds=30)
SEGMENTS_KEPT: Final = timedelta(days=1)
STRAY_AFTER: Final = timedelta(days=1)
BATCH: Final = 500

log = structlog.get_logger()
healed_total = counter("filigrane_healed_total", "What the scheduler repaired, by kind.", ["kind"])


def send_outbox(services: Services) -> int:
    """Messages of database writes whose writer did not live to send them."""
    return _counted("outbox", outbox.drain(services))


def send_pieces(services: Services) -> int:
    """Messages of stored journal pieces that nobody acknowledged. Returns the number of pieces."""
    now = services.clock.now()
    with services.database.read() as tx:
        rows = crawls.unsent(tx, now - UNSENT_AFTER, BATCH)
    for row in rows:
        try:
            services.bus.publish(messages_of_piece(services, row))
        except ObjectMissing as error:
            log.error("heal.piece_missing", session=row.session_id, cycle=row.cycle, piece=row.seq, details=error.details)
            continue
        with services.database.write() as tx:
            crawls.mark_sent(tx, row.session_id, row.cycle, row.seq, services.clock.now())
    return _counted("piece", len(rows))


def delete_expired(services: Services) -> int:
    """Segments that live on in artifacts, statics whose time is over, what deleted sessions left. Returns the number of objects."""
    now = services.clock.now()
    with services.database.read() as tx:
        segments = crawls.expired_segments(tx, now - SEGMENTS_KEPT, BATCH) + crawls.segments_of_deleted(tx, BATCH)
        statics = objects.expired_statics(tx, now, BATCH)
    # rows first: a reader that finds the row gone looks into the artifact, never at a missing object
    with services.database.write() as tx:
        crawls.mark_deleted(tx, [segment.id for segment in segments])
        objects.forget_statics(tx, [static.id for static in statics])
    services.store.delete([segment.key for segment in segments] + [static.key for static in statics])
    return _counted("expired", len(segments) + len(statics))


def sweep(services: Services) -> int:
    """Objects without a row that are older than a day. Returns how many."""
    before = services.clock.now() - STRAY_AFTER
    strays = 0
    for prefix in objects.PREFIXES:
        old = (info.key for info in services.store.list(prefix) if info.modified < before)
        for keys in _chunks(old):
            with services.database.read() as tx:
                unknown = sorted(set(keys) - objects.known(tx, prefix, keys))
            services.store.delete(unknown)
            strays += len(unknown)
    return _counted("stray", strays)


def _chunks(keys: Iterable[str]) -> Iterable[list[str]]:
    chunk: list[str] = []
    for key in keys:
        chunk.append(key)
        if len(chunk) == BATCH:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _counted(kind: str, number: int) -> int:
    if number:
        healed_total.labels(kind).inc(number)
        log.info("heal.done", kind=kind, number=number)
    return number
