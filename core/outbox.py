"""Messages that follow a database write: a row in the same transaction, the message built from the database when it is sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import structlog
from sqlalchemy.orm import Session

from core.bus import Outgoing
from core.errors import NotFound, Unavailable
from core.events import MEDIA, SESSIONS, SessionWoken, encode
from core.models import CrawlSession, Outbox
from core.repo import media, messages
from core.services import Services

log = structlog.get_logger()


def drain(services: Services, limit: int = 500) -> int:
    """Sends what is due and deletes its rows; returns how many. A crash in between sends them twice, which changes nothing.

    A bus or a database that is away is logged and no error: whoever calls has committed already, and the scheduler drains again.
    """
    try:
        return _drain(services, limit)
    except Unavailable as error:
        log.warning("outbox.waits", code=error.code, details=error.details)
        return 0


def _drain(services: Services, limit: int) -> int:
    with services.database.read() as tx:
        rows = messages.due(tx, limit)
        outgoing = _build(tx, rows)
    if not rows:
        return 0
    sent = None
    while sent != outgoing:  # else another process may have sent a newer state before ours, and the last one sent is what the bus keeps
        services.bus.publish(outgoing)
        sent = outgoing
        with services.database.read() as tx:
            outgoing = _build(tx, rows)
    with services.database.write() as tx:
        messages.sent(tx, rows)
    return len(rows)


def _build(tx: Session, rows: Sequence[Outbox]) -> list[Outgoing]:
    subjects = dict.fromkeys((row.topic, row.subject_id) for row in rows)
    return [message for topic, subject_id in subjects if (message := _BUILDERS[topic](tx, subject_id)) is not None]


def _session(tx: Session, session_id: int) -> Outgoing | None:
    session = tx.get(CrawlSession, session_id)
    return Outgoing(SESSIONS, session.domain, encode(SessionWoken(session.id, session.domain))) if session else None


def _media(tx: Session, picture_id: int) -> Outgoing | None:
    try:
        return Outgoing(MEDIA, str(picture_id), encode(media.changed(tx, picture_id)))
    except NotFound:
        return None


_BUILDERS: Final[dict[str, Callable[[Session, int], Outgoing | None]]] = {SESSIONS: _session, MEDIA: _media}
"""What is sent about a subject as it is now; None when it is gone."""
