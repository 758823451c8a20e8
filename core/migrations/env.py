"""Alembic's entry: runs on the connection that `Database.migrate` hands over, in its transaction."""

from __future__ import annotations

from alembic import context

from core.models import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True, transaction_per_migration=False)
with context.begin_transaction():
    context.run_migrations()
