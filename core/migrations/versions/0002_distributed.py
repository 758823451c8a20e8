"""What it takes to run on many machines."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    with op.batch_alter_table("leases") as leases:
        leases.add_column(sa.Column("delay", sa.Double(), nullable=False, server_default="0"))
        leases.add_column(sa.Column("wanted", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("match_surplus") as surplus:
        surplus.add_column(sa.Column("sketch", sa.LargeBinary(), nullable=True))
    with op.batch_alter_table("segments") as segments:
        segments.add_column(sa.Column("tries", sa.BigInteger(), nullable=False, server_default="0"))
        segments.add_column(sa.Column("trouble", sa.Text(), nullable=True))
        segments.add_column(sa.Column("given_up", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("accounts") as accounts:
        accounts.add_column(sa.Column("scanned_version", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index("ix_matches_sha256", "matches", ["account_id", "sha256"])
    _create_crawled_files()
    op.create_table(
        "topics",
        sa.Column("name", sa.String(length=64), primary_key=True),
        sa.Column("identity", sa.String(length=255), nullable=True),
        sa.Column("missed", sa.DateTime(timezone=True), nullable=True),
    )
    if op.get_bind().dialect.name == "postgresql":  # whose B-trees hold 2,704 bytes at most, and a path may be longer
        op.drop_constraint("media_path_key", "media")
        op.create_exclude_constraint("ex_media_path", "media", (sa.column("path"), "="), using="hash")


def _create_crawled_files() -> None:
    op.create_table(
        "crawled_files",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("session_id", ID, sa.ForeignKey("sessions.id"), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("pictures", sa.BigInteger(), nullable=False),
        sa.Column("last_seen", sa.DateTime(timezone=True), nullable=False),
        sa.Column("fresh", sa.Boolean(), nullable=False),
        sa.Column("stored", sa.DateTime(timezone=True), nullable=False),
        sa.Column("retired", sa.DateTime(timezone=True), nullable=True),
        sa.UniqueConstraint("key", "offset"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_crawled_files_session", "crawled_files", ["session_id", "retired"])
    op.create_index("ix_crawled_files_fresh", "crawled_files", ["fresh", "retired", "id"])
    op.create_index("ix_crawled_files_retired", "crawled_files", ["retired"])
