"""Watermarks over the API: keys of accounts, rations, what is marked while nobody waits, small pictures, quotas."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "account_keys",
        sa.Column("account_id", ID, sa.ForeignKey("accounts.id"), primary_key=True, autoincrement=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "allowances",
        sa.Column("account_id", ID, sa.ForeignKey("accounts.id"), primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(length=32), primary_key=True),
        sa.Column("started", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
    )
    _create_watermarkings()
    with op.batch_alter_table("accounts") as accounts:
        accounts.add_column(sa.Column("image_quota", sa.BigInteger(), nullable=True))
        accounts.add_column(sa.Column("disk_quota", sa.BigInteger(), nullable=True))
    op.add_column("pictures", sa.Column("small_key", sa.String(length=255), nullable=True))
    op.add_column("pictures", sa.Column("reduced", sa.Boolean(), nullable=False, server_default=sa.false()))
    # in the words of both databases: Alembic would copy SQLite's whole table for a column that refers to another
    kind = ID.compile(op.get_bind().dialect)
    op.execute(f"ALTER TABLE registrations ADD COLUMN preview_id {kind} REFERENCES statics (id)")
    # addresses that are over are looked for in all that refers to them
    op.create_index("ix_artifacts_static", "artifacts", ["static_id"])
    op.create_index("ix_pictures_preview", "pictures", ["preview_id"])
    op.create_index("ix_pictures_thumbnail", "pictures", ["thumbnail_id"])
    op.create_index("ix_registrations_preview", "registrations", ["preview_id"])


def _create_watermarkings() -> None:
    op.create_table(
        "watermarkings",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("account_id", ID, sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("folder", sa.String(length=255), nullable=False, unique=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("tries", sa.BigInteger(), nullable=False),
        sa.Column("due", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires", sa.DateTime(timezone=True), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_watermarkings_state", "watermarkings", ["state", "due"])
