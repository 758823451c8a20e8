"""How much of what waits, for the operator."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.models import CrawlSession, Outbox, Segment


class Waiting(NamedTuple):
    sessions: Mapping[str, int]
    """State -> how many."""
    outbox: int
    unsent: int
    """Stored journal pieces whose messages nobody acknowledged, without those that were given up."""
    oldest_unsent: datetime | None
    oldest_outbox: datetime | None


def waiting(tx: Session) -> Waiting:
    states = select(CrawlSession.state, func.count()).where(CrawlSession.deleted.is_(False)).group_by(CrawlSession.state)
    unsent = select(func.count(), func.min(Segment.stored)).join(CrawlSession, CrawlSession.id == Segment.session_id)
    unsent = unsent.where(Segment.kind == "journal", Segment.sent.is_(None), Segment.given_up.is_(None), CrawlSession.deleted.is_(False))
    pieces, oldest = tx.execute(unsent).one()
    outbox, oldest_outbox = tx.execute(select(func.count(), func.min(Outbox.created))).one()
    sessions = {row.state: row[1] for row in tx.execute(states)}
    return Waiting(sessions, outbox, pieces, oldest, oldest_outbox)
