"""Removes what is over. Every job may be cut anywhere and run twice: what is left is found again.

Each yields, after a bounded piece of work, how many things it removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Final

from sqlalchemy.orm import Session

from core.bus.embedded import EmbeddedBus
from core.events import FEATURES, IMAGES, RESULTS, SEARCHES, SESSIONS
from core.repo import crawls, retention, temporary
from core.repo.healing import MESSAGES_KEPT
from core.services import Services

DAY: Final = timedelta(days=1)
KEEP: Final = {IMAGES: MESSAGES_KEPT, FEATURES: DAY, SEARCHES: DAY, RESULTS: DAY, SESSIONS: DAY}
"""How long the embedded bus keeps what every group has committed. `media` is compacted instead."""
JOURNALS: Final = MESSAGES_KEPT + DAY
"""How long a cycle's pieces outlive its batch: messages that a bus drops unread, for their age, can still be built again."""
_PIECE: Final = 500


def segments(services: Services) -> Iterator[int]:
    """Segments that were joined more than a day ago, and pieces that the bus's messages need not be built from any more. The rows first:
    whoever reads them is sent to the artifact before the object goes."""
    while True:
        keys = services.database.transact(partial(_expire, now=services.clock.now()))
        if not keys:
            return
        services.store.delete(keys)
        yield len(keys)


def _expire(tx: Session, now: datetime) -> list[str]:
    rows = crawls.expired_segments(tx, now - DAY, _PIECE, journals_before=now - JOURNALS)
    crawls.mark_deleted(tx, [row.id for row in rows])
    return [row.key for row in rows]


def statics(services: Services) -> Iterator[int]:
    """Expired addresses with their objects; the objects first, while a row still names them."""
    while True:
        with services.database.read() as tx:
            rows = retention.expired_statics(tx, services.clock.now(), _PIECE)
        if not rows:
            return
        services.store.delete([row.key for row in rows])
        with services.database.write() as tx:
            retention.forget_statics(tx, [row.id for row in rows])
        yield len(rows)


def watermarkings(services: Services) -> Iterator[int]:
    """Orders to mark a picture whose addresses are over; the objects go with these."""
    while True:
        with services.database.read() as tx:
            over = temporary.expired(tx, services.clock.now(), _PIECE)
        if not over:
            return
        with services.database.write() as tx:
            temporary.forget(tx, over)
        yield len(over)


def deleted_sessions(services: Services) -> Iterator[int]:
    """Everything that deleted sessions left: objects, then rows. What a worker stores before it notices is found the next time."""
    with services.database.read() as tx:
        session_ids = retention.deleted_sessions(tx, _PIECE)
    for session_id in session_ids:
        for prefix in retention.session_prefixes(session_id):
            for keys in _keys(services, prefix):
                services.store.delete(keys)
                yield len(keys)
        services.database.transact(partial(retention.forget_session, session_id=session_id, now=services.clock.now()))
        yield 1


def orphans(services: Services) -> Iterator[int]:
    """Objects older than a day that no row names: of cut closings, half-done artifacts, replaced snapshots, unfinished registrations."""
    for prefix in retention.PREFIXES:
        for keys in _keys(services, prefix, older_than=DAY):
            with services.database.read() as tx:
                unowned = retention.unowned(tx, prefix, keys)
            services.store.delete(unowned)
            yield len(unowned)


def store(services: Services) -> Iterator[int]:
    """What writers that died left of objects that never showed: temporary files, unfinished uploads."""
    yield services.store.sweep(services.clock.now() - DAY)


def bus(services: Services) -> Iterator[int]:
    """Old messages of the embedded log; a broker has its own retention."""
    if isinstance(services.bus, EmbeddedBus):
        for topic, age in KEEP.items():
            yield services.bus.trim(topic, services.clock.now() - age)


def _keys(services: Services, prefix: str, *, older_than: timedelta = timedelta(0)) -> Iterator[list[str]]:
    limit = services.clock.now() - older_than
    found = (info.key for info in services.store.list(prefix) if not older_than or info.modified < limit)
    while keys := list(islice(found, _PIECE)):
        yield keys
