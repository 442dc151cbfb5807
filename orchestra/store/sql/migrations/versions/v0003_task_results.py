"""What a Celery result backend keeps."""

from alembic import op
from sqlalchemy import Column, Float, Index, Integer, LargeBinary, MetaData, Table, Text, text

revision = "0003"
down_revision = "0002"

metadata = MetaData()

_CLEANED = {"autovacuum_vacuum_scale_factor": 0.02, "autovacuum_analyze_scale_factor": 0.02}
_HOT = {"fillfactor": 80, **_CLEANED}

task_results = Table(
    "task_results",
    metadata,
    Column("task_id", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("expires_at", Float),
    Index("task_results_by_expiry", "expires_at"),
    postgresql_with=_CLEANED,
)

task_groups = Table(
    "task_groups",
    metadata,
    Column("group_id", Text, primary_key=True),
    Column("payload", LargeBinary, nullable=False),
    Column("expires_at", Float),
    Index("task_groups_by_expiry", "expires_at"),
    postgresql_with=_CLEANED,
)

_COMPLETE = text("status = 'COMPLETE'")
chords = Table(
    "chords",
    metadata,
    Column("group_id", Text, primary_key=True),
    Column("status", Text, nullable=False, comment="OPEN, COMPLETE, DONE"),
    Column("size", Integer),
    Column("grown", Integer, nullable=False, comment="parts that other parts have added"),
    Column("counted", Integer, nullable=False),
    Column("claims", Integer, nullable=False),
    Column("due_at", Float, comment="when the claim of a complete one runs out"),
    Column("header", LargeBinary, comment="its shape, where it is no plain list"),
    Column("callback", LargeBinary, comment="what to publish, once it is complete"),
    Column("expires_at", Float),
    Index("chords_overdue", "due_at", sqlite_where=_COMPLETE, postgresql_where=_COMPLETE),
    Index("chords_by_expiry", "expires_at"),
    postgresql_with=_HOT,
)

chord_parts = Table(
    "chord_parts",
    metadata,
    Column("group_id", Text, primary_key=True),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("task_id", Text, primary_key=True),
    Column("payload", LargeBinary, nullable=False),
    postgresql_with=_CLEANED,
)


def upgrade() -> None:
    """Make the tables."""
    metadata.create_all(op.get_bind(), checkfirst=False)
