"""Which objects have a row: what the sweeper may not touch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from core.models import Artifact, CrawlSession, Picture, Registration, Segment, Static

_KEPT_BY: Final[dict[str, tuple[InstrumentedAttribute[str] | InstrumentedAttribute[str | None], ...]]] = {
    "crawl/": (Segment.key,),
    "batches/": (Artifact.key,),
    "frontiers/": (CrawlSession.snapshot_key,),
    "pictures/": (Picture.fingerprint_key, Static.key),
    "registrations/": (Registration.lmk_key,),
    "queries/": (),
}
PREFIXES: Final = tuple(_KEPT_BY)


def known(tx: Session, prefix: str, keys: Sequence[str]) -> set[str]:
    """Those of the keys (all with the prefix) that a row names."""
    found: set[str] = set()
    for column in _KEPT_BY[prefix]:
        found.update(key for key in tx.scalars(select(column).where(column.in_(keys), *_alive(column))) if key)
    return found


def _alive(column: object) -> list[ColumnElement[bool]]:
    if column is Segment.key:
        return [Segment.deleted.is_(False)]
    if column is CrawlSession.snapshot_key:
        return [CrawlSession.deleted.is_(False)]
    return []


def expired_statics(tx: Session, now: datetime, limit: int) -> list[Static]:
    """Public addresses whose time is over and whose object is still there."""
    return list(tx.scalars(select(Static).where(Static.expires <= now, Static.key != "").order_by(Static.id).limit(limit)))


def forget_statics(tx: Session, static_ids: Sequence[int]) -> None:
    """Their objects go. An address that artifacts or pictures still point to stays as a row without a key: it answers 410."""
    tx.execute(update(Static).where(Static.id.in_(static_ids)).values(key=""))

