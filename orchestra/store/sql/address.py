"""Addresses: the URLs that name a database, read once and shown without their password."""

from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from orchestra.errors import SettingsError

_EXPECTED = "sqlite:///path/to/state.db or postgresql://user@host/database"
_SQLITE = ("sqlite", "sqlite+pysqlite")
_POSTGRES = ("postgresql", "postgresql+psycopg")


def parsed(url: str) -> URL:
    """Return a URL with the driver that we use for it. A relative path becomes absolute: processes change folders.

    Raises:
        SettingsError: It is no URL, or names a database or a driver that is not supported.
    """
    try:
        found = make_url(url)
    except ArgumentError:
        # Not chained: what could not be read may hold a password.
        raise SettingsError(f"store=… is no URL: expected something like {_EXPECTED}") from None
    if found.drivername in _SQLITE:
        if found.host or found.port or found.username:
            raise SettingsError(f"store={shown(found)!r} names a host: expected {_EXPECTED}")
        path = None if in_memory(found) else str(Path(found.database or "").absolute())
        return found.set(drivername="sqlite+pysqlite", database=path)
    if found.drivername in _POSTGRES:
        return found.set(drivername="postgresql+psycopg")
    raise SettingsError(f"store={shown(found)!r} is not possible: expected {_EXPECTED}")


def in_memory(url: URL) -> bool:
    """Whether a SQLite database lives and dies with its process."""
    return url.database in (None, "", ":memory:")


def shown(url: URL) -> str:
    """Return the URL as its user wrote it, without the password and without the driver."""
    plain = url.set(drivername=url.get_backend_name())
    secret = {"password": "***"} if "password" in plain.query else {}
    return plain.update_query_dict(secret).render_as_string(hide_password=True)
