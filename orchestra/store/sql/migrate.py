"""Migration: says which tables a store has, and brings those of an older release up to this one."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.pool import NullPool

from orchestra.store.sql.database import Database
from orchestra.store.sql.opening import connect
from orchestra.store.sql.statements.meta import GET_META
from orchestra.store.sql.versions import NEWEST, RELEASE, TABLES_LOCK, ensure, found_version, put_release, too_new

SCRIPTS = Path(__file__).parent / "migrations"


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """Which tables a store has."""

    url: str
    """Without its password."""
    version: str | None
    """Of its tables; None when it has none yet."""
    newest: str
    """What this release reads and writes."""
    release: str | None
    """The release that made or last migrated the tables."""

    @property
    def ready(self) -> bool:
        """Whether this release can open it; one without tables gets them when it is opened."""
        return self.version in (None, self.newest)


def info(url: str) -> StoreInfo:
    """Look at a store without changing it. A SQLite file that does not exist has no tables.

    Raises:
        SettingsError: The URL is of no kind that is supported.
        StoreUnavailable: It does not answer.
    """
    with _opened(url) as database:
        return _info(database)


def upgrade(url: str, *, scripts: Path = SCRIPTS, newest: str = NEWEST) -> StoreInfo:
    """Bring the tables of a store up to this release, in one transaction; one that has none gets them.

    Processes that use the store wait meanwhile, and should be of the new release when they are started again.

    Raises:
        SettingsError: The tables are newer than this release, or the URL is of no kind that is supported.
        StoreUnavailable: It does not answer.
    """
    with _opened(url) as database:
        found = found_version(database)
        if found is None:
            ensure(database)
        elif found > newest:
            raise too_new(database, found)
        elif found < newest:
            with _connection(database) as connection:
                _run(connection, scripts)
            database.write(put_release)
        return _info(database)


def _run(connection: Connection, scripts: Path) -> None:
    from alembic import command  # takes long to import, and only this needs it
    from alembic.config import Config

    if connection.dialect.name == "postgresql":
        lock = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
        connection.execute(lock, {"name": TABLES_LOCK})
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@contextmanager
def _connection(database: Database) -> Generator[Connection]:
    """Give a transaction of SQLAlchemy's, on a connection that is set up like all others."""
    engine = create_engine(f"{database.address.drivername}://", creator=database.new_connection, poolclass=NullPool)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:  # pyright: ignore[reportUnusedFunction]
        # Both drivers leave it to us, so that the tables change as a whole or not at all.
        connection.exec_driver_sql("BEGIN" if database.kind == "postgresql" else "BEGIN IMMEDIATE")

    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def _opened(url: str) -> Generator[Database]:
    database = connect(url)
    try:
        yield database
    finally:
        database.close()


def _info(database: Database) -> StoreInfo:
    found = found_version(database)
    release = None if found is None else database.read(lambda tx: tx.value(GET_META, name=RELEASE))
    return StoreInfo(database.url, found, NEWEST, release)
