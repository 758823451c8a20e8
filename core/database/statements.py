"""Statements that both databases have, each in a dialect of its own."""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session


def insert(tx: Session, table: type[Any]) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that can be told what to do `on_conflict`: who comes second neither waits in vain nor fails."""
    return postgresql.insert(table) if tx.get_bind().dialect.name == "postgresql" else sqlite.insert(table)
