"""Where named subscribers go on; when workers were heard of last."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add a table and a column."""
    op.create_table(
        "cursors",
        sa.Column("name", sa.Text, primary_key=True, comment="of a subscriber"),
        sa.Column("seq", sa.BigInteger, nullable=False, comment="the last row of the log that it has dealt with"),
        sa.Column("holder", sa.Text, nullable=False, comment="the process that reads for it"),
        sa.Column("held_until", sa.Float, nullable=False),
        postgresql_with={
            "fillfactor": 80,
            "autovacuum_vacuum_scale_factor": 0.02,
            "autovacuum_analyze_scale_factor": 0.02,
        },
    )
    op.add_column("leases", sa.Column("renewed_at", sa.Float, nullable=False, server_default="0"))
