"""The keys that accounts' registrations travel under, as the database has them: sealed (`core.vault`). The caller owns the transaction."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from core.database.statements import insert
from core.models import AccountKey


def find(tx: Session, account_id: int) -> bytes | None:
    row = tx.get(AccountKey, account_id)
    return row.sealed if row is not None else None


def add(tx: Session, account_id: int, sealed: bytes, now: datetime) -> bytes:
    """The account's key from now on: this one, or another's who was quicker."""
    tx.execute(insert(tx, AccountKey).values(account_id=account_id, sealed=sealed, created=now).on_conflict_do_nothing())
    return tx.get_one(AccountKey, account_id).sealed
