"""SQLite: one connection for all threads of a process."""

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL

from orchestra.errors import StoreUnavailable
from orchestra.store.sql.address import in_memory
from orchestra.store.sql.database import Again, Database, Transaction, first_line
from orchestra.store.sql.listening import SqliteEars
from orchestra.store.task_results import Changed, Ears

BUSY_TIMEOUT_S = 10.0
"""How long SQLite itself waits for another process's transaction, while a connection is opened."""
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
T = TypeVar("T")


class SqliteDatabase(Database):
    """A SQLite database. One connection serves all threads of a process: SQLite has one writer anyway, and the lock
    costs less than threads that wake each other for a busy file would."""

    kind = "sqlite"
    has_table = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = :name"
    size = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
    longest_wait_s = 0.01
    """SQLite's own waiting looks at the file ever more rarely, so that among many writers who has waited for long waits
    for seconds more: a lease runs out meanwhile. Nor does a thread that waits here keep the others from trying."""

    def __init__(self, address: URL) -> None:
        super().__init__(address)
        self.dialect = sqlite.dialect(paramstyle="named")
        self._closed = False
        self._open()
        _keep_whole_across_forks(self)

    def new_connection(self) -> sqlite3.Connection:
        path = ":memory:" if in_memory(self.address) else self.address.database or ""
        if path != ":memory:" and not Path(path).parent.is_dir():
            raise StoreUnavailable(self.url, f"the folder {str(Path(path).parent)!r} does not exist")
        try:
            with self._errors():
                connection = sqlite3.connect(
                    path,
                    timeout=BUSY_TIMEOUT_S,
                    isolation_level=None,
                    check_same_thread=False,
                    cached_statements=256,
                )
                # WAL lets other processes read while one writes; FULL makes every commit survive a power cut.
                for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=OFF", "temp_store=MEMORY"):
                    connection.execute(f"PRAGMA {pragma}")
        except sqlite3.Error as error:
            raise StoreUnavailable(self.url, first_line(error)) from error
        return connection

    def ears(self, channel: str, changed: Changed) -> Ears:
        return SqliteEars(self, changed)

    @contextmanager
    def counting(self) -> Generator[Callable[[], int]]:
        """Give a function whose value is another one after every commit, of this process or another."""
        with self._lock:
            connection = self.new_connection()

        def count() -> int:
            with self._lock, self._errors():  # no fork in between
                return connection.execute("PRAGMA data_version").fetchone()[0]

        try:
            yield count
        finally:
            connection.close()

    def close(self) -> None:
        with self._lock:
            if not self._closed and self._pid == os.getpid():
                self._connection.close()
            self._closed = True

    def _write(self, block: Callable[[Transaction], T]) -> T:
        # Immediate: a transaction that begins by reading and then finds another writer could only be thrown away.
        return self._transaction("BEGIN IMMEDIATE", block)

    def _read(self, block: Callable[[Transaction], T]) -> T:
        return self._transaction("BEGIN", block)

    def _transaction(self, begin: str, block: Callable[[Transaction], T]) -> T:
        if self._pid != os.getpid():
            # A forked child must not use its parent's connection, nor its lock, which may be held for ever. Both are
            # kept: closing the file here would drop the locks that the parent has on it.
            self._inherited = self._connection, self._lock
            self._open()
        with self._lock, self._errors():
            if self._closed:
                raise StoreUnavailable(self.url, "it was closed")
            cursor = self._connection.cursor()
            try:
                cursor.execute(begin)
                result = block(Transaction(cursor, self))
                cursor.execute("COMMIT")
            except BaseException:
                self._roll_back(cursor)
                raise
            finally:
                cursor.close()
            return result

    @contextmanager
    def _errors(self) -> Generator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _BUSY:
                raise Again(first_line(error)) from error
            raise StoreUnavailable(self.url, first_line(error)) from error

    def _roll_back(self, cursor: Any) -> None:
        if self._connection.in_transaction:
            cursor.execute("ROLLBACK")

    def _open(self) -> None:
        self._lock = threading.RLock()
        self._connection = self.patiently(self.new_connection)
        self._connection.execute("PRAGMA busy_timeout=0")
        self._pid = os.getpid()


def _keep_whole_across_forks(database: SqliteDatabase) -> None:
    """Let no process fork while one of its threads is in a transaction.

    SQLite counts the locks of a file per process: a child that inherits the count of an open transaction would wait for
    ever for the end of it, whatever connection it opens.
    """
    known = weakref.ref(database)
    held: list[Any] = []

    def before() -> None:
        if (alive := known()) is not None:
            held.append(alive._lock)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            held[-1].acquire()

    def after() -> None:
        if held:
            held.pop().release()

    os.register_at_fork(before=before, after_in_parent=after, after_in_child=after)
