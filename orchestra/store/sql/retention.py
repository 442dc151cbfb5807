"""Retention: runs that ended long ago are deleted, in transactions that are short for everybody else.

Readers of the log on PostgreSQL take whoever deletes from it for a writer (see ``log``). So its rows go last in a
transaction or, where a run has many steps, in bites of their own before the run goes.
"""

from collections.abc import Sequence

from sqlalchemy import and_, bindparam, delete, func, literal_column, select

from orchestra.store.sql.database import Database, Transaction
from orchestra.store.sql.schema import checkpoints, events, joins, logs, progress, results, runs, shards, steps
from orchestra.store.sql.statements.statement import Statement

BITE = 1000
"""Steps, or rows of the log, that one transaction deletes; the steps of a single run go as a whole."""
_MOST_RUNS, _MOST_BITES = 200, 10

_p = bindparam
# A run begins before it ends, so that the index by age finds those that ended before a time.
_ENDED = and_(runs.c.created_at < _p("before"), runs.c.completed_at < _p("before"))
PRUNABLE = Statement(
    "prunable",
    "The oldest runs that ended before a time, and how many steps they have; what others delete is passed over.",
    select(runs.c.id, runs.c.next_n)
    .where(_ENDED)
    .order_by(runs.c.created_at)
    .limit(_p("limit"))
    .with_for_update(skip_locked=True),
    ("id", "next_n"),
)
COUNT_PRUNABLE = Statement(
    "count prunable",
    "How many runs ended before a time.",
    select(func.count()).select_from(runs).where(_ENDED),
    ("count",),
)
LOCK_RUN = Statement(
    "lock run",
    "Whether a run has ended before a time, and still has when it is deleted.",
    select(runs.c.id).where(runs.c.id == _p("run_id"), runs.c.completed_at < _p("before")).with_for_update(),
    ("id",),
)
DROP_OF_RUN = [
    Statement(f"drop {its.table.name} of run", "A run is deleted.", delete(its.table).where(its == _p("run_id")))
    for its in (
        *(each.c.run_id for each in (results, checkpoints, progress, logs, shards, joins, steps)),
        runs.c.id,
        events.c.run_id,
    )
]
"""In this order: the log last."""
AFTER_BITE = Statement(
    "after bite",
    "Where the second bite of a run's log begins.",
    select(events.c.seq)
    .where(events.c.run_id == _p("run_id"))
    .order_by(events.c.seq)
    .limit(literal_column("1"))
    .offset(_p("bite")),
    ("seq",),
)
DROP_EVENTS = Statement(
    "drop events",
    "A bite of a run's log.",
    delete(events).where(events.c.run_id == _p("run_id"), events.c.seq < _p("before")),
)
OLDEST_LOOSE = Statement(
    "oldest loose",
    "The oldest events that belong to no run.",
    select(events.c.seq, events.c.time).where(events.c.run_id.is_(None)).order_by(events.c.seq).limit(_p("limit")),
    ("seq", "time"),
)
DROP_LOOSE = Statement(
    "drop loose",
    "A bite of the events that belong to no run.",
    delete(events).where(events.c.run_id.is_(None), events.c.seq <= _p("last")),
)


def prune(database: Database, before: float, limit: int) -> int:
    """See the contract."""
    for _bite in range(_MOST_BITES):
        if not database.write(lambda tx: _drop_loose(tx, before)):
            break
    while True:
        dropped, wide = database.write(lambda tx: _drop_some(tx, before, min(limit, _MOST_RUNS)))
        if wide is None:
            return dropped
        if _drop_wide(database, wide, before):
            return 1


def _drop_some(tx: Transaction, before: float, limit: int) -> tuple[int, str | None]:
    """Delete the oldest runs that have a bite of steps together; or return the first, if it alone has more."""
    found = tx.all(PRUNABLE, before=before, limit=limit)
    if found and found[0][1] > BITE:
        return 0, found[0][0]
    taken: list[str] = []
    total = 0
    for run_id, count in found:
        total += count
        if total > BITE:
            break
        taken.append(run_id)
    _drop(tx, taken)
    return len(taken), None


def _drop(tx: Transaction, run_ids: Sequence[str]) -> None:
    """Delete runs that this transaction has locked, with all that belongs to them."""
    if run_ids:
        for statement in DROP_OF_RUN:
            tx.many(statement, [{"run_id": run_id} for run_id in run_ids])


def _drop_wide(database: Database, run_id: str, before: float) -> bool:
    """Delete a run of many steps; returns False when somebody else did."""
    while database.write(lambda tx: _drop_bite(tx, run_id)):
        pass

    def drop(tx: Transaction) -> bool:
        still = tx.one(LOCK_RUN, run_id=run_id, before=before) is not None
        _drop(tx, [run_id] if still else [])
        return still

    return database.write(drop)


def _drop_bite(tx: Transaction, run_id: str) -> bool:
    """Delete a bite of a run's log, unless it is the last one; that goes with the run."""
    following = tx.value(AFTER_BITE, run_id=run_id, bite=BITE)
    if following is None:
        return False
    tx.run(DROP_EVENTS, run_id=run_id, before=following)
    return True


def _drop_loose(tx: Transaction, before: float) -> bool:
    """Delete a bite of the events that belong to no run; returns whether there may be more."""
    oldest = tx.all(OLDEST_LOOSE, limit=BITE)
    old = [seq for seq, time in oldest if time < before]
    if old:
        tx.run(DROP_LOOSE, last=max(old))
    return len(old) == BITE
