"""Which run of a workflow completed last: the durations of its steps order those of the next."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_LEARNED_FROM = sa.text("single = 0 AND completed_at IS NOT NULL")


def upgrade() -> None:
    """Add an index."""
    op.create_index(
        "runs_learned_from",
        "runs",
        ["name", "completed_at"],
        sqlite_where=_LEARNED_FROM,
        postgresql_where=_LEARNED_FROM,
    )
