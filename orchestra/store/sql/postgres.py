"""PostgreSQL: a small pool of connections per process, few round trips, an answer to lost commits."""

import os
import select
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from sqlalchemy import event
from sqlalchemy.dialects.postgresql import psycopg as psycopg_dialect
from sqlalchemy.engine import URL
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from orchestra.errors import SettingsError, StoreUnavailable
from orchestra.store.sql.database import Again, Database, Transaction, first_line, lock_number
from orchestra.store.sql.listening import PostgresEars
from orchestra.store.sql.statements.statement import Statement
from orchestra.store.task_results import Changed, Ears

KEPT, MOST = 4, 8
"""Connections that a process keeps open, and opens at most. Further threads wait for one."""
_WAIT_FOR_CONNECTION_S = 30.0

# Given to libpq unless the URL says otherwise: a server that is gone without a word is noticed within seconds.
_DEFAULTS = {
    "application_name": "orchestra",
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}
# All hot statements have an index for every table they touch, so their plans need not depend on statistics: those
# are missing just when a fresh table grows fastest, and a plan chosen for an empty table reads all of a full one.
# A worker that was frozen inside a transaction must not hold its locks for ever.
_SESSION = """
SET search_path = {schema}; SET default_transaction_isolation = 'read committed';
SET enable_seqscan = off; SET jit = off;
SET plan_cache_mode = force_generic_plan; SET idle_in_transaction_session_timeout = '10s'
"""
_BEGIN = "BEGIN; SELECT pg_current_xact_id()::text"
_LOCK_ALONE = "pg_advisory_xact_lock({number})::text"
_LOCK_SHARED = "pg_advisory_xact_lock_shared({number})::text"
_WRITERS = """
SELECT virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted AND pid <> pg_backend_pid()
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND relation = to_regclass(%(name)s::text)
"""
# Serialization failure, deadlock; and a key that somebody else inserted in between: the next attempt sees it.
_CONFLICTS = frozenset({"40001", "40P01", "23505"})
_GOING_DOWN = frozenset({"57P01", "57P02", "57P03", "25P03", "53300"})
_WORTH_COPYING = 32
"""Rows from which on COPY costs less than to execute an INSERT for each."""
T = TypeVar("T")


