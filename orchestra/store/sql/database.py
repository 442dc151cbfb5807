"""The database: transactions that are run as a whole, and run again where that helps. One subclass per server."""

import hashlib
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Dialect
from sqlalchemy.engine import URL

from orchestra.errors import StoreUnavailable
from orchestra.store.sql.address import shown
from orchestra.store.sql.statements.statement import Statement
from orchestra.store.task_results import Changed, Ears

PATIENCE_S = 10.0
"""How long an operation is tried again before it is given up. Restarts of a server fit in."""
_FIRST_WAIT_S = 0.005

Row = tuple[Any, ...]
Text = tuple[str, dict[str, object]]
T = TypeVar("T")


class Again(Exception):
    """An attempt failed in a way that trying again may mend: the connection was lost, or others were in the way.

    Nothing of the attempt has been done. Raised by the classes that know a driver; leaves this package never.
    """


class Transaction:
    """An open transaction: runs statements by name on the driver's cursor."""

    concurrent = False
    """Whether several transactions may write at the same time."""

    @property
    def combines(self) -> bool:
        """Whether one statement may change several tables."""
        return self._database.combines

    def __init__(self, cursor: Any, database: "Database") -> None:
        self._cursor, self._database = cursor, database
        self.wrote: tuple[Statement, Mapping[str, object]] | None = None
        """Finds a row that is there if this was committed, where one is known."""

    def run(self, statement: Statement, /, **parameters: object) -> None:
        """Execute a statement for its effect. Its error may come with a later call."""
        self._execute(statement, parameters)

    def all(self, statement: Statement, /, **parameters: object) -> list[Row]:
        """Return all rows."""
        return self._execute(statement, parameters).fetchall()

    def one(self, statement: Statement, /, **parameters: object) -> Row | None:
        """Return the one row, if there is one."""
        rows = self.all(statement, **parameters)
        return rows[0] if rows else None

    def value(self, statement: Statement, /, **parameters: object) -> Any:
        """Return the first column of the one row, or None."""
        row = self.one(statement, **parameters)
        return None if row is None else row[0]

    def many(self, statement: Statement, rows: Sequence[Mapping[str, object]]) -> None:
        """Execute a statement once for each of the rows, all of which have the same names."""
        self._cursor.executemany(self._database.text(statement)[0], rows)

    def listing(self, statement: Statement) -> list[Row]:
        """Return the rows of a statement that was built for one call and carries its own values."""
        return self.execute(*self._database.compiled(statement)).fetchall()

    def lock(self, name: str, *, alone: bool) -> None:
        """Hold something until the transaction ends: alone, or together with others that do not ask to be alone.

        A database that has one writer at a time has nothing to do.
        """

    def lock_all(self, names: Mapping[str, bool]) -> None:
        """Hold several, in their order; the value says whether alone."""
        for name, alone in names.items():
            self.lock(name, alone=alone)

    @property
    def settled(self) -> int:
        """The number up to which this process knows the log to be settled."""
        return self._database.settled

    @settled.setter
    def settled(self, number: int) -> None:
        self._database.settled = number

    def writers(self, table: str) -> frozenset[str]:
        """Return names of the other open transactions that have written to a table, or are about to."""
        return frozenset()

    def has_table(self, name: str) -> bool:
        """Whether a table exists where unqualified names are looked for."""
        return bool(self.execute(self._database.has_table, {"name": name}).fetchone()[0])

    def size(self) -> int:
        """Return how many bytes the store takes, with its indexes."""
        return int(self.execute(self._database.size).fetchone()[0])

    def execute(self, text: str, parameters: Mapping[str, object] | None = None) -> Any:
        """Execute a text in the database's own dialect; returns what to fetch rows from."""
        self._cursor.execute(text, parameters or {})
        return self._cursor

    def _execute(self, statement: Statement, parameters: Mapping[str, object]) -> Any:
        text, own = self._database.text(statement)
        return self.execute(text, {**own, **parameters} if own else parameters)


class Database(ABC):
    """A database, shared by all threads of a process and usable in its forked children.

    A block is a function of a transaction. It may run several times, so it must have no other effect than through
    its transaction and its result; what it did in an attempt that failed is undone.
    """

    kind: str
    """``sqlite`` or ``postgresql``."""
    dialect: Dialect
    has_table: str
    """Query for whether a table of a name exists."""
    size: str
    """Query for the bytes that the store takes."""
    longest_wait_s = 0.5
    """How long it waits at most between two attempts."""
    combines = False
    """Whether one statement may change several tables: ``WITH … AS (UPDATE …)``."""

    def __init__(self, address: URL) -> None:
        self.address = address
        self.url = shown(address)
        self._texts: dict[Statement, Text] = {}
        self.settled = 0
        """The number up to which the log is known to be settled (see ``log``). What is settled stays so."""

    def write(self, block: Callable[[Transaction], T]) -> T:
        """Run a block as one transaction, once in effect.

        Raises:
            StoreUnavailable: The database did not answer, or others were in the way, for ``PATIENCE_S``.
        """
        return self.patiently(lambda: self._write(block))

    def read(self, block: Callable[[Transaction], T]) -> T:
        """Run a block that changes nothing. Each of its statements sees what was committed before it."""
        return self.patiently(lambda: self._read(block))

    def singly(self, block: Callable[[Transaction], T]) -> T:
        """Run a block of which one statement changes something; where that is cheaper, each is a transaction.

        The block may be run again when its change has been made, and has to recognise it.
        """
        return self.write(block)

    def patiently(self, attempt: Callable[[], T]) -> T:
        """Return what an attempt returns, trying again for a while when it raises ``Again``."""
        deadline = time.monotonic() + PATIENCE_S
        longest = _FIRST_WAIT_S
        while True:
            try:
                return attempt()
            except Again as again:
                # Random, so that those who were in each other's way do not meet again.
                wait = random.uniform(longest / 2, longest)
                longest = min(self.longest_wait_s, longest * 2)
                if time.monotonic() + wait > deadline:
                    raise StoreUnavailable(self.url, str(again)) from again.__cause__
            time.sleep(wait)

    def text(self, statement: Statement) -> Text:
        """Return the text of a statement that is used again and again."""
        found = self._texts.get(statement)
        if found is None:
            found = self._texts[statement] = self.compiled(statement)
        return found

    def compiled(self, statement: Statement) -> Text:
        """Return the text of a statement in this database's dialect, with the values that are part of it."""
        return statement.compile(self.dialect)

    @abstractmethod
    def new_connection(self) -> Any:
        """Return a connection of the driver for somebody else's use. It begins no transactions by itself."""

    def channel(self, name: str) -> str:
        """Return the name of a channel that no other store of the database uses."""
        return name

    @abstractmethod
    def ears(self, channel: str, changed: Changed) -> Ears:
        """Return ears for what is told on a channel; of a file they hear that it has changed."""

    @abstractmethod
    def close(self) -> None:
        """Close; a second time does nothing."""

    @abstractmethod
    def _write(self, block: Callable[[Transaction], T]) -> T: ...

    @abstractmethod
    def _read(self, block: Callable[[Transaction], T]) -> T: ...


def lock_number(name: str) -> int:
    """Return the number that stands for the name of a lock."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), signed=True)


def first_line(error: BaseException) -> str:
    """Return what an error says, on one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
