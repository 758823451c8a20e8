"""When messages are gone, or cannot be made: they are sent again from what is stored, or it is said. The caller owns the transaction."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import exists, func, insert, literal, select, update
from sqlalchemy.orm import Session

from core.bus import RETENTION_DAYS
from core.database import statements
from core.events import MEDIA
from core.models import Batch, CrawlSession, Outbox, Picture, Segment, Topic

TRIES: Final = 30
"""Then a piece that cannot be read is given up: some minutes, at the pace of `heal`."""

MESSAGES_KEPT: Final = timedelta(days=RETENTION_DAYS)
"""Older messages may be gone because of their age; what was not read by then is built again."""


class Healing(NamedTuple):
    """`pieces`: journal pieces that are sent again. `batches`: those of which nothing can be, since their pieces are deleted."""

    pieces: int
    batches: int


def send_images_again(tx: Session, now: datetime, since: datetime) -> Healing:
    """Every journal piece that is still there is sent again (`heal` does it); effects are idempotent, so once too often changes nothing.

    Args:
        since: the oldest batch that messages may be missing of.
    """
    alive = CrawlSession.deleted.is_(False) & CrawlSession.search.is_(True)
    sessions = select(CrawlSession.id).where(alive)
    pieces = update(Segment).where(Segment.kind == "journal", Segment.deleted.is_(False), Segment.sent <= now)
    pieces = pieces.where(Segment.session_id.in_(sessions)).values(sent=None).execution_options(synchronize_session=False)
    deleted = exists().where(
        Segment.session_id == Batch.session_id, Segment.cycle == Batch.crawl_cycle, Segment.kind == "journal", Segment.deleted.is_(True)
    )
    lost = select(func.count()).select_from(Batch).where(Batch.session_id.in_(sessions), Batch.ctime >= since, deleted)
    return Healing(tx.execute(pieces).rowcount, tx.scalar(lost) or 0)  # type: ignore[attr-defined]


def send_media_again(tx: Session, now: datetime) -> int:
    """A message for each registered picture; returns how many."""
    pictures = select(literal(MEDIA), Picture.id, literal(now, Outbox.created.type)).where(Picture.deleted.is_(False)).order_by(Picture.id)
    tx.execute(insert(Outbox).from_select(["topic", "subject_id", "created"], pictures))
    return tx.scalar(select(func.count()).select_from(Picture).where(Picture.deleted.is_(False))) or 0


def note_missed(tx: Session, topic: str, now: datetime) -> None:
    """Messages of the topic are gone unread; whoever notices it, and however often: they are sent again together, by the scheduler."""
    row = _topic(tx, topic)
    row.missed = row.missed or now


def take_missed(tx: Session, topic: str, identity: str, before: datetime, now: datetime) -> bool:
    """Whether the topic's messages are to be sent again now: they are known to be gone since `before` at least. True once only.

    Args:
        identity: the bus's topic's; another one than the last means that all of them are gone.
    """
    row = _topic(tx, topic)
    if row.identity not in (None, identity):
        row.missed = row.missed or now
    row.identity = identity
    if row.missed is None or row.missed > before:
        return False
    row.missed = None
    return True


def _topic(tx: Session, name: str) -> Topic:
    """The topic's row, locked; made by who comes first."""
    tx.execute(statements.insert(tx, Topic).values(name=name).on_conflict_do_nothing())
    return tx.get_one(Topic, name, with_for_update=True)


def failed(tx: Session, segment_id: int, reason: str, now: datetime) -> Segment:
    """Notes that a journal piece made trouble once more; `given_up` says whether that was the last time."""
    row = tx.get_one(Segment, segment_id, with_for_update=True)
    row.tries, row.trouble = row.tries + 1, reason[:1000]
    if row.tries >= TRIES and row.given_up is None:
        row.given_up = now
    return row


def given_up(tx: Session) -> list[Segment]:
    """Journal pieces that nobody tries any more, of sessions that are still there."""
    found = select(Segment).join(CrawlSession, CrawlSession.id == Segment.session_id)
    return list(tx.scalars(found.where(Segment.given_up.is_not(None), CrawlSession.deleted.is_(False)).order_by(Segment.id)))


def rearm(tx: Session) -> list[Segment]:
    """These pieces have all their tries again. Those after them in their cycles are sent again, too: they went without what is in these."""
    rows = given_up(tx)
    for row in rows:
        row.tries, row.given_up = 0, None
        later = update(Segment).where(Segment.session_id == row.session_id, Segment.cycle == row.cycle, Segment.seq > row.seq)
        tx.execute(later.where(Segment.kind == "journal").values(sent=None))
    return rows
