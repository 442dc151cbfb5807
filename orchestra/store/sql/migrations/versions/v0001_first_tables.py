"""The first tables.

Nothing has been released, so these are still the tables of ``schema.py``, whatever they are. The first release turns
this into the statements themselves; from then on it never changes.
"""

from alembic import op

from orchestra.store.sql import schema

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables."""
    schema.metadata.create_all(op.get_bind(), checkfirst=False)
