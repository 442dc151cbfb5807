"""Whole: transactions that are one statement, on databases where a statement may change several tables.

The two that nearly every task has are made so: a run of one step is created, and a step that feeds nothing and is a
part of nothing completes. A statement that is alone commits by itself. Whatever else happens goes the general way.
"""

import itertools
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from orchestra.engine.outcome import Completed
from orchestra.engine.rows import rows
from orchestra.model.ids import MessageRef, StepRef
from orchestra.store import transitions
from orchestra.store.contract import Claimed, ClaimRef, Created, Dispatch, NewRun, Recorded
from orchestra.store.effects import Window, fill
from orchestra.store.entries import completed_entry, started_entry
from orchestra.store.sql.database import Database, Row, Transaction, lock_number
from orchestra.store.sql.results import Packing
from orchestra.store.sql.rows import columns_of, counted_of, encoded, picked_of, run_row
from orchestra.store.sql.statements.columns import COUNTED
from orchestra.store.sql.statements.statement import Statement
from orchestra.store.sql.statements.whole import COMPLETE, CREATE, MOST_PICKED, OWN_END, OWN_RUN
from orchestra.store.sql.transaction import SqlTransaction

_MOST_HELD = 1000


@dataclass(frozen=True, slots=True)
class _Held:
    """What the log will say of a claim that was made in this process."""

    name: str
    queue: str
    attempts: int
    worker: str
    started_at: float


class Whole:
    """Creates and completes in one statement where it can. Otherwise nothing has been done, and it says None.

    Args:
        result_limit: Characters up to which an output stays in the row of its step.
    """

    def __init__(self, database: Database, result_limit: int) -> None:
        self._database, self._result_limit = database, result_limit
        self._held: OrderedDict[ClaimRef, _Held] = OrderedDict()

    def create(self, run: NewRun, window: Window, now: float) -> Created | None:
        """Create a run of one step, unless its key or its id is taken."""
        if not self._database.combines or len(run.plan.steps) != 1:
            return None
        ((step,), _joins) = rows(run.plan)
        parameters = {f"step_{name}": value for name, value in columns_of(step).items()}
        parameters |= run_row(run, 1, 1, 0, now)
        parameters |= {
            "window": window(step.queue),
            "entries": encoded(transitions.created_entries(run, [step])),
        }
        found = self._once(CREATE, parameters, OWN_RUN, {"run_id": run.id, "now": now})
        if not found:
            return None
        ref = MessageRef(StepRef(run.id, step.n), 0)
        dispatch = Dispatch(ref, step.task, step.name, step.queue, step.priority, step.timeout_s, target=step.target)
        return Created(run.id, () if found[0][0] is None else (dispatch,))

    def hold(self, claimed: Claimed, worker: str, now: float) -> None:
        """A claim was made in this process, where its end is likely to be recorded."""
        row = claimed.row
        if self._database.combines and row.feeds is None and row.parent is None:
            self._held[claimed.claim] = _Held(row.name, row.queue, claimed.attempts + 1, worker, now)
            if len(self._held) > _MOST_HELD:
                self._held.popitem(last=False)  # one that was given up without a word

    def complete(self, claim: ClaimRef, change: Completed, window: Window, now: float) -> Recorded | None:
        """Record a completion, if the claim was made in this process and still stands."""
        held = self._held.pop(claim, None)
        if held is None or change.dead or len(change.output) > self._result_limit:
            return None
        (step, generation), number = claim
        about = {"run_id": step.run_id, "n": step.n, "generation": generation, "claim": number, "now": now}
        entries = [
            started_entry(step.n, held.name, held.attempts, number, held.worker, held.started_at),
            completed_entry(step.n, held.name, held.attempts, held.started_at, now),
        ]
        parameters = {
            **about,
            "lock": lock_number(step.run_id),
            "output": change.output,
            "entries": (encoded(entries) or "")[:-1],
            "queue": held.queue,
            "window": window(held.queue),
        }
        found = self._once(COMPLETE, parameters, OWN_END, about)
        if not found:
            return None
        first = len(COUNTED)
        rows = [row[first:] for row in found if len(row) > first and row[first] is not None]
        picked, _has_room = picked_of(rows)
        if rows and _is_to_be_filled(window(held.queue), rows[0][-1], len(rows)):
            picked += self._database.write(
                lambda inner: fill(SqlTransaction(inner, Packing()), [held.queue], window, now)
            )
        parent = claim.ref.celery_id
        own = [replace(each, parent=parent) if each.ref.step.run_id == step.run_id else each for each in picked]
        status, completed_at, single = found[0][:first]
        return Recorded(own, counted_of(status, completed_at, single, now).ended)

    def _once(
        self, statement: Statement, parameters: Mapping[str, object], own: Statement, about: Mapping[str, object]
    ) -> list[Row]:
        """Return the rows of a statement, or of the one that finds what it did where its answer was lost."""
        attempts = itertools.count()

        def block(tx: Transaction) -> list[Row]:
            again = next(attempts) > 0
            found = tx.all(statement, **parameters)
            return tx.all(own, **about) if again and not found else found

        return self._database.singly(block)


def _is_to_be_filled(window: int, room: int, picked: int) -> bool:
    """Whether a window has room that one completion did not fill, or not with the best of another priority.

    Not for an eighth of it: the next completions bring that back, since each may pick more than it made room for.
    """
    return picked < min(room, MOST_PICKED) or room - picked > window // 8
