"""Opening: an address becomes a database whose tables are those of this release."""

from orchestra.store.sql.address import parsed
from orchestra.store.sql.database import Database
from orchestra.store.sql.versions import ensure


def open_database(url: str) -> Database:
    """Open a database; an empty one gets its tables.

    Raises:
        SettingsError: The URL is of no kind that is supported, its driver is missing, or the tables are of another
            version.
        StoreUnavailable: It does not answer.
    """
    database = connect(url)
    try:
        ensure(database)
    except BaseException:
        database.close()
        raise
    return database


def connect(url: str) -> Database:
    """Open a database as it is, whatever its tables are."""
    address = parsed(url)
    if address.get_backend_name() == "sqlite":
        from orchestra.store.sql.sqlite import SqliteDatabase

        return SqliteDatabase(address)
    from orchestra.store.sql.postgres import PostgresDatabase

    return PostgresDatabase(address)
