"""Whole: transactions that are one statement, on databases where a statement may change several tables.

Those that nearly every task has are made so: a run of one step is created, a step that feeds nothing and is a part of
nothing completes, and a link of a chain completes, with which its worker claims the next one. A statement that is alone
commits by itself. Whatever else happens goes the general way.
"""

import itertools
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from orchestra.engine.outcome import Completed
from orchestra.engine.plan import StepInput
from orchestra.engine.rows import StepRow, rows
from orchestra.model.ids import MessageRef, StepRef
from orchestra.store import transitions
from orchestra.store.contract import (
    Claimed,
    ClaimRef,
    Created,
    Dispatch,
    NewRun,
    Onward,
    Recorded,
    Refused,
    ToClaim,
    ToRecord,
)
from orchestra.store.effects import Window, fill
from orchestra.store.entries import Entry, completed_entry, started_entry
from orchestra.store.sql.database import Database, Row, Transaction, lock_number
from orchestra.store.sql.results import Packing
from orchestra.store.sql.rows import claimed_of, columns_of, counted_of, encoded, picked_of, run_row
from orchestra.store.sql.statements.columns import COUNTED
from orchestra.store.sql.statements.statement import Statement
from orchestra.store.sql.statements.whole import COMPLETE, CREATE, LINK, MOST_PICKED, OWN_END, OWN_LINK, OWN_RUN
from orchestra.store.sql.transaction import SqlTransaction

_MOST_HELD = 1000


@dataclass(frozen=True, slots=True)
class _Held:
    """What the log will say of a claim that was made in this process."""

    name: str
    queue: str
    single: bool
    attempts: int
    worker: str
    started_at: float
    join: int | None
    """The join that only this step is a part of, and behind which there is one step; None where it feeds nothing."""

    def entries(self, claim: ClaimRef, now: float) -> list[Entry]:
        """Return what the log says of its completion."""
        n, number = claim.ref.step.n, claim.claim
        return [
            started_entry(n, self.name, self.attempts, number, self.worker, self.started_at),
            completed_entry(n, self.name, self.attempts, self.started_at, now),
        ]


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
        is_single = row.key == claimed.claim.ref.step.run_id
        join = _only_join(row)
        if self._database.combines and row.parent is None and (row.feeds is None or join is not None):
            self._held[claimed.claim] = _Held(row.name, row.queue, is_single, claimed.attempts + 1, worker, now, join)
            if len(self._held) > _MOST_HELD:
                self._held.popitem(last=False)  # one that was given up without a word

    def hold_all(
        self,
        wanted: Sequence[ToClaim | ToRecord],
        answers: Sequence[Claimed | Refused | Recorded | None],
        onward: Onward | None,
    ) -> None:
        """Claims were made in this process, with others or with records."""
        for each, answer in zip(wanted, answers, strict=True):
            if isinstance(each, ToClaim) and isinstance(answer, Claimed):
                self.hold(answer, each.worker, each.now)
            elif onward is not None and isinstance(answer, Recorded):
                for _dispatch, claimed in answer.onward:
                    self.hold(claimed, onward.worker, each.now)

    def complete(
        self, claim: ClaimRef, change: Completed, window: Window, now: float, onward: Onward | None
    ) -> Recorded | None:
        """Record a completion, if the claim was made in this process and still stands."""
        held = self._held.pop(claim, None)
        if held is None or change.dead or len(change.output) > self._result_limit:
            return None
        if held.join is not None:
            return None if onward is None else self._link(claim, held, held.join, change, now, onward)
        if onward is None or held.single:  # what is handed on is of other runs, and the worker does not go on with it
            return self._end(claim, held, change, window, now)
        return None

    def _end(self, claim: ClaimRef, held: _Held, change: Completed, window: Window, now: float) -> Recorded | None:
        """End a step that feeds nothing."""
        about = _about(claim, now)
        parameters = {
            **about,
            "lock": lock_number(claim.ref.step.run_id),
            "output": change.output,
            "entries": (encoded(held.entries(claim, now)) or "")[:-1],
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
        run_id, parent = claim.ref.step.run_id, claim.ref.celery_id
        own = [replace(each, parent=parent) if each.ref.step.run_id == run_id else each for each in picked]
        status, completed_at, single = found[0][:first]
        return Recorded(own, counted_of(status, completed_at, single, now).ended)

    def _link(
        self, claim: ClaimRef, held: _Held, join: int, change: Completed, now: float, onward: Onward
    ) -> Recorded | None:
        """End a step, and claim the one behind it."""
        run_id, n = claim.ref.step
        own = {"run_id": run_id, "join": join, "worker": onward.worker, "now": now}
        parameters = {
            **_about(claim, now),
            **own,
            "lock": lock_number(run_id),
            "output": change.output,
            "entries": (encoded(held.entries(claim, now)) or "")[:-1],
            "queue": onward.queue,
            "priority": onward.priority,
            "targets": _lines(onward.targets),
        }
        found = self._once(LINK, parameters, OWN_LINK, own)
        if not found:
            return None
        generation, *row = found[0]
        claimed = claimed_of(MessageRef(StepRef(run_id, row[0]), generation), tuple(row))
        claimed = self._with_input(claimed, n, held.name, change.output)
        self.hold(claimed, onward.worker, now)
        return Recorded([], None, [(_dispatch(claimed, claim), claimed)])

    def _with_input(self, claimed: Claimed, before: int, name: str, output: str) -> Claimed:
        """Return a claim with the outputs that it needs, of which that of the one before it is known."""
        given = StepInput.from_json(claimed.row.input)
        needs = given.needs()
        others = [n for n in needs if n != before]
        run_id = claimed.claim.ref.step.run_id
        outputs = (
            self._database.read(lambda tx: SqlTransaction(tx, Packing()).outputs(run_id, others)) if others else {}
        )
        if given.from_predecessors or before in needs:
            outputs[before] = output
        return replace(claimed, outputs=outputs, predecessors={before: name} if given.from_predecessors else {})

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


def _only_join(row: StepRow) -> int | None:
    """Return the join that a step alone makes complete, if it feeds no other, and one step is behind it."""
    if row.feeds is None or len(row.feeds) != 1:
        return None
    number, parts, bodies, any_way = row.feeds[0]
    return number if (parts, bodies, any_way) == (1, 1, 0) else None


def _about(claim: ClaimRef, now: float) -> dict[str, object]:
    (step, generation), number = claim
    return {"run_id": step.run_id, "n": step.n, "generation": generation, "claim": number, "now": now}


@lru_cache(maxsize=16)
def _lines(targets: frozenset[str]) -> str:
    """Return a text in which each of them stands between two ends of lines: a list of hundreds takes longer to send."""
    return "".join(f"\n{each}\n" for each in sorted(targets))


def _dispatch(claimed: Claimed, before: ClaimRef) -> Dispatch:
    """Return what would have been published of a claimed step."""
    row = claimed.row
    return Dispatch(
        claimed.claim.ref, row.task, row.name, row.queue, row.priority, row.timeout_s, row.chain or (),
        parent=before.ref.celery_id, target=row.target,
    )  # fmt: skip
