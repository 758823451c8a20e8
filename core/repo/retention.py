"""What may go: expired addresses, what deleted sessions left, objects that no row names. The caller owns the transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, delete, exists, or_, select, true, union, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from core.models import Artifact, Batch, CrawledFile, CrawlSession, Media, Picture, Registration, Segment, Static

_OWNERS: Final[dict[str, Sequence[tuple[InstrumentedAttribute[Any], ColumnElement[bool]]]]] = {
    "crawl/": [(Segment.key, Segment.deleted.is_(False))],
    "batches/": [(Artifact.key, true())],
    "frontiers/": [(CrawlSession.snapshot_key, true())],
    "crawled/": [(CrawledFile.key, true())],
    "pictures/": [
        (Picture.fingerprint_key, Picture.deleted.is_(False)),
        (Picture.small_key, Picture.deleted.is_(False)),
        (Static.key, true()),
    ],
    "registrations/": [(Registration.lmk_key, exists().where(Media.registration_id == Registration.id))],
    "queries/": [],
    "uploads/": [(Static.key, true())],
    "watermarking/": [(Static.key, true())],
    "doctor/": [],
}
"""Which rows name the objects below a prefix."""

PREFIXES: Final = tuple(_OWNERS)


def unowned(tx: Session, prefix: str, keys: Sequence[str]) -> list[str]:
    """Those of the keys (at most 500, all below the prefix) that no row names."""
    owners = [select(column).where(column.in_(keys), condition) for column, condition in _OWNERS[prefix]]
    owned = set(tx.scalars(union(*owners))) if owners else set()
    return [key for key in keys if key not in owned]


def expired_statics(tx: Session, now: datetime, limit: int) -> list[Static]:
    """Addresses that are over and belong to nothing (those of artifacts and pictures go with them)."""
    used = exists().where(Artifact.static_id == Static.id) | exists().where(
        or_(Picture.preview_id == Static.id, Picture.thumbnail_id == Static.id)
    )
    used |= exists().where(Registration.preview_id == Static.id)
    return list(tx.scalars(select(Static).where(Static.expires <= now, ~used).order_by(Static.id).limit(limit)))


def forget_statics(tx: Session, static_ids: Sequence[int]) -> None:
    tx.execute(delete(Static).where(Static.id.in_(static_ids)))


def deleted_sessions(tx: Session, limit: int) -> list[int]:
    """Sessions that their owners deleted and of which something is left."""
    left = or_(
        CrawlSession.snapshot_key.is_not(None),
        exists().where(Segment.session_id == CrawlSession.id),
        exists().where(Batch.session_id == CrawlSession.id),
        exists().where(CrawledFile.session_id == CrawlSession.id, CrawledFile.retired.is_(None)),
    )
    return list(tx.scalars(select(CrawlSession.id).where(CrawlSession.deleted.is_(True), left).order_by(CrawlSession.id).limit(limit)))


def session_prefixes(session_id: int) -> tuple[str, ...]:
    """Below these are all objects of a session."""
    return f"crawl/{session_id}/", f"batches/{session_id}/", f"frontiers/{session_id}/"


def forget_session(tx: Session, session_id: int, now: datetime) -> None:
    """Removes the rows of a deleted session's segments and batches; its own row stays (matches name it, ids are never used twice).

    Its crawled files are retired: they may share an object with those of others.
    """
    session = tx.get_one(CrawlSession, session_id, with_for_update={"key_share": True})  # first, as everybody does
    batches: Select[int] = select(Batch.id).where(Batch.session_id == session_id)
    statics = list(tx.scalars(select(Artifact.static_id).where(Artifact.batch_id.in_(batches))))
    tx.execute(delete(Artifact).where(Artifact.batch_id.in_(batches)).execution_options(synchronize_session=False))
    tx.execute(delete(Batch).where(Batch.session_id == session_id).execution_options(synchronize_session=False))
    for start in range(0, len(statics), 500):
        forget_statics(tx, statics[start : start + 500])
    tx.execute(delete(Segment).where(Segment.session_id == session_id).execution_options(synchronize_session=False))
    tx.execute(update(CrawledFile).where(CrawledFile.session_id == session_id, CrawledFile.retired.is_(None)).values(retired=now))
    session.snapshot_key = None
    tx.flush()
