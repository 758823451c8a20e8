"""Messages that follow a database write: a row in the same transaction, the message built from the database when it is sent."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from core.bus import Outgoing
from core.errors import NotFound
from core.events import MEDIA, SESSIONS, SessionWoken, encode
from core.models import CrawlSession, Outbox

if TYPE_CHECKING:
    from core.services import Services


def add(tx: Session, topic: str, subject_id: int, now: datetime) -> None:
    """A message on the topic about the subject (a session, a picture) is to be sent once this transaction is committed."""
    tx.add(Outbox(topic=topic, subject_id=subject_id, created=now))


def drain(services: Services, limit: int = 500) -> int:
    """Sends what is due and deletes its rows; returns how many. A crash in between sends them twice, which changes nothing."""
    with services.database.read() as tx:
        rows = list(tx.scalars(select(Outbox).order_by(Outbox.id).limit(limit)))
        messages = [message for row in rows if (message := _build(tx, row))]
    if not rows:
        return 0
    services.bus.publish(messages)
    with services.database.write() as tx:
        tx.execute(delete(Outbox).where(Outbox.id.in_([row.id for row in rows])))
    return len(rows)


def _build(tx: Session, row: Outbox) -> Outgoing | None:
    from core.repo import media  # the repositories add rows here

    if row.topic == SESSIONS:
        session = tx.get(CrawlSession, row.subject_id)
        return Outgoing(SESSIONS, session.domain, encode(SessionWoken(session.id, session.domain))) if session else None
    if row.topic == MEDIA:
        try:
            return Outgoing(MEDIA, str(row.subject_id), encode(media.changed(tx, row.subject_id)))
        except NotFound:
            return None
    raise ValueError(f"no message is known for the topic {row.topic}")
