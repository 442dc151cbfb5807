"""Within: runs created in a transaction of the caller's own, on the database of the store.

The rows are written on the caller's connection, so that they exist if and only if the caller commits. Nobody else sees
them before, so the messages wait for that: once the commit is under way, a thread looks for the run and then publishes.
If the process dies in between, the run is found like all whose messages were lost.
"""

import logging
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, event

from orchestra.errors import InvalidOption, StoreUnavailable
from orchestra.store.sql.database import Again, Database, Row, Transaction

logger = logging.getLogger(__name__)
T = TypeVar("T")
_SET = "SELECT set_config('search_path', %(path)s, true)"
_WHERE = "SELECT current_database(), pg_postmaster_start_time()::text, to_regclass('steps')::oid::bigint"


def write(database: Database, connection: object, block: Callable[[Transaction], T]) -> T:
    """Run a block in the transaction of a connection.

    Raises:
        InvalidOption: It is no such connection, or one to another database.
    """
    if not isinstance(connection, Connection):
        raise InvalidOption(
            "connection", connection, "a Connection of SQLAlchemy (not an Engine, Session or async one)"
        )
    if connection.dialect.name != database.kind:
        raise _elsewhere(connection, database)
    connection.exec_driver_sql("SELECT 1")  # begins a transaction, if the caller has not
    cursor = connection.connection.cursor()
    try:
        with _in_schema(database, cursor):
            if _where(Transaction(cursor, database), database.kind) != database.read(
                lambda tx: _where(tx, database.kind)
            ):
                raise _elsewhere(connection, database)
            return block(Transaction(cursor, database))
    finally:
        cursor.close()


def after_commit(
    database: Database, connection: Connection, is_there: Callable[[], bool], then: Callable[[], object]
) -> None:
    """Do something once a transaction has been committed, on a thread of its own; never if it is rolled back.

    Who commits for longer than the database is waited for leaves it to the recovery.
    """
    over: list[bool] = []

    def look() -> None:
        if not is_there():
            raise Again("it has not been committed")

    def wait() -> None:
        try:
            database.patiently(look)
        except StoreUnavailable as error:
            logger.info("What was created in a transaction of the caller's own is left to the recovery: %s", error)
        else:
            then()

    def on_commit(_connection: Connection) -> None:
        if not over:
            over.append(True)
            threading.Thread(target=wait, name="orchestra-after-commit", daemon=True).start()

    def on_rollback(_connection: Connection) -> None:
        over.append(False)

    event.listen(connection, "commit", on_commit, once=True)
    event.listen(connection, "rollback", on_rollback, once=True)


def _elsewhere(connection: Connection, database: Database) -> InvalidOption:
    shown = connection.engine.url.render_as_string(hide_password=True)
    return InvalidOption("connection", shown, f"a connection to the database of the store, {database.url}")


def _where(tx: Transaction, kind: str) -> object:
    """Return what tells one database from all others."""
    rows: list[Row] = tx.execute(_WHERE if kind == "postgresql" else "PRAGMA database_list").fetchall()
    if kind == "postgresql":
        return [tuple(row) for row in rows]
    files = [Path(str(row[2])).resolve() for row in rows if row[1] == "main" and row[2]]
    return files or object()  # one in memory is equal to none


@contextmanager
def _in_schema(database: Database, cursor: Any) -> Generator[None]:
    """Let unqualified names mean the tables of the store, for as long as it takes."""
    if database.kind != "postgresql":
        yield
        return
    cursor.execute("SHOW search_path")
    (before,) = cursor.fetchone()
    own = database.read(lambda tx: tx.execute("SHOW search_path").fetchone()[0])
    cursor.execute(_SET, {"path": own})
    try:
        yield
    except BaseException:
        with suppress(Exception):  # a transaction that failed is over, and the setting with it
            cursor.execute(_SET, {"path": before})
        raise
    cursor.execute(_SET, {"path": before})
