"""The event log: read behind a cursor so that no event is ever missed.

Numbers are given out in the order in which events are written, but transactions commit in another: number 7 can be
there while 6 is not yet. A reader that went on behind 7 would miss 6. So a number counts as *settled* only when
every smaller one is either visible or will never come, and cursors never pass what is not settled.

Where all numbers behind the cursor are there without a hole, they are settled: that is nearly every read of a tail.
Where a number is missing, or the rows are those of one run and show nothing about holes, the writers are asked for:
whoever has a number and has not committed holds the lock that its INSERT took on the table. Who held one after our
first look and has let go of it since has committed or never will; what is visible then is settled. What was settled
once stays so: a process remembers how far, so that the holes that deleted runs leave hold nobody up.

Ordering by transaction id and reading below ``pg_snapshot_xmin``, the usual way, was decided against: transaction ids
are given out at the first write, before a transaction waits for its locks, so that the end of a run could come before
the end of its last steps; any long transaction of any other application on the server stops the whole log; and ids of
a dump that is restored elsewhere mean nothing there.
"""

import time

from sqlalchemy import bindparam, func, literal_column, select

from orchestra.store.sql import statements as sql
from orchestra.store.sql.database import Row, Transaction
from orchestra.store.sql.schema import events
from orchestra.store.sql.statements.statement import Statement

_LOOKS = 10
_BETWEEN_LOOKS_S = 0.002
"""Writers end their transaction right after their event, so the wait is over after one or two looks."""
_FAR = 100_000
"""How far back from the end of the log its cursor may lie when a writer does not finish."""

_seen = (
    select(
        events.c.seq,
        func.lag(events.c.seq, literal_column("1"), bindparam("after")).over(order_by=events.c.seq).label("before"),
    )
    .where(events.c.seq > bindparam("after"))
    .subquery()
)
FIRST_HOLE = Statement(
    "first hole",
    "How far the log is sure to be complete while a writer does not finish.",
    select(_seen.c.before)
    .where(_seen.c.seq > _seen.c.before + literal_column("1"))
    .order_by(_seen.c.seq)
    .limit(literal_column("1")),
    ("before",),
)


def rows(tx: Transaction, after: int, limit: int, run_id: str | None, newest: bool) -> list[Row]:
    """Return settled rows in the columns EVENT behind a cursor, of one run or of all: the first ones or the last."""
    found = _visible(tx, after, limit, run_id, newest)
    if not tx.concurrent or not found:
        return found
    if found[-1][0] <= tx.settled:
        return found
    if run_id is None and not newest and found[-1][0] - after == len(found):
        if after <= tx.settled:
            tx.settled = found[-1][0]
        return found
    last = _settled(tx, after)
    return [row for row in _visible(tx, after, limit, run_id, newest) if row[0] <= last]


def end(tx: Transaction) -> int:
    """Return the cursor behind the newest settled event."""
    last: int = tx.value(sql.log.LAST_EVENT)
    return _settled(tx, max(0, last - _FAR)) if tx.concurrent else last


def _settled(tx: Transaction, after: int) -> int:
    """Return the greatest settled number; where writers do not finish, the number before the first hole."""
    last: int = tx.value(sql.log.LAST_EVENT)
    writing = tx.writers(events.name)
    for _look in range(_LOOKS):
        if not writing:
            tx.settled = max(last, tx.settled)
            return last
        time.sleep(_BETWEEN_LOOKS_S)
        writing &= tx.writers(events.name)
    hole = tx.value(FIRST_HOLE, after=max(after, tx.settled))
    return last if hole is None else min(last, hole)


def _visible(tx: Transaction, after: int, limit: int, run_id: str | None, newest: bool) -> list[Row]:
    if run_id is not None:
        return tx.all(sql.log.EVENTS_OF_RUN, run_id=run_id, after=after, limit=limit)
    if newest:
        return tx.all(sql.log.NEWEST_EVENTS, after=after, limit=limit)[::-1]
    return tx.all(sql.log.EVENTS, after=after, limit=limit)
