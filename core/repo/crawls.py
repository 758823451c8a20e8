"""Sessions, their cycles, segments and batches. The caller owns the transaction."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from apscheduler.triggers.cron import CronTrigger
from sqlalchemy import ColumnElement, Select, case, exists, func, select, update
from sqlalchemy.orm import Session, aliased

from core import leases
from core.errors import Conflict, InvalidInput, NotFound, ObjectMissing
from core.events import SESSIONS
from core.leases import Held
from core.models import Artifact, Batch, CrawlSession, Lease, Segment, Static
from core.repo import messages

OPTIONS: Final = frozenset(
    {
        "start_urls", "crawl_delay", "download_delay", "download_timeout", "search", "robots", "shared",
        "interval", "cron", "max_depth", "max_pages", "user_agent",
    }
)  # fmt: skip
"""What a session's owner may set."""
_LOCK: Final = {"key_share": True}
"""Not against foreign keys: segments and batches of a locked session can be added."""


@dataclass(frozen=True, slots=True)
class ArtifactDraft:
    """A whole, verified file of a batch."""

    name: str
    count: int
    key: str
    length: int
    sha256: str
    content_type: str
    filename: str


# --- sessions


def create_session(tx: Session, account_id: int, *, start_urls: list[str], domain: str, now: datetime, **options: Any) -> CrawlSession:
    """A pending session. Raises InvalidInput for a cron line that means nothing."""
    session = CrawlSession(account_id=account_id, domain=domain, start_urls=start_urls, ctime=now, mtime=now, **_known(options))
    tx.add(session)
    tx.flush()
    messages.add(tx, SESSIONS, session.id, now)
    return session


