"""Messages that follow a database write: a row in the same transaction, the message built from the database when it is sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

import structlog
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from core.bus import Outgoing
from core.errors import NotFound, Unavailable
from core.events import MEDIA, SESSIONS, SessionWoken, encode
from core.models import CrawlSession, Outbox

if TYPE_CHECKING:
    from core.services import Services

log = structlog.get_logger()


def add(tx: Session, topic: str, subject_id: int, now: datetime) -> None:
    """A message on the topic about the subject (a session, a picture) is to be sent once this transaction is committed."""
    if topic not in _BUILDERS:
        raise ValueError(f"no message is known for the topic {topic}")
    tx.add(Outbox(topic=topic, subject_id=subject_id, created=now))


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
        rows = list(tx.scalars(select(Outbox).order_by(Outbox.id).limit(limit)))
        messages = _build(tx, rows)
    if not rows:
        return 0
    sent = None
    while sent != messages:  # else another process may have sent a newer state before ours, and the last one sent is what the bus keeps
        services.bus.publish(messages)
        sent = messages
        with services.database.read() as tx:
            messages = _build(tx, rows)
    with services.database.write() as tx:
        tx.execute(delete(Outbox).where(Outbox.id.in_([row.id for row in rows])))
    return len(rows)


def _build(tx: Session, rows: Sequence[Outbox]) -> list[Outgoing]:
    subjects = dict.fromkeys((row.topic, row.subject_id) for row in rows)
    return [message for topic, subject_id in subjects if (message := _BUILDERS[topic](tx, subject_id)) is not None]


def _session(tx: Session, session_id: int) -> Outgoing | None:
    session = tx.get(CrawlSession, session_id)
    return Outgoing(SESSIONS, session.domain, encode(SessionWoken(session.id, session.domain))) if session else None


def _media(tx: Session, picture_id: int) -> Outgoing | None:
    from core.repo import media  # which adds rows here

    try:
        return Outgoing(MEDIA, str(picture_id), encode(media.changed(tx, picture_id)))
    except NotFound:
        return None


_BUILDERS: Final[dict[str, Callable[[Session, int], Outgoing | None]]] = {SESSIONS: _session, MEDIA: _media}
"""What is sent about a subject as it is now; None when it is gone."""
