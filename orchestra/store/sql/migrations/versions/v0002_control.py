"""What running steps write down about themselves, paused runs, deadlines."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_WAITING = sa.text("status = 'QUEUED' AND sent_at IS NULL AND parked = 0")
_HAS_DEADLINE = sa.text("deadline IS NOT NULL AND completed_at IS NULL")
_HAS_EXPIRY = sa.text("expires_at IS NOT NULL AND completed_at IS NULL")


def upgrade() -> None:
    """Add tables and columns; the index of what waits leaves out what is paused."""
    _notes()
    deadline = sa.Column("deadline", sa.Float, comment="when the run ends, whatever it has come to")
    expiry = sa.Column("expires_at", sa.Float, comment="when the run ends if nothing of it has begun")
    parked = "its run is paused: it is offered to nobody"
    op.add_column("runs", deadline)
    op.add_column("runs", expiry)
    op.add_column("steps", sa.Column("parked", sa.Integer, nullable=False, server_default="0", comment=parked))
    for name, column, where in (
        ("runs_by_deadline", "deadline", _HAS_DEADLINE),
        ("runs_by_expiry", "expires_at", _HAS_EXPIRY),
    ):
        op.create_index(name, "runs", [column], sqlite_where=where, postgresql_where=where)
    op.drop_index("steps_waiting", "steps")
    op.create_index(
        "steps_waiting",
        "steps",
        ["queue", "priority", sa.text("rank DESC"), "created_at", "run_id", "n"],
        sqlite_where=_WAITING,
        postgresql_where=_WAITING,
    )


def _notes() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("n", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False, comment="JSON that a body saved"),
    )
    op.create_table(
        "progress",
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("n", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("told", sa.Text, nullable=False, comment="[share, text, time]"),
    )
    op.create_table(
        "logs",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("n", sa.Integer, nullable=False),
        sa.Column("line", sa.Text, nullable=False, comment="[n, claim, time, level, text]"),
        sqlite_autoincrement=True,
    )
    op.create_index("logs_of_run", "logs", ["run_id", "seq"])
