"""Migrations of the SQL store, on a SQLite file and on PostgreSQL."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from orchestra.errors import SettingsError
from orchestra.store.sql import migrate, schema, versions
from orchestra.store.sql.opening import connect
from orchestra.store.sql.store import SqlStore
from tests.graphs import create, layered, work

NEXT = f'''"""A column more."""

import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{versions.NEWEST}"


def upgrade() -> None:
    with op.batch_alter_table("steps") as batch:
        batch.add_column(sa.Column("colour", sa.Text, nullable=False, server_default="red"))
'''


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/state.db"
    else:
        yield request.getfixturevalue("postgres_store_url")


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """The migrations of a release that does not exist yet."""
    folder = tmp_path / "migrations"
    shutil.copytree(migrate.SCRIPTS, folder)
    (folder / "versions" / "v9999_colour.py").write_text(NEXT)
    return folder


def test_an_empty_database_is_made_at_the_newest_version(url: str) -> None:
    before = migrate.info(url)
    assert before.version is None
    assert before.ready
    SqlStore(url).close()
    after = migrate.info(url)
    assert after.version == after.newest == versions.NEWEST
    assert after.ready
    assert after.release == versions.release()
    assert migrate.upgrade(url) == after


def test_the_migrations_make_what_the_schema_says(url: str) -> None:
    database = connect(url)
    with migrate._connection(database) as connection:
        migrate._run(connection, migrate.SCRIPTS)
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, schema.metadata) == []
        assert context.get_current_revision() == versions.NEWEST
    database.close()


def test_a_fresh_database_is_what_the_migrations_make(url: str) -> None:
    SqlStore(url).close()
    database = connect(url)
    with migrate._connection(database) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, schema.metadata) == []
    database.close()


def test_a_filled_store_keeps_everything_when_it_is_migrated(url: str, scripts: Path) -> None:
    store = SqlStore(url)
    run_id, messages = create(store, layered(3, 4))
    work(store, messages[:2])
    before = store.steps(run_id), store.events(0), store.counts(run_id)
    store.close()

    migrate.upgrade(url, scripts=scripts, newest="9999")

    database = connect(url)
    rows = database.read(lambda tx: tx.execute("SELECT colour, count(*) FROM steps GROUP BY colour").fetchall())
    assert [tuple(row) for row in rows] == [("red", 12)]
    # What this release can still read of it is what it was.
    database.write(lambda tx: tx.execute(f"UPDATE alembic_version SET version_num = '{versions.NEWEST}'") and None)
    database.close()
    store = SqlStore(url)
    assert (store.steps(run_id), store.events(0), store.counts(run_id)) == before
    store.close()


def test_a_newer_store_is_refused_with_the_release_that_it_needs(url: str, scripts: Path) -> None:
    SqlStore(url).close()
    migrate.upgrade(url, scripts=scripts, newest="9999")
    with pytest.raises(SettingsError, match=f"install orchestra-celery {versions.release()} or later"):
        SqlStore(url)
    with pytest.raises(SettingsError, match="newer than"):
        migrate.upgrade(url)
    assert not migrate.info(url).ready


def test_an_older_store_is_refused_with_the_command_that_migrates_it(url: str) -> None:
    SqlStore(url).close()
    database = connect(url)
    database.write(lambda tx: tx.execute("UPDATE alembic_version SET version_num = '0000'") and None)
    with pytest.raises(SettingsError, match="run: orchestra store migrate --store"):
        SqlStore(url)
    database.close()


def test_a_migration_that_fails_changes_nothing(url: str, scripts: Path) -> None:
    SqlStore(url).close()
    broken = NEXT + '    op.execute("UPDATE no_such_table SET x = 1")\n'
    (scripts / "versions" / "v9999_colour.py").write_text(broken)
    with pytest.raises(Exception, match="no_such_table"):
        migrate.upgrade(url, scripts=scripts, newest="9999")
    assert migrate.info(url).version == versions.NEWEST
    database = connect(url)
    with migrate._connection(database) as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    database.close()


def test_tables_of_a_build_before_the_first_release_are_refused(url: str) -> None:
    SqlStore(url).close()
    database = connect(url)
    database.write(lambda tx: tx.execute("DROP TABLE alembic_version") and None)
    with pytest.raises(SettingsError, match="before the first release"):
        SqlStore(url)
    database.close()