class PostgresTransaction(Transaction):
    """A transaction that begins with its first statement, and a session that keeps no block open if there is none.

    Its number, by which a lost commit is found out about, comes with the answer to the beginning, as does the lock that
    most transactions begin with. The statements after it see all that was committed before the lock was given.
    """

    concurrent = True

    def __init__(self, cursor: Any, database: Database, *, block: bool) -> None:
        super().__init__(cursor, database)
        self._block = block
        self._locks: dict[str, bool] = {}
        """What is held, and whether alone."""
        self.number: str | None = None
        """Of the open block; None while there is none."""

    def execute(self, text: str, parameters: Mapping[str, object] | None = None) -> Any:
        if self._block and self.number is None:
            self._begin("")
        return self._cursor.execute(text, parameters)

    def many(self, statement: Statement, rows: Sequence[Mapping[str, object]]) -> None:
        text = self._database.text(statement)[0]
        if len(rows) == 1:
            self.execute(text, rows[0])
        elif rows:
            if self.number is None:
                self._begin("")
            if statement.table is None or len(rows) < _WORTH_COPYING:
                self._cursor.executemany(text, rows)
            else:
                self._copy(statement.table, rows)

    def _copy(self, table: str, rows: Sequence[Mapping[str, object]]) -> None:
        columns = list(rows[0])
        named = ", ".join(f'"{column}"' for column in columns)
        with self._cursor.copy(f"COPY {table} ({named}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row([row[column] for column in columns])

    def lock(self, name: str, *, alone: bool) -> None:
        if self._locks.get(name) in (True, alone):
            return
        self._locks[name] = alone
        if self.number is None:
            self._begin(f", {_lock(name, alone=alone)}")
        else:
            self.execute(f"SELECT {_lock(name, alone=alone)}")

    def lock_all(self, names: Mapping[str, bool]) -> None:
        if self.number is not None:
            super().lock_all(names)
        elif names:
            self._locks.update(names)
            self._begin("".join(f", {_lock(name, alone=alone)}" for name, alone in names.items()))

    def writers(self, table: str) -> frozenset[str]:
        return frozenset(each for (each,) in self.execute(_WRITERS, {"name": table}).fetchall())

    def _begin(self, also: str) -> None:
        self._cursor.execute(_BEGIN + also, prepare=False)  # two statements in one message, without parameters
        self._cursor.nextset()
        self.number = self._cursor.fetchone()[0]


def _lock(name: str, *, alone: bool) -> str:
    # Advisory locks write nothing; row locks that many may share would write a multixact for each.
    return (_LOCK_ALONE if alone else _LOCK_SHARED).format(number=lock_number(name))


class _LostCommit(Exception):
    """The connection was lost while the transaction was being committed."""

    def __init__(self, tx: PostgresTransaction, result: Any) -> None:
        self.tx, self.result = tx, result
        super().__init__(tx.number)


class PostgresDatabase(Database):
    """A PostgreSQL database. The isolation is READ COMMITTED; what must not happen at once takes locks."""

    kind = "postgresql"
    combines = True
    # Not to_regclass(): it may answer from a cache that has not heard of what was committed while we waited for a lock.
    has_table = "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = %(name)s::text"
    size = (
        "SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class"
        " WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
    )

    def __init__(self, address: URL) -> None:
        super().__init__(address)
        self._schema = str(address.query.get("schema", "orchestra"))
        try:
            import psycopg  # an extra
        except ImportError as error:
            raise SettingsError(
                f"store={self.url!r} needs a driver that is not installed: pip install 'orchestra-celery[postgres]'"
            ) from error
        self._driver = psycopg
        self.dialect = psycopg_dialect.dialect()
        self._closed = False
        self._pool, self._pid = self._new_pool(), os.getpid()
        self._check()

    def new_connection(self) -> Any:
        address = self.address.difference_update_query(["schema"])
        arguments, options = self.dialect.create_connect_args(address)
        connection: Any = self._driver.connect(
            *arguments, **{**_DEFAULTS, **options}, autocommit=True, prepare_threshold=0
        )
        schema = self.dialect.identifier_preparer.quote_identifier(self._schema)
        connection.execute(_SESSION.format(schema=schema), prepare=False)
        return connection

    def singly(self, block: Callable[[Transaction], T]) -> T:
        return self.read(block)

    def channel(self, name: str) -> str:
        return f"{self._schema}.{name}"

    def ears(self, channel: str, changed: Changed) -> Ears:
        return PostgresEars(self, self.dialect.identifier_preparer.quote_identifier(channel), changed)

    def close(self) -> None:
        if not self._closed and self._pid == os.getpid():
            self._pool.dispose()
        self._closed = True

    # --- transactions -------------------------------------------------------------------------------------------

    def _write(self, block: Callable[[Transaction], T]) -> T:
        try:
            with self._session() as cursor:
                return self._committed(cursor, block)
        except _LostCommit as lost:
            if self._was_committed(lost.tx):
                return lost.result
            raise Again("the connection was lost before the commit") from lost.__cause__

    def _read(self, block: Callable[[Transaction], T]) -> T:
        with self._session() as cursor:
            return block(PostgresTransaction(cursor, self, block=False))

    def _committed(self, cursor: Any, block: Callable[[Transaction], T]) -> T:
        tx = PostgresTransaction(cursor, self, block=True)
        try:
            result = block(tx)
        except BaseException as error:
            if cursor.connection.info.transaction_status and not self._lost(error):
                with suppress(self._driver.Error):
                    cursor.execute("ROLLBACK")
            raise
        if tx.number is not None:
            try:
                cursor.execute("COMMIT")
            except self._driver.Error as error:
                if self._lost(error):
                    raise _LostCommit(tx, result) from error
                raise
        return result

    def _was_committed(self, tx: PostgresTransaction) -> bool:
        """Ask, on another connection, what became of a transaction whose commit was not answered.

        A server that crashed gives numbers again of which it had written nothing: what was committed under the number
        counts only if what this transaction wrote is there.
        """

        def ask() -> bool:
            with self._session() as cursor:
                query = "SELECT pg_xact_status(%(number)s::xid8)"
                try:
                    (status,) = cursor.execute(query, {"number": tx.number}).fetchone()
                except self._driver.errors.InvalidParameterValue:
                    return False  # a standby that took over before it had heard of the transaction
                if status == "in progress":
                    raise Again("the server has not noticed yet that the connection is lost")
                if status != "committed" or tx.wrote is None:
                    return status == "committed"
                statement, parameters = tx.wrote
                return PostgresTransaction(cursor, self, block=False).one(statement, **parameters) is not None

        return self.patiently(ask)

    # --- connections --------------------------------------------------------------------------------------------

    @contextmanager
    def _session(self) -> Generator[Any]:
        """Lend the cursor of a connection; one that was lost is not kept. Errors of the driver become ours."""
        if self._closed:
            raise StoreUnavailable(self.url, "it was closed")
        if self._pid != os.getpid():
            # A forked child must not use its parent's connections, nor close them: that would end the sessions of the
            # parent. So the parent's pool is kept, and never looked at again.
            self._inherited = self._pool
            self._pool, self._pid = self._new_pool(), os.getpid()
        try:
            lent = self._pool.connect()
        except PoolTimeout as error:
            raise StoreUnavailable(self.url, f"all {MOST} connections of this process are busy") from error
        except self._driver.OperationalError as error:
            raise Again(first_line(error)) from error
        connection: Any = lent.dbapi_connection
        try:
            # One for the life of the connection: a new one for each statement would cost as much as the statement.
            cursor = lent.info.get("cursor")
            if cursor is None:
                cursor = lent.info["cursor"] = connection.cursor()
            yield cursor
        except self._driver.Error as error:
            if self._lost(error):
                connection.close()
                raise Again(first_line(error)) from error
            if error.sqlstate in _CONFLICTS:
                raise Again(first_line(error)) from error
            if isinstance(error, self._driver.OperationalError):
                raise StoreUnavailable(self.url, first_line(error)) from error
            raise
        finally:
            if connection.closed or connection.info.transaction_status != 0:
                lent.invalidate()
            lent.close()

    def _lost(self, error: BaseException) -> bool:
        """Whether an error is not the server's answer to a statement: then nobody knows what it has done.

        Whether the connection is closed says less: the driver may notice only with its next use.
        """
        if not isinstance(error, self._driver.OperationalError | self._driver.InterfaceError):
            return False
        return error.sqlstate is None or error.sqlstate in _GOING_DOWN

    def _new_pool(self) -> QueuePool:
        pool = QueuePool(
            self.new_connection,
            pool_size=KEPT,
            max_overflow=MOST - KEPT,
            timeout=_WAIT_FOR_CONNECTION_S,
            reset_on_return=None,
            use_lifo=True,
        )
        event.listen(pool, "checkout", _refuse_dead)
        return pool

    def _check(self) -> None:
        """Connect once, without patience: who opens a store wants to hear at once what is wrong with its URL."""
        try:
            with self._session() as cursor:
                if cursor.execute("SELECT current_schema()").fetchone()[0] is None:
                    self._create_schema(cursor)
        except Again as error:
            raise StoreUnavailable(self.url, str(error)) from error.__cause__

    def _create_schema(self, cursor: Any) -> None:
        name = self.dialect.identifier_preparer.quote_identifier(self._schema)
        try:
            with suppress(self._driver.errors.UniqueViolation):  # another process made it at this moment
                cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {name}")
        except self._driver.errors.InsufficientPrivilege as error:
            raise SettingsError(
                f"store {self.url} has no schema {self._schema!r}, and its user may not create one; run as its owner:"
                f" CREATE SCHEMA {name} AUTHORIZATION {self.address.username or 'the_user'}"
            ) from error


def _refuse_dead(connection: Any, _record: object, _proxy: object) -> None:
    """Find out without a round trip that a server has ended its sessions: an idle connection has nothing to read."""
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    if connection.closed or poll.poll(0):
        raise InvalidatePoolError("the server ended the session")
