"""How much of what waits, for the operator."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core import leases
from core.models import CrawlSession, Lease, Outbox, Segment
from core.repo import crawls


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
    pieces, oldest = tx.execute(select(func.count(), func.min(Segment.stored)).where(*crawls.is_unsent())).one()
    outbox, oldest_outbox = tx.execute(select(func.count(), func.min(Outbox.created))).one()
    sessions = {row.state: row[1] for row in tx.execute(states)}
    return Waiting(sessions, outbox, pieces, oldest, oldest_outbox)


def holders(tx: Session, now: datetime) -> dict[str, int]:
    """Holder -> on how many domains it has leases now."""
    held = select(Lease.holder, func.count()).where(Lease.expires > now, leases.on_domain())
    held = held.group_by(Lease.holder).order_by(Lease.holder)
    return {row.holder: row[1] for row in tx.execute(held)}


def abandoned(tx: Session, now: datetime) -> int:
    """How many running sessions have no crawler now."""
    leased = select(Lease.domain).where(Lease.expires > now)
    running = (CrawlSession.state == "running", CrawlSession.deleted.is_(False))
    return tx.scalar(select(func.count()).where(*running, ~CrawlSession.domain.in_(leased))) or 0
