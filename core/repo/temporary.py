"""What is kept for a while only: static addresses that expire, and pictures that are marked while nobody waits. The caller owns the
transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from core.models import Static, Watermarking

PENDING: Final = "pending"
DONE: Final = "done"
FAILED: Final = "failed"


def add_static(tx: Session, key: str, content_type: str, filename: str, now: datetime, expires: datetime) -> Static:
    static = Static(key=key, content_type=content_type, filename=filename, created=now, expires=expires)
    tx.add(static)
    tx.flush()
    return static


def add_watermarking(tx: Session, account_id: int, folder: str, sealed: bytes, now: datetime, expires: datetime) -> Watermarking:
    row = Watermarking(account_id=account_id, folder=folder, sealed=sealed, state=PENDING, tries=0, due=now, created=now, expires=expires)
    tx.add(row)
    tx.flush()
    return row


def waiting(tx: Session, now: datetime) -> bool:
    """Whether there is one to claim."""
    return tx.scalar(_claimable(now).limit(1)) is not None


def claim(tx: Session, now: datetime, patience: timedelta) -> Watermarking | None:
    """One that is to be done, for whoever asks: nobody else gets it before `patience` is over. The oldest that is due first."""
    row = tx.scalar(_claimable(now).order_by(Watermarking.due, Watermarking.id).limit(1).with_for_update(skip_locked=True))
    if row is not None:
        row.due, row.tries = now + patience, row.tries + 1
        tx.flush()
    return row


def _claimable(now: datetime) -> Select[Watermarking]:
    return select(Watermarking).where(Watermarking.state == PENDING, Watermarking.due <= now, Watermarking.expires > now)


def finish(tx: Session, watermarking_id: int, reason: str | None = None) -> bool:
    """It is done, or has failed for the reason; False where it was finished already."""
    row = tx.get(Watermarking, watermarking_id, with_for_update=True, populate_existing=True)
    if row is None or row.state != PENDING:
        return False
    row.state, row.reason = DONE if reason is None else FAILED, reason
    tx.flush()
    return True


def again(tx: Session, watermarking_id: int, due: datetime) -> None:
    """It is taken up again then, and this try does not count."""
    row = tx.get(Watermarking, watermarking_id, with_for_update=True, populate_existing=True)
    if row is not None and row.state == PENDING:
        row.due, row.tries = due, row.tries - 1
        tx.flush()


def of_folder(tx: Session, folder: str) -> Watermarking | None:
    return tx.scalar(select(Watermarking).where(Watermarking.folder == folder))


def expired(tx: Session, now: datetime, limit: int) -> Sequence[int]:
    """Ids of those whose objects are over."""
    return tx.scalars(select(Watermarking.id).where(Watermarking.expires <= now).order_by(Watermarking.id).limit(limit)).all()


def forget(tx: Session, watermarking_ids: Sequence[int]) -> None:
    tx.execute(delete(Watermarking).where(Watermarking.id.in_(watermarking_ids)))
