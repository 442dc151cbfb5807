"""The database: one connection for SQLite, transactions, statements on the driver's cursor."""

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from orchestra.errors import SettingsError, StoreUnavailable
from orchestra.store.sql import schema
from orchestra.store.sql.statements import GET_META, PUT_META, Statement

BUSY_TIMEOUT_S = 30.0
"""How long SQLite waits for another process's transaction."""

Row = tuple[Any, ...]
Text = tuple[str, dict[str, object]]


class Transaction:
    """An open transaction: runs statements by name on the driver's cursor."""

    def __init__(self, cursor: Any, texts: dict[Statement, Text], database: "Database") -> None:
        self._cursor, self._texts, self._database = cursor, texts, database

    def run(self, statement: Statement, /, **parameters: object) -> None:
        """Execute a statement for its effect."""
        text = self._texts.get(statement) or self._compiled(statement)
        self._cursor.execute(text[0], {**text[1], **parameters} if text[1] else parameters)

    def all(self, statement: Statement, /, **parameters: object) -> list[Row]:
        """Return all rows."""
        self.run(statement, **parameters)
        return self._cursor.fetchall()

    def one(self, statement: Statement, /, **parameters: object) -> Row | None:
        """Return the one row, if there is one."""
        rows = self.all(statement, **parameters)
        return rows[0] if rows else None

    def value(self, statement: Statement, /, **parameters: object) -> Any:
        """Return the first column of the one row, or None."""
        row = self.one(statement, **parameters)
        return None if row is None else row[0]

    def many(self, statement: Statement, rows: Sequence[Mapping[str, object]]) -> None:
        """Execute a statement once for each of the rows."""
        self._cursor.executemany((self._texts.get(statement) or self._compiled(statement))[0], rows)

    def listing(self, statement: Statement) -> list[Row]:
        """Return the rows of a statement that was built for one call and carries its own values."""
        self._cursor.execute(*self._database.compile(statement))
        return self._cursor.fetchall()

    def _compiled(self, statement: Statement) -> Text:
        text = self._texts[statement] = self._database.compile(statement)
        return text


class Database:
    """A SQLite database. One connection serves all threads of a process: SQLite has one writer anyway, and the lock
    costs less than threads that wake each other for a busy file would."""

    def __init__(self, url: str) -> None:
        self._url = _parsed(url)
        self.url = self._url.render_as_string(hide_password=True)
        self._lock = threading.RLock()
        self._texts: dict[Statement, Text] = {}
        self._pid = 0
        self._closed = False
        self._open()

    @property
    def in_memory(self) -> bool:
        """Whether the database lives and dies with this process."""
        return self._url.database in (None, "", ":memory:")

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[Transaction]:
        """Run a block as one transaction: it commits when the block ends, and rolls back when it raises."""
        if self._pid != os.getpid():
            # A forked child must not use its parent's connection, nor its lock, which may be held for ever.
            self._inherited = self._connection
            self._open()
        with self._lock:
            if self._closed:
                raise StoreUnavailable(self.url, "it was closed")
            cursor = self._connection.cursor()
            try:
                cursor.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                yield Transaction(cursor, self._texts, self)
                cursor.execute("COMMIT")
            except sqlite3.OperationalError as error:
                self._roll_back(cursor)
                raise StoreUnavailable(self.url, str(error)) from error
            except BaseException:
                self._roll_back(cursor)
                raise
            finally:
                cursor.close()

    def compile(self, statement: Statement) -> Text:
        """Return the text of a statement in this database's dialect, with the values that are part of it."""
        return statement.compile(self._engine.dialect)

    def close(self) -> None:
        """Close the connection; a second time does nothing."""
        with self._lock:
            if not self._closed and self._pid == os.getpid():
                self._engine.dispose()
            self._closed = True

    def _roll_back(self, cursor: Any) -> None:
        if self._connection.in_transaction:
            cursor.execute("ROLLBACK")

    def _open(self) -> None:
        self._lock = threading.RLock()
        try:
            self._engine = _engine(self._url)
            self._connection: sqlite3.Connection = self._engine.raw_connection().driver_connection  # pyright: ignore[reportAttributeAccessIssue]
            self._pid = os.getpid()
            self._prepare()
        except (sqlite3.Error, SQLAlchemyError, OSError) as error:
            raise StoreUnavailable(self.url, str(getattr(error, "orig", None) or error)) from error

    def _prepare(self) -> None:
        cursor = self._connection.cursor()
        cursor.execute("BEGIN IMMEDIATE")
        try:
            tables = cursor.execute("SELECT count(*) FROM sqlite_master WHERE name = 'meta'").fetchone()[0]
            if not tables:
                for table in schema.metadata.sorted_tables:
                    _create(cursor, table, self._engine)
                cursor.execute(self.compile(PUT_META)[0], {"name": "schema", "value": str(schema.VERSION)})
            found = cursor.execute(self.compile(GET_META)[0], {"name": "schema"}).fetchone()
            cursor.execute("COMMIT")
        except BaseException:
            self._roll_back(cursor)
            raise
        if found is None or int(found[0]) != schema.VERSION:
            raise SettingsError(
                f"store {self.url} has schema version {found and found[0]}, this release reads {schema.VERSION};"
                " use the release that wrote it, or another file"
            )


def _create(cursor: Any, table: Any, engine: Engine) -> None:
    from sqlalchemy.schema import CreateIndex, CreateTable

    cursor.execute(str(CreateTable(table).compile(dialect=engine.dialect)))
    for index in sorted(table.indexes, key=lambda each: each.name):
        cursor.execute(str(CreateIndex(index).compile(dialect=engine.dialect)))


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise SettingsError(f"store={url!r} is no URL: expected something like sqlite:///path/to/state.db") from error
    if parsed.get_backend_name() != "sqlite":
        raise SettingsError(
            f"store={parsed.render_as_string()!r}: no store of kind {parsed.get_backend_name()!r}; expected sqlite:///path"
        )
    return parsed


def _engine(url: URL) -> Engine:
    if url.database not in (None, "", ":memory:") and not Path(url.database).parent.is_dir():
        raise StoreUnavailable(url.render_as_string(), f"the folder {str(Path(url.database).parent)!r} does not exist")
    engine = create_engine(
        url.set(drivername="sqlite+pysqlite"),
        poolclass=StaticPool,
        paramstyle="named",
        connect_args={
            "check_same_thread": False,
            "isolation_level": None,
            "timeout": BUSY_TIMEOUT_S,
            "cached_statements": 256,
        },
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:  # pyright: ignore[reportUnusedFunction]
        # WAL lets other processes read while one writes; FULL makes every commit survive a power cut.
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=OFF", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {pragma}")

    return engine
