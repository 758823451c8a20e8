"""What it takes to run on many machines."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("leases") as leases:
        leases.add_column(sa.Column("delay", sa.Double(), nullable=False, server_default="0"))
        leases.add_column(sa.Column("wanted", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("match_surplus") as surplus:
        surplus.add_column(sa.Column("sketch", sa.LargeBinary(), nullable=True))
