"""The outbox's rows: messages that follow a database write and are to be sent once it is committed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from core.events import MEDIA, SESSIONS
from core.models import Outbox

TOPICS: Final = (SESSIONS, MEDIA)


def add(tx: Session, topic: str, subject_id: int, now: datetime) -> None:
    """A message on the topic about the subject (a session, a picture) is to be sent once this transaction is committed."""
    if topic not in TOPICS:
        raise ValueError(f"no message is known for the topic {topic}")
    tx.add(Outbox(topic=topic, subject_id=subject_id, created=now))


def due(tx: Session, limit: int) -> list[Outbox]:
    """The oldest first."""
    return list(tx.scalars(select(Outbox).order_by(Outbox.id).limit(limit)))


def claimed(tx: Session, limit: int) -> list[Outbox]:
    """Like `due`, and nobody else's until the transaction ends: rows that others have claimed are left out."""
    return list(tx.scalars(select(Outbox).order_by(Outbox.id).limit(limit).with_for_update(skip_locked=True)))


def sent(tx: Session, rows: Sequence[Outbox]) -> None:
    tx.execute(delete(Outbox).where(Outbox.id.in_([row.id for row in rows])))
