"""Sessions, segments and batches as a crawler leaves them, for tests of what comes after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from core import leases
from core.leases import Held
from core.models import Batch, CrawlSession, Segment
from core.repo import accounts, crawls
from core.repo.crawls import ArtifactDraft
from core.services import Services

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def add_account(services: Services, name: str = "owner") -> int:
    with services.database.write() as tx:
        return accounts.create(tx, b"secret", name, now=NOW)[0].id


def add_session(services: Services, account_id: int, *, domain: str = "a.example", now: datetime = NOW, **options: Any) -> CrawlSession:
    with services.database.write() as tx:
        return crawls.create_session(tx, account_id, start_urls=[f"http://{domain}/"], domain=domain, now=now, **options)


def hold(services: Services, domain: str = "a.example", *, holder: str = "worker", now: datetime = NOW, restart: bool = False) -> Held:
    with services.database.write() as tx:
        held = leases.acquire(tx, domain, holder, 30, now, restart=restart)
    assert held is not None
    return held


def begin(services: Services, held: Held, session_id: int, now: datetime = NOW) -> CrawlSession:
    with services.database.write() as tx:
        return crawls.begin_cycle(tx, held, session_id, now)


def segment(held: Held, session: CrawlSession, kind: str, seq: int, now: datetime = NOW, data: bytes = b"bytes") -> Segment:
    return Segment(
        session_id=session.id,
        cycle=session.cycle_count,
        kind=kind,
        seq=seq,
        epoch=held.epoch,
        key=f"crawl/{session.id}/{session.cycle_count}/{held.epoch}/{seq:06d}.{kind}",
        length=len(data),
        sha256="0" * 64,
        stored=now,
    )


def store(services: Services, held: Held, session: CrawlSession, pieces: Sequence[tuple[str, int]], now: datetime = NOW) -> list[Segment]:
    """Stored segments (kind, seq), with objects."""
    rows = [segment(held, session, kind, seq, now) for kind, seq in pieces]
    for row in rows:
        services.store.put(row.key, b"bytes")
    with services.database.write() as tx:
        crawls.store_segments(tx, held, rows)
    return rows


def finish(
    services: Services,
    held: Held,
    session: CrawlSession,
    now: datetime = NOW,
    *,
    offsets: Mapping[tuple[str, int], int] | None = None,
    state: str = "done",
    reason: str | None = None,
) -> Batch:
    """A batch with an images.tar, with objects."""
    prefix = f"{session.id}/{session.cycle_count}"
    draft = ArtifactDraft("images.tar", 1, f"batches/{prefix}/{held.epoch}/images.tar", 5, "0" * 64, "application/x-tar", "images.tar")
    snapshot_key = f"frontiers/{prefix}-{held.epoch}"
    for key in (draft.key, snapshot_key):
        services.store.put(key, b"whole")
    with services.database.write() as tx:
        return crawls.finish_cycle(
            tx,
            held,
            session.id,
            artifacts=[draft],
            offsets=offsets or {},
            snapshot_key=snapshot_key,
            state=state,
            reason=reason,
            now=now,
        )


def reload(services: Services, session_id: int) -> CrawlSession:
    with services.database.read() as tx:
        return tx.get_one(CrawlSession, session_id)
