"""Versions: which tables a database has, and whether this release can work with them.

The number is kept where Alembic looks for it, so that ``alembic`` itself works on a store too. Beside it stands the
release that made the tables: an older release says by that name which one it takes.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sqlalchemy import Column, MetaData, String, Table, bindparam, create_mock_engine, delete, insert, select

from orchestra.errors import SettingsError
from orchestra.store.sql import schema
from orchestra.store.sql.database import Database, Transaction
from orchestra.store.sql.statements.meta import GET_META, PUT_META
from orchestra.store.sql.statements.statement import Statement

NEWEST = f"{schema.VERSION:04}"
"""The tables that this release reads and writes."""
TABLES_LOCK = "orchestra tables"
"""Held alone by who makes or changes tables."""
RELEASE = "release"
"""Name of the release that made the tables, in ``meta``."""

_alembic: Table = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))
_GET = Statement("get version", "Which tables a database has.", select(_alembic.c.version_num))
_PUT = Statement("put version", "The tables are made.", insert(_alembic).values(version_num=bindparam("version")))
DROP_META = Statement(
    "drop meta", "A fact is about to be replaced.", delete(schema.meta).where(schema.meta.c.name == bindparam("name"))
)


def release() -> str:
    """Return the version of the installed distribution."""
    try:
        return version("orchestra-celery")
    except PackageNotFoundError:
        return "unknown"


def ensure(database: Database) -> None:
    """Give an empty database its tables; refuse one whose tables are of another version.

    Raises:
        SettingsError: It says what to do.
    """
    found = found_version(database)
    if found is None:
        database.write(lambda tx: create(database, tx))
        found = found_version(database)
    if found == NEWEST:
        return
    if found is not None and found < NEWEST:
        raise SettingsError(
            f"store {database.url} has tables of version {found}, this release needs {NEWEST};"
            f" run: orchestra store migrate --store {database.url}"
        )
    raise too_new(database, found)


def too_new(database: Database, found: str | None) -> SettingsError:
    """Return the error that says which release is needed."""
    needed = database.read(lambda tx: tx.value(GET_META, name=RELEASE))
    return SettingsError(
        f"store {database.url} has tables of version {found}, newer than {NEWEST} of this release ({release()});"
        f" install orchestra-celery {needed} or later"
    )


def found_version(database: Database) -> str | None:
    """Return the version of a database's tables; None when it has none of ours."""
    return database.read(lambda tx: _found(database, tx))


def create(database: Database, tx: Transaction) -> None:
    """Make all tables at the newest version, unless another process was faster."""
    tx.lock(TABLES_LOCK, alone=True)
    if _found(database, tx) is not None:
        return

    def execute(statement: Any, *_: object, **__: object) -> None:
        tx.execute(str(statement.compile(dialect=database.dialect)))

    engine = create_mock_engine(database.address, execute)
    for tables in (_alembic.metadata, schema.metadata):
        tables.create_all(engine, checkfirst=False)
    tx.run(_PUT, version=NEWEST)
    put_release(tx)


def put_release(tx: Transaction) -> None:
    """Write down which release made the tables."""
    tx.run(DROP_META, name=RELEASE)
    tx.run(PUT_META, name=RELEASE, value=release())


def _found(database: Database, tx: Transaction) -> str | None:
    if tx.has_table(_alembic.name):
        return tx.value(_GET)
    if tx.has_table(schema.steps.name):
        raise SettingsError(
            f"store {database.url} has tables of a build before the first release; give another file or database"
        )
    return None
