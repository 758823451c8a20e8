"""Leases on domains: one holder at a time, fenced by an epoch.

The row decides, and on a shared database its clock does: those of the machines differ, so `now` is not asked there. Whoever takes a lease
from another (or from an earlier life of itself) raises its epoch; everything that is stored names the epoch it was made under, and `check`
runs in the same transaction as the rows that it protects.

A lease yields (docs/adr/0007): who is refused may ask for it, and says so again and again; the holder sees it and gives the lease back
after its turn; then it does not get it again while somebody asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from core.database.statements import insert
from core.errors import InvalidInput, StaleLease
from core.models import Lease, UtcDateTime

_HOLDER: Final = 100
_JOB: Final = "/"
"""Is in the name of a lease on a job, and in no domain."""
ASKING: Final = timedelta(seconds=10)
"""Who asks for a lease says so again within this time; an older question is none any more."""


@dataclass(frozen=True, slots=True)
class Held:
    """A lease as its holder knows it."""

    domain: str
    holder: str
    epoch: int
    expires: datetime
    delay: float = 0.0
    """Seconds between two requests, as the row tells the next holder."""


def of_job(kind: str, name: object) -> str:
    """What a lease is named that is on no domain: on what one process at a time does."""
    return f"{kind}{_JOB}{name}"


def on_domain() -> ColumnElement[bool]:
    """Leases that are on one."""
    return ~Lease.domain.contains(_JOB)


def acquire(
    tx: Session, domain: str, holder: str, ttl: float, now: datetime, *, delay: float = 0.0, restart: bool = False, ask: bool = False
) -> Held | None:
    """Takes the lease when it is free, expired or ours; None when another has it, or asks for what we just gave back.

    Args:
        delay: seconds that the taker will keep between two requests; what the holders before it kept stays when longer.
        restart: this process has not held it before; an unexpired lease under our name is from an earlier life, so the epoch rises.
        ask: note that we want it when another has it.
    """
    if len(holder) > _HOLDER:
        raise InvalidInput(f"the name of a holder of leases has at most {_HOLDER} characters", code="name_too_long")
    row = _locked(tx, domain) or _made(tx, domain, holder)
    now = clock(tx, now)
    expires = now + timedelta(seconds=ttl)
    lasts = row.expires > now
    if row.holder == holder and lasts and not restart:
        row.expires = expires
    elif row.holder != holder and lasts:
        if ask:
            row.wanted = now
            tx.flush()
        return None
    elif row.holder == holder and not lasts and _is_asked_for(row, now):
        return None
    else:
        row.holder, row.epoch, row.expires, row.wanted = holder, row.epoch + 1, expires, None
    row.delay = max(row.delay, delay)
    tx.flush()
    return Held(domain, holder, row.epoch, expires, row.delay)


def renew(tx: Session, held: Held, ttl: float, now: datetime, *, delay: float | None = None) -> Held:
    """Prolongs it; the row tells the next holder of `delay` from now on (None: as before). Raises StaleLease."""
    row = _checked(tx, held)
    row.expires = clock(tx, now) + timedelta(seconds=ttl)
    if delay is not None:
        row.delay = delay
    tx.flush()
    return Held(held.domain, held.holder, held.epoch, row.expires, row.delay)


def asked_for(tx: Session, holder: str, now: datetime) -> list[str]:
    """The domains of this holder that somebody else asks for."""
    now = clock(tx, now)
    found = select(Lease.domain).where(Lease.holder == holder, Lease.wanted > now - ASKING, Lease.expires > now)
    return list(tx.scalars(found))


def _is_asked_for(row: Lease, now: datetime) -> bool:
    return row.wanted is not None and row.wanted > now - ASKING


def release(tx: Session, held: Held) -> None:
    """Others may take it at once. A lease that is not ours any more is left alone."""
    row = _locked(tx, held.domain)
    if row is not None and (row.holder, row.epoch) == (held.holder, held.epoch):
        row.expires = datetime.fromtimestamp(0, held.expires.tzinfo)
        tx.flush()


def check(tx: Session, held: Held) -> None:
    """Raises StaleLease when the epoch is over: in a transaction, nothing of it is committed then."""
    _checked(tx, held)


def _checked(tx: Session, held: Held) -> Lease:
    row = _locked(tx, held.domain)
    if row is None or (row.holder, row.epoch) != (held.holder, held.epoch):
        raise StaleLease(f"the lease on {held.domain} of epoch {held.epoch} is over")
    return row


def _locked(tx: Session, domain: str) -> Lease | None:
    return tx.scalar(select(Lease).where(Lease.domain == domain).with_for_update().execution_options(populate_existing=True))


def _made(tx: Session, domain: str, holder: str) -> Lease:
    """A free lease; two may make it at once."""
    free = insert(tx, Lease).values(domain=domain, holder=holder, epoch=0, expires=datetime.fromtimestamp(0, UTC))
    tx.execute(free.on_conflict_do_nothing())
    row = _locked(tx, domain)
    assert row is not None, "nobody removes leases"
    return row


def clock(tx: Session, now: datetime) -> datetime:
    """The time that leases go by. Asked for when the row is locked: the wait may have been long."""
    if tx.get_bind().dialect.name == "postgresql":
        return tx.execute(select(func.clock_timestamp(type_=UtcDateTime))).scalar_one()
    return now