def _known(options: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := options.keys() - OPTIONS:
        raise InvalidInput(f"a session has no {', '.join(sorted(unknown))}")
    if options.get("cron") is not None:
        _trigger(options["cron"])
    return dict(options)


def get_session(tx: Session, account_id: int | None, session_id: int) -> CrawlSession:
    """The account's session (None: anybody's). Raises NotFound, also for deleted ones."""
    return _present(tx.get(CrawlSession, session_id), account_id, session_id)


def _locked(tx: Session, account_id: int | None, session_id: int) -> CrawlSession:
    """Like `get_session`, for who decides by its state. After the lease, before everything else that a transaction locks."""
    return _present(tx.get(CrawlSession, session_id, with_for_update=_LOCK, populate_existing=True), account_id, session_id)


def _present(session: CrawlSession | None, account_id: int | None, session_id: int) -> CrawlSession:
    if session is None or session.deleted or account_id not in (None, session.account_id):
        raise NotFound(f"there is no session {session_id}")
    return session


def sessions_of(account_id: int) -> Select[CrawlSession]:
    return select(CrawlSession).where(CrawlSession.account_id == account_id, CrawlSession.deleted.is_(False))


def update_session(tx: Session, account_id: int, session_id: int, now: datetime, **options: Any) -> CrawlSession:
    """Changes what the owner may set; a running cycle goes on with what it began with."""
    session = _locked(tx, account_id, session_id)
    for name, value in _known(options).items():
        setattr(session, name, value)
    if session.state in ("done", "failed") and {"interval", "cron"} & options.keys():
        session.next_due = _next_due(session, now)
    tx.flush()
    messages.add(tx, SESSIONS, session.id, now)
    return session


def delete_session(tx: Session, account_id: int, session_id: int, now: datetime) -> None:
    """Gone for its owner at once, with its batches; matches stay. The sweeper removes the objects."""
    session = _locked(tx, account_id, session_id)
    session.deleted, session.mtime = True, now
    statics = select(Artifact.static_id).join(Batch).where(Batch.session_id == session.id)
    tx.execute(update(Static).where(Static.id.in_(statics)).values(expires=now))
    messages.add(tx, SESSIONS, session.id, now)


def pause_session(tx: Session, account_id: int, session_id: int, now: datetime) -> CrawlSession:
    """A running cycle ends at once, with its batch; no other begins until it is resumed."""
    return _set_state(tx, account_id, session_id, "paused", now)


def resume_session(tx: Session, account_id: int, session_id: int, now: datetime) -> CrawlSession:
    """A paused session is pending again; others stay as they are."""
    session = _locked(tx, account_id, session_id)
    return _set_state(tx, account_id, session_id, "pending", now) if session.state == "paused" else session


def run_session(tx: Session, account_id: int, session_id: int, now: datetime) -> CrawlSession:
    """Its next cycle begins now. Raises Conflict while one runs."""
    if _locked(tx, account_id, session_id).state == "running":
        raise Conflict(f"session {session_id} is running", code="session_running")
    return _set_state(tx, account_id, session_id, "pending", now)


def _set_state(tx: Session, account_id: int, session_id: int, state: str, now: datetime) -> CrawlSession:
    session = _locked(tx, account_id, session_id)
    session.state, session.next_due = state, None
    tx.flush()
    messages.add(tx, SESSIONS, session.id, now)
    return session


# --- cycles


def waiting(
    tx: Session,
    limit: int,
    *,
    holder: str,
    now: datetime,
    beside: Collection[int] = (),
    closed: Collection[str] = (),
    only: int | None = None,
) -> list[CrawlSession]:
    """Sessions that this worker may run: pending ones, and running ones (whose worker may be dead) of domains that it holds or that nobody
    does. First those of domains that were its own last; the others by chance, so that workers that look at once do not find the same.

    Args:
        beside: sessions that are left out.
        closed: domains whose sessions are.
        only: just this session.
    """
    wanted = select(CrawlSession).outerjoin(Lease, Lease.domain == CrawlSession.domain)
    wanted = wanted.where(CrawlSession.state.in_(("pending", "running")), CrawlSession.deleted.is_(False))
    wanted = wanted.where(CrawlSession.id.not_in(beside), CrawlSession.domain.not_in(closed))
    wanted = wanted.where(Lease.domain.is_(None) | (Lease.holder == holder) | (Lease.expires <= leases.clock(tx, now)))
    if only is not None:
        wanted = wanted.where(CrawlSession.id == only)
    return list(tx.scalars(wanted.order_by(case((Lease.holder == holder, 0), else_=1), func.random()).limit(limit)))


def states(tx: Session, sessions: Collection[int]) -> dict[int, str]:
    """Session -> state; deleted ones are not there."""
    found = select(CrawlSession.id, CrawlSession.state).where(CrawlSession.id.in_(sessions), CrawlSession.deleted.is_(False))
    return {session: state for session, state in tx.execute(found)}  # noqa: C416


def begin_cycle(tx: Session, held: Held, session_id: int, now: datetime) -> CrawlSession:
    """Pending -> running, in a new cycle, or in the last one if that never came to its batch (paused, then its worker died).
    One that runs already is handed over as it is: its cycle goes on.

    Raises:
        StaleLease: the domain has another holder.
        Conflict: the session is paused or ended meanwhile.
    """
    leases.check(tx, held)
    session = _locked(tx, None, session_id)
    if session.state == "pending":
        session.state, session.reason = "running", None
        if session.cycle_count == 0 or _batch_of(tx, session) is not None:
            session.cycle_count += 1
            session.stime = session.mtime = now
        tx.flush()
    elif session.state != "running":
        raise Conflict(f"session {session_id} is {session.state}", code="session_not_pending")
    return session


def is_over(tx: Session, session_id: int, cycle: int) -> bool:
    """Whether nobody will go on with the cycle: it has its batch, or its session is deleted."""
    session = tx.get(CrawlSession, session_id)
    if session is None or session.deleted or session.cycle_count != cycle:
        return True
    return _batch_of(tx, session) is not None


def _batch_of(tx: Session, session: CrawlSession) -> int | None:
    return tx.scalar(select(Batch.id).where(Batch.session_id == session.id, Batch.crawl_cycle == session.cycle_count))


def finish_cycle(
    tx: Session,
    held: Held,
    session_id: int,
    *,
    artifacts: Sequence[ArtifactDraft],
    offsets: Mapping[tuple[str, int], int],
    snapshot_key: str,
    state: str,
    reason: str | None,
    now: datetime,
) -> Batch:
    """The batch appears, with its artifacts; segments learn where they are in them; the session ends its cycle.

    A session that was paused, set to run again or deleted meanwhile stays so. May be repeated by who did not learn that it was done.

    Raises:
        StaleLease: the domain has another holder.
    """
    leases.check(tx, held)
    session = tx.get_one(CrawlSession, session_id, with_for_update=_LOCK, populate_existing=True)
    if (batch_id := _batch_of(tx, session)) is not None:
        return tx.get_one(Batch, batch_id)
    batch = Batch(session_id=session.id, account_id=session.account_id, crawl_cycle=session.cycle_count, ctime=now)
    tx.add(batch)
    tx.flush()
    for draft in artifacts:
        _add_artifact(tx, batch, draft, now)
    for segment in segments_of(tx, session.id, session.cycle_count):
        segment.artifact_offset = offsets.get((segment.kind, segment.seq))
    session.snapshot_key, session.mtime, session.reason = snapshot_key, now, reason
    if session.state == "running":
        session.state, session.next_due = state, _next_due(session, now)
    tx.flush()
    return batch


def _add_artifact(tx: Session, batch: Batch, draft: ArtifactDraft, now: datetime) -> None:
    static = Static(key=draft.key, content_type=draft.content_type, filename=draft.filename, created=now)
    tx.add(static)
    tx.flush()
    row = Artifact(name=draft.name, count=draft.count, key=draft.key, length=draft.length, sha256=draft.sha256, static_id=static.id)
    batch.artifacts.append(row)


_WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _trigger(cron: str) -> CronTrigger:
    """Weekday numbers as in cron (0 and 7 = Sunday), which APScheduler counts from Monday on."""
    head, _, weekdays = " ".join(cron.split()).rpartition(" ")
    monday_first = re.sub(r"(?<!\d)0-(?=[1-7])", "0,1-", weekdays)
    named = re.sub(r"(?<![\d/])[0-7](?!\d)", lambda number: _WEEKDAYS[int(number[0])], monday_first)
    try:
        trigger = CronTrigger.from_crontab(f"{head} {named}", timezone="UTC")
    except ValueError as error:
        raise InvalidInput(f"{cron!r} is not a cron line (minute hour day month weekday): {error}", code="cron_invalid") from error
    if trigger.get_next_fire_time(None, datetime(2000, 1, 1, tzinfo=UTC)) is None:
        raise InvalidInput(f"{cron!r} names no date that exists", code="cron_invalid")
    return trigger


def _next_due(session: CrawlSession, now: datetime) -> datetime | None:
    if session.cron:
        due: datetime | None = _trigger(session.cron).get_next_fire_time(None, now)
        return due
    if session.interval and session.stime:
        return max(session.stime + timedelta(seconds=session.interval), now)
    return None


def due(tx: Session, now: datetime) -> list[int]:
    """Sets to pending what is due again, in one conditional UPDATE, so that two schedulers do nothing twice. Returns the ids."""
    change = update(CrawlSession).where(
        CrawlSession.state.in_(("done", "failed")), CrawlSession.next_due <= now, CrawlSession.deleted.is_(False)
    )
    changed = change.values(state="pending", next_due=None).returning(CrawlSession.id)
    woken = sorted(tx.scalars(changed.execution_options(synchronize_session=False)))
    for session_id in woken:
        messages.add(tx, SESSIONS, session_id, now)
    return woken


# --- segments


def store_segments(tx: Session, held: Held, rows: Sequence[Segment]) -> None:
    """From here on they are stored. May be repeated by who did not learn that it was done. Raises StaleLease."""
    leases.check(tx, held)
    found = select(Segment.key, Segment.sha256).where(Segment.key.in_([row.key for row in rows]))
    there = {key: sha256 for key, sha256 in tx.execute(found)}  # noqa: C416
    tx.add_all(row for row in rows if there.get(row.key) != row.sha256)
    tx.flush()


def mark_sent(tx: Session, session_id: int, cycle: int, seq: int, now: datetime) -> None:
    """The bus acknowledged the messages of this journal piece."""
    tx.execute(
        update(Segment)
        .where(Segment.session_id == session_id, Segment.cycle == cycle, Segment.kind == "journal", Segment.seq == seq)
        .values(sent=now)
    )


def unsent(tx: Session, before: datetime, limit: int) -> list[Segment]:
    """Journal pieces that were stored before then and whose messages nobody acknowledged, without those that were given up."""
    return list(tx.scalars(select(Segment).where(*is_unsent(), Segment.stored < before).order_by(Segment.id).limit(limit)))


def unsent_cycles(tx: Session, before: datetime, limit: int) -> list[tuple[int, int]]:
    """(session, cycle) of such pieces, those that wait longest first."""
    found = (
        select(Segment.session_id, Segment.cycle).where(*is_unsent(), Segment.stored < before).group_by(Segment.session_id, Segment.cycle)
    )
    return [(session_id, cycle) for session_id, cycle in tx.execute(found.order_by(func.min(Segment.id)).limit(limit))]


def is_unsent() -> list[ColumnElement[bool]]:
    """Journal pieces whose messages nobody acknowledged, without those that were given up and those of deleted sessions."""
    there = exists().where(CrawlSession.id == Segment.session_id, CrawlSession.deleted.is_(False))
    return [Segment.kind == "journal", Segment.sent.is_(None), Segment.given_up.is_(None), there]


def segments_of(tx: Session, session_id: int, cycle: int, kind: str | None = None) -> list[Segment]:
    """In the order of each kind's sequence."""
    found = select(Segment).where(Segment.session_id == session_id, Segment.cycle == cycle)
    if kind is not None:
        found = found.where(Segment.kind == kind)
    return list(tx.scalars(found.order_by(Segment.kind, Segment.seq)))


def resolve_segment(tx: Session, session_id: int, cycle: int, seq: int) -> tuple[str, int]:
    """(object key, where the TAR segment begins in it): the segment itself, or the artifact that it was joined into.

    Raises ObjectMissing.
    """
    found = select(Segment).where(Segment.session_id == session_id, Segment.cycle == cycle, Segment.kind == "tar", Segment.seq == seq)
    segment = tx.scalar(found)
    if segment is not None and not segment.deleted:
        return segment.key, 0
    archive = select(Artifact.key).join(Batch).where(Batch.session_id == session_id, Batch.crawl_cycle == cycle)
    key = tx.scalar(archive.where(Artifact.name == "images.tar"))
    if segment is None or key is None or segment.artifact_offset is None:
        raise ObjectMissing(f"TAR segment {seq} of session {session_id}, cycle {cycle}, is gone")
    return key, segment.artifact_offset


def expired_segments(tx: Session, before: datetime, limit: int, *, journals_before: datetime | None = None) -> list[Segment]:
    """Segments of cycles whose batch is older than that and holds their bytes. Journal pieces (of batches older than `journals_before`,
    if given) only when all of their cycle are sent, since messages are built from all pieces up to one."""
    owing = aliased(Segment)
    unsent_piece = exists().where(
        owing.session_id == Segment.session_id, owing.cycle == Segment.cycle, owing.kind == "journal", owing.sent.is_(None)
    )
    found = select(Segment).join(Batch, (Batch.session_id == Segment.session_id) & (Batch.crawl_cycle == Segment.cycle))
    spare = (Segment.kind == "journal") & ~unsent_piece & (Batch.ctime < (journals_before or before)) | Segment.artifact_offset.is_not(None)
    found = found.where(Batch.ctime < before, Segment.deleted.is_(False), spare)
    return list(tx.scalars(found.order_by(Segment.id).limit(limit)))


def mark_deleted(tx: Session, segment_ids: Sequence[int]) -> None:
    """Their objects are gone, or about to be: from here on their bytes are read from the batch's artifact."""
    tx.execute(update(Segment).where(Segment.id.in_(segment_ids)).values(deleted=True))


# --- batches


def batches_of(account_id: int, session_id: int | None = None) -> Select[Batch]:
    found = select(Batch).join(CrawlSession, CrawlSession.id == Batch.session_id)
    found = found.where(Batch.account_id == account_id, CrawlSession.deleted.is_(False))
    return found if session_id is None else found.where(Batch.session_id == session_id)


def get_batch(tx: Session, account_id: int, batch_id: int) -> Batch:
    """Raises NotFound."""
    batch = tx.scalar(batches_of(account_id).where(Batch.id == batch_id))
    if batch is None:
        raise NotFound(f"there is no batch {batch_id}")
    return batch
