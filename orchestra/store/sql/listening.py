"""Listening: how a process hears that others have changed something.

PostgreSQL tells (LISTEN, NOTIFY). SQLite cannot: a counter in its shared memory says that something was committed, and
is looked at a thousand times a second while somebody waits and things happen, fifty times a second when they do not.
"""

import time
from base64 import b64decode
from collections.abc import Callable, Collection, Generator, Iterable
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from orchestra.errors import StoreUnavailable
from orchestra.store.ears import Deaf, Source, ThreadedEars
from orchestra.store.task_results import Changed

if TYPE_CHECKING:
    from orchestra.store.sql.database import Database
    from orchestra.store.sql.sqlite import SqliteDatabase

_QUICK_S, _SLOW_S = 0.001, 0.02
_LIVELY_S = 0.5
"""For how long after a change, or after somebody began to wait, SQLite is looked at quickly."""


class PostgresEars(ThreadedEars):
    """One connection that listens on one channel, for all who wait in this process."""

    def __init__(self, database: "Database", channel: str, changed: Changed) -> None:
        super().__init__(changed)
        self._database, self._channel = database, channel

    def _open(self) -> AbstractContextManager[Source]:
        return self._listening()

    @contextmanager
    def _listening(self) -> Generator[Source]:
        import psycopg  # an extra; who has got here has it

        try:
            connection = self._database.new_connection()
        except psycopg.Error as error:
            raise Deaf(str(error)) from error
        try:
            connection.execute(f"LISTEN {self._channel}", prepare=False)
            yield _Notifications(connection)
        except psycopg.Error as error:
            raise Deaf(str(error)) from error
        finally:
            connection.close()


class _Notifications:
    """All changes travel on one channel: to listen to one more task costs nothing."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def join(self, task_ids: Collection[str]) -> None:
        pass

    def leave(self, task_id: str) -> None:
        pass

    def hear(self, timeout_s: float) -> Iterable[tuple[str | None, bytes | None]]:
        for each in self._connection.notifies(timeout=timeout_s, stop_after=1):
            task_id, _, payload = each.payload.rpartition(" ")
            yield task_id, b64decode(payload) if payload else None


class SqliteEars(ThreadedEars):
    """One connection that is asked whether others have committed, this process's own transactions included."""

    def __init__(self, database: "SqliteDatabase", changed: Changed) -> None:
        super().__init__(changed)
        self._database = database

    def _open(self) -> AbstractContextManager[Source]:
        return self._watching()

    @contextmanager
    def _watching(self) -> Generator[Source]:
        try:
            with self._database.counting() as count:
                yield _Counter(count)
        except StoreUnavailable as error:
            raise Deaf(str(error)) from error


class _Counter:
    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count
        self._seen = count()
        self._lively_until = 0.0

    def join(self, task_ids: Collection[str]) -> None:
        self._lively_until = time.monotonic() + _LIVELY_S

    def leave(self, task_id: str) -> None:
        pass

    def hear(self, timeout_s: float) -> Iterable[tuple[str | None, bytes | None]]:
        until = time.monotonic() + timeout_s
        while (now := time.monotonic()) < until:
            count = self._count()
            if count != self._seen:
                self._seen, self._lively_until = count, now + _LIVELY_S
                yield None, None
                return
            time.sleep(_QUICK_S if now < self._lively_until else _SLOW_S)
