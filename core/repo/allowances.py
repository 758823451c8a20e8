"""What is rationed: so many times in a window of time, by account. The caller owns the transaction.

A window begins with the first use after the one before it, so who waits until its end has the whole allowance again. The row counts for
all processes, and on a shared database its clock does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from core import leases
from core.database.statements import insert
from core.models import Allowance

_BEFORE: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Ration:
    """`limit` times in each `window`, counted under `name`."""

    name: str
    limit: int
    window: timedelta


@dataclass(frozen=True, slots=True)
class Left:
    """`remaining` times, of which `taken` is one that was just taken; where there are none any more, they are back in `wait` seconds."""

    remaining: int
    wait: int
    taken: datetime | None = None
    """The beginning of the window that it was taken from; None: there was none left."""


def look(tx: Session, account_id: int, ration: Ration, now: datetime) -> Left:
    row = tx.get(Allowance, (account_id, ration.name))
    now = leases.clock(tx, now)
    return _left(row, ration, now) if row is not None else Left(ration.limit, 0)


def take(tx: Session, account_id: int, ration: Ration, now: datetime) -> Left:
    """Takes one, where one is left."""
    row = _locked(tx, account_id, ration)
    now = leases.clock(tx, now)
    if row.started + ration.window <= now:
        row.started, row.used = now, 0
    if row.used >= ration.limit:
        return _left(row, ration, now)
    row.used += 1
    tx.flush()
    left = _left(row, ration, now)
    return Left(left.remaining, left.wait, row.started)


def give_back(tx: Session, account_id: int, ration: Ration, taken: datetime) -> None:
    """One that was taken and came to nothing; of a window that is over there is nothing to give back."""
    row = _locked(tx, account_id, ration)
    if row.started == taken and row.used:
        row.used -= 1
        tx.flush()


def _left(row: Allowance, ration: Ration, now: datetime) -> Left:
    rest = (row.started + ration.window - now).total_seconds()
    if rest <= 0:
        return Left(ration.limit, 0)
    remaining = max(0, ration.limit - row.used)
    return Left(remaining, 0 if remaining else max(1, ceil(rest)))


def _locked(tx: Session, account_id: int, ration: Ration) -> Allowance:
    tx.execute(insert(tx, Allowance).values(account_id=account_id, name=ration.name, started=_BEFORE, used=0).on_conflict_do_nothing())
    query = select(Allowance).where(Allowance.account_id == account_id, Allowance.name == ration.name)
    return tx.scalars(query.with_for_update().execution_options(populate_existing=True)).one()
