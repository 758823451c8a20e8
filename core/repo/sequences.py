"""The numbers that the database has given out: ids, epochs, versions. They never go down, except where it was restored from a backup.

The caller owns the transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import exists, func, insert, literal, select, text, update
from sqlalchemy.orm import Session

from core.events import MEDIA, SESSIONS
from core.models import Account, Base, Batch, CrawlSession, Lease, Outbox, Picture

TABLES: Final = tuple(sorted(name for name, table in Base.metadata.tables.items() if "id" in table.columns))
_FREE: Final = datetime(1970, 1, 1, tzinfo=UTC)


def ids(tx: Session) -> dict[str, int]:
    """Table -> the highest id that was ever given out; rows that are gone count too."""
    if _is_postgres(tx):
        # of the last value nothing is told before the first one
        last = "SELECT coalesce(pg_sequence_last_value(cast(pg_get_serial_sequence(:name, 'id') AS regclass)), 0)"
        return {name: int(tx.scalar(text(last), {"name": name}) or 0) for name in TABLES}
    given = {row.name: int(row.seq) for row in tx.execute(text("SELECT name, seq FROM sqlite_sequence"))}
    return {name: given.get(name, 0) for name in TABLES}


def epoch(tx: Session) -> int:
    """The highest of all leases."""
    return tx.scalar(select(func.max(Lease.epoch))) or 0


def registry_version(tx: Session) -> int:
    """The highest of all accounts."""
    return tx.scalar(select(func.max(Account.registry_version))) or 0


def raise_ids(tx: Session, least: Mapping[str, int]) -> None:
    """From now on every table gives out ids above these."""
    now = ids(tx)
    for name in TABLES:
        above = max(now[name], least.get(name, 0))
        if above == now[name]:
            continue
        if _is_postgres(tx):
            tx.execute(text("SELECT setval(cast(pg_get_serial_sequence(:name, 'id') AS regclass), :above)"), {"name": name, "above": above})
        elif tx.execute(text("UPDATE sqlite_sequence SET seq = :above WHERE name = :name"), {"name": name, "above": above}).rowcount == 0:  # type: ignore[attr-defined]
            tx.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :above)"), {"name": name, "above": above})


def raise_epochs(tx: Session, above: int) -> int:
    """Ends every lease; whoever takes one next has an epoch above that, also on a domain that no row names yet. Returns how many."""
    tx.execute(update(Lease).values(epoch=above, expires=_FREE, holder="", wanted=None))
    unnamed = select(CrawlSession.domain).where(~exists().where(Lease.domain == CrawlSession.domain)).distinct()
    tx.add_all(Lease(domain=domain, holder="", epoch=above, expires=_FREE) for domain in list(tx.scalars(unnamed)))
    tx.flush()
    return tx.scalar(select(func.count()).select_from(Lease)) or 0


def raise_registries(tx: Session, above: int) -> None:
    """Every account's registry and every picture has a version above that: whoever knows an older one reads all again."""
    tx.execute(update(Account).values(registry_version=above + 1))
    tx.execute(update(Picture).values(version=above + 1))


def begin_anew(tx: Session, cycles: Mapping[int, int]) -> int:
    """Sessions whose unfinished cycle, or a later one, has left objects that no row names begin a cycle behind these. Returns how many.

    `cycles`: session -> the highest cycle of such objects.
    """
    changed = 0
    for session in tx.scalars(select(CrawlSession).where(CrawlSession.deleted.is_(False))):
        seen = cycles.get(session.id, -1)
        if seen < session.cycle_count or (seen == session.cycle_count and _has_batch(tx, session)):
            continue
        session.cycle_count = seen + 1
        session.state = "pending" if session.state == "running" else session.state
        changed += 1
    tx.flush()
    return changed


def _has_batch(tx: Session, session: CrawlSession) -> bool:
    return bool(tx.scalar(select(exists().where(Batch.session_id == session.id, Batch.crawl_cycle == session.cycle_count))))


def announce_all(tx: Session, now: datetime) -> int:
    """The state of every session and every registered picture is to be sent. Returns how many messages that is."""
    before = tx.scalar(select(func.count()).select_from(Outbox)) or 0
    columns = ["topic", "subject_id", "created"]
    time = literal(now, Outbox.created.type)
    tx.execute(insert(Outbox).from_select(columns, select(literal(MEDIA), Picture.id, time)))
    sessions = select(literal(SESSIONS), CrawlSession.id, time).where(CrawlSession.deleted.is_(False))
    tx.execute(insert(Outbox).from_select(columns, sessions))
    return (tx.scalar(select(func.count()).select_from(Outbox)) or 0) - before


def _is_postgres(tx: Session) -> bool:
    return tx.get_bind().dialect.name == "postgresql"
