"""When messages are gone, or cannot be made: they are sent again from what is stored, or it is said. The caller owns the transaction."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import exists, func, insert, literal, select, update
from sqlalchemy.orm import Session

from core.bus import RETENTION_DAYS
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


def is_another(tx: Session, topic: str, identity: str) -> bool:
    """Remembers the topic's identity; whether another one was known until now."""
    known = tx.get(Topic, topic, with_for_update=True)
    if known is None:
        tx.add(Topic(name=topic, identity=identity))
        return False
    another = known.identity != identity
    known.identity = identity
    return another


def failed(tx: Session, segment_id: int, reason: str, now: datetime) -> Segment:
    """Notes that a journal piece made trouble once more; `given_up` says whether that was the last time."""
    row = tx.get_one(Segment, segment_id, with_for_update=True)
    row.tries, row.trouble = row.tries + 1, reason[:1000]
    if row.tries >= TRIES and row.given_up is None:
        row.given_up = now
    return row
