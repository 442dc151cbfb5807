"""How Alembic runs the migrations: on the connection that ``orchestra.store.sql.migrate`` gives it."""

from alembic import context

from orchestra.store.sql import schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.metadata,
    # SQLite changes a column by copying its table.
    render_as_batch=True,
)
context.run_migrations()
