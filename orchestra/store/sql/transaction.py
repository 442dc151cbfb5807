"""The primitives of ``orchestra.store.primitives`` as statements."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestra.engine.join import Arrivals, Way
from orchestra.engine.rows import JoinRow, StepRow
from orchestra.model.ids import MessageRef, StepRef
from orchestra.model.record import ErrorInfo, JobRecord
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.store.contract import Claimed, ClaimRef, Dispatch, NewRun
from orchestra.store.entries import Entry, started_entry
from orchestra.store.primitives import Counted, Ending, Hot, RunState
from orchestra.store.sql import statements as sql
from orchestra.store.sql import wide
from orchestra.store.sql.control import SqlControl
from orchestra.store.sql.database import Row, Transaction
from orchestra.store.sql.results import MARKER, PUT_RESULT, Packing, all_whole, whole
from orchestra.store.sql.rows import (
    claimed_of,
    columns_of,
    counted_of,
    dispatch_of,
    encoded,
    error_text,
    hot_of,
    job_row,
    move_of,
    picked_of,
    run_row,
    step_row_of,
)
from orchestra.store.sql.statements.columns import HOT, RUN_STATE_COLUMNS
from orchestra.store.sql.statements.steps import ZERO

_UNKNOWN: tuple[str, Row | None] = ("", None)
_NOTHING_YET: Mapping[str, object] = dict.fromkeys(ZERO, 0)


class SqlTransaction(SqlControl):
    """One transaction of the SQL store. Each method is the primitive of its name.

    Args:
        again: An earlier attempt may have taken effect without an answer.
    """

    def __init__(self, tx: Transaction, packing: Packing, *, again: bool = False) -> None:
        self.tx, self._packing, self._again = tx, packing, again
        self.wrote_events = False
        self._unwritten: dict[str, Any] | None = None
        self._state: tuple[str, Row | None] = _UNKNOWN

    def lock_run(self, run_id: str, *, alone: bool) -> None:
        self.tx.lock(run_id, alone=alone)

    def taken(self, run_id: str, key: str | None) -> tuple[str, str | None, bool] | None:
        rows = self.tx.all(sql.runs.RUN_OF_KEY, run_id=run_id, key=key)
        by_key = [(found, fingerprint, True) for found, fingerprint, its in rows if key is not None and its == key]
        by_id = [(found, fingerprint, False) for found, fingerprint, _its in rows if found == run_id]
        return next(iter(by_key + by_id), None)

    def add_run(self, run: NewRun, remaining: int, steps: int, joins: int, now: float) -> bool:
        row = self.tx.one(sql.runs.ADD_RUN, **run_row(run, remaining, steps, joins, now))
        return row is not None

    def add_steps(self, run_id: str, steps: Sequence[StepRow], now: float, *, parked: bool = False) -> None:
        about = {"run_id": run_id, "created_at": now, "parked": int(parked), **_NOTHING_YET}
        self.tx.many(sql.steps.ADD_STEP, [{**columns_of(step), **about} for step in steps])

    def add_joins(self, run_id: str, joins: Sequence[JoinRow]) -> None:
        none = {"run_id": run_id, "live": 0, "broken": 0, "dead": ""}
        rows = [
            {
                **none,
                "number": join.number,
                "remaining": wide.to_count(join),
                "any_way": int(join.any),
                "parts": encoded(join.parts),
            }
            for join in joins
        ]
        if rows:
            self.tx.many(sql.joins.ADD_JOIN, rows)
        shards = [row for join in joins if wide.is_wide(join) for row in wide.shard_rows(run_id, join)]
        if shards:
            self.tx.many(wide.ADD_SHARD, shards)

    def reserve(self, run_id: str, steps: int, joins: int) -> tuple[int, int]:
        row = self.tx.one(sql.runs.RESERVE, run_id=run_id, steps=steps, joins=joins)
        assert row is not None, run_id
        return row[0] - steps, row[1] - joins

    def claim(self, message: MessageRef, worker: str, now: float) -> Claimed | None:
        (run_id, n), generation = message
        asked = {"run_id": run_id, "n": n, "generation": generation, "worker": worker, "now": now}
        row = self.tx.one(sql.claims.CLAIM, **asked)
        if row is None and self._again:
            row = self.tx.one(sql.claims.OWN_CLAIM, **asked)
        return None if row is None else claimed_of(message, row)

    def status(self, ref: StepRef) -> TaskStatus | None:
        found = self.tx.value(sql.steps.STATUS, run_id=ref.run_id, n=ref.n)
        return None if found is None else TaskStatus(found)

    def outputs(self, run_id: str, numbers: Sequence[int]) -> dict[int, str]:
        found: dict[int, str] = {}
        for number in numbers:
            row = self.tx.one(sql.steps.OUTPUT, run_id=run_id, n=number)
            output = None if row is None else whole(self.tx, run_id, number, row[1])
            if output is not None:
                found[number] = output
        return found

    def predecessors(self, run_id: str, join: int) -> dict[int, tuple[str, str]]:
        row = self.tx.one(sql.joins.JOIN_PARTS, run_id=run_id, number=join)
        if row is None:
            return {}  # the run was cancelled and deleted since the claim
        dead = {int(n) for n in row[1].split(",") if n}
        parts: set[int] = set(json.loads(row[0])) - dead
        if not parts:
            return {}
        rows = self.tx.all(sql.steps.NAMED_OUTPUTS, run_id=run_id, first=min(parts), last=max(parts))
        outputs = all_whole(self.tx, run_id, {n: output for n, _name, output in rows if n in parts})
        return {n: (name, outputs[n]) for n, name, _output in rows if n in outputs}

    def held_step(self, claim: ClaimRef) -> Hot | None:
        row = self.tx.one(sql.claims.HELD_STEP, **_claim(claim))
        return None if row is None else hot_of(row)

    def end(self, claim: ClaimRef, ending: Ending) -> Hot | None:
        body = self._packing.body(ending.output)
        parameters: dict[str, Any] = dict(
            **_claim(claim),
            status=ending.status,
            output=ending.output if body is None else MARKER,
            error=error_text(ending.error),
            attempted=int(ending.attempted),
            crashed=int(ending.crashed),
            due_at=ending.due_at,
            parts_left=ending.parts_left,
            collects=ending.collects,
            completed_at=ending.completed_at,
        )
        if not self.tx.combines:
            row = self.tx.one(sql.claims.END, **parameters)
            return None if row is None else self._ended(claim.ref.step, row, body)
        row = self.tx.one(sql.claims.END_IN_RUN, **parameters, now=ending.completed_at)
        if row is None:
            return None
        hot, (status, completed_at, single), state = _parts(row)
        ended = self._ended(claim.ref.step, hot, body)
        if status is None:
            self._state = claim.ref.step.run_id, state
            return ended
        return replace(ended, counted=counted_of(status, completed_at, single, ending.completed_at))

    def end_waiting(self, run_id: str, n: int, ending: Ending) -> Hot | None:
        body = self._packing.body(ending.output)
        row = self.tx.one(
            sql.parts.END_WAITING,
            run_id=run_id,
            n=n,
            status=ending.status,
            output=ending.output if body is None else MARKER,
            error=error_text(ending.error),
            completed_at=ending.completed_at,
        )
        return None if row is None else self._ended(StepRef(run_id, n), row, body)

    def _ended(self, ref: StepRef, row: Row, body: bytes | None) -> Hot:
        if body is not None:
            self.tx.run(PUT_RESULT, run_id=ref.run_id, n=ref.n, body=body)
        return hot_of(row)

    def waiting_step(self, run_id: str, n: int) -> Hot | None:
        row = self.tx.one(sql.parts.WAITING_STEP, run_id=run_id, n=n)
        return None if row is None else hot_of(row)

    def is_caught(self, run_id: str, parent: int) -> bool:
        above: int | None = parent
        while above is not None:
            row = self.tx.one(sql.parts.CATCHER, run_id=run_id, n=above)
            assert row is not None, (run_id, above)
            status, fallback, is_map, above = row
            if status == TaskStatus.WAITING and fallback is not None and not is_map:
                return True
        return False

    def add_fallback(self, run_id: str, like: int, n: int, fallback: Sequence[str], now: float, *, parked: bool) -> str:
        row = self.tx.one(sql.steps.ROW_OF, run_id=run_id, n=like)
        assert row is not None, (run_id, like)
        task, target, name = fallback
        step = replace(
            step_row_of(row), n=n, key=name, name=name, task=task, target=target, status=TaskStatus.QUEUED, parent=like,
            is_map=False, feeds=None, chain=None, fallback=None, retry=None,
        )  # fmt: skip
        self.add_steps(run_id, [step], now, parked=parked)
        self.tx.run(sql.parts.FALL_BACK, run_id=run_id, n=like, part=n)
        return step.queue

    def count_join(self, run_id: str, join: int, way: Way, part: int, parts: int | None) -> Arrivals:
        return wide.count(self.tx, run_id, join, way, part, parts)

    def release(
        self, run_id: str, join: int, at_once: int | None, now: float
    ) -> tuple[list[tuple[int, str]], list[Dispatch]]:
        if at_once is None:
            return [(n, queue) for n, queue in self.tx.all(sql.joins.RELEASE, run_id=run_id, number=join)], []
        rows = self.tx.all(sql.window.RELEASE_ONE, run_id=run_id, number=join, window=at_once, now=now)
        sent = [dispatch_of(row[:-1]) for row in rows if row[-1] is not None]
        return [(row[1], row[5]) for row in rows], sent

    def skip(self, run_id: str, join: int, error: ErrorInfo, now: float) -> list[Hot]:
        rows = self.tx.all(sql.joins.SKIP, run_id=run_id, number=join, error=error_text(error), now=now)
        return sorted(map(hot_of, rows), key=lambda each: each.n)

    def count_part(self, run_id: str, parent: int, broken: bool) -> tuple[int, int, int | None, int | None] | None:
        row = self.tx.one(sql.parts.COUNT_PART, run_id=run_id, n=parent, broken=int(broken))
        return None if row is None else (row[0], row[1], row[2], row[3])

    def release_part(self, run_id: str, parent: int) -> list[tuple[int, str]]:
        return [(n, queue) for n, queue in self.tx.all(sql.parts.RELEASE_PART, run_id=run_id, parent=parent)]

    def part_outputs(self, run_id: str, parent: int) -> str:
        parts: dict[int, str | None] = dict(self.tx.all(sql.parts.PART_OUTPUTS, run_id=run_id, parent=parent))
        outputs = all_whole(self.tx, run_id, parts)
        return f"[{','.join(outputs.get(n, 'null') for n in parts)}]"

    def count_run(self, run_id: str, now: float) -> Counted:
        row = self.tx.one(sql.runs.COUNT_RUN, run_id=run_id, now=now)
        assert row is not None, run_id
        status, completed_at, single = row
        return counted_of(status, completed_at, single, now)

    def run_state(self, run_id: str) -> RunState:
        # Nobody else changes it while this transaction holds the run.
        known_id, known = self._state
        row = known if known_id == run_id else self.tx.one(sql.runs.RUN_STATE, run_id=run_id)
        if row is None:
            return RunState(ended=True, ending=None, single=False, goes_on=False)
        completed_at, ending, single, on_failure, status = row
        known, its = WorkflowStatus(ending) if ending else None, WorkflowStatus(status)
        return RunState(completed_at is not None, known, bool(single), on_failure == "continue", its)

    def begin_ending(self, run_id: str, ending: WorkflowStatus, error: ErrorInfo) -> bool:
        self._state = _UNKNOWN
        row = self.tx.one(sql.runs.BEGIN_ENDING, run_id=run_id, ending=ending, error=error_text(error))
        return row is not None

    def note_error(self, run_id: str, error: ErrorInfo) -> None:
        self.tx.run(sql.runs.NOTE_ERROR, run_id=run_id, error=error_text(error))

    def stop(
        self, run_id: str, status: TaskStatus, error: ErrorInfo, now: float, *, running_too: bool
    ) -> list[tuple[int, str]]:
        statement = sql.steps.STOP_OPEN if running_too else sql.steps.STOP_IDLE
        rows = self.tx.all(statement, run_id=run_id, status=status, error=error_text(error), now=now)
        return sorted((n, queue) for n, queue in rows)

    def stop_one(self, ref: StepRef, status: TaskStatus, error: ErrorInfo, now: float) -> tuple[str, str] | None:
        row = self.tx.one(
            sql.steps.STOP_ONE, run_id=ref.run_id, n=ref.n, status=status, error=error_text(error), now=now
        )
        return None if row is None else (row[0], row[1])

    def count_running(self, run_id: str) -> int:
        return self.tx.value(sql.steps.COUNT_RUNNING, run_id=run_id)

    def wait_for(self, run_id: str, remaining: int) -> None:
        self.tx.run(sql.runs.WAIT_FOR, run_id=run_id, remaining=remaining)

    def end_run(self, run_id: str, status: WorkflowStatus, now: float) -> bool | None:
        row = self.tx.one(sql.runs.END_RUN, run_id=run_id, status=status, now=now)
        return None if row is None else bool(row[0])

    def pick(self, queue: str, window: int, now: float) -> tuple[list[Dispatch], bool]:
        if self.tx.combines and self._unwritten is not None:
            unwritten, self._unwritten = self._unwritten, None
            rows = self.tx.all(sql.window.PICK_AND_ADD_EVENTS, queue=queue, window=window, now=now, **unwritten)
        else:
            self.flush()
            rows = self.tx.all(sql.window.PICK, queue=queue, window=window, now=now)
        picked, has_room = picked_of(rows)
        # SQLite counts the room in the middle of the update, when part of it is taken: there only the next pick knows.
        return picked, has_room if self.tx.combines else 0 < len(picked) < window and bool(rows[0][-2])

    def due(self, now: float) -> list[tuple[StepRef, str, bool]]:
        rows = self.tx.all(sql.window.DUE, now=now)
        return [(StepRef(run_id, n), queue, key == run_id) for run_id, n, queue, key in rows]

    def unannounced(self, worker: str, started_before: float) -> list[tuple[StepRef, bool, Entry]]:
        rows = self.tx.all(sql.claims.UNANNOUNCED, worker=worker, before=started_before)
        return [
            (StepRef(run_id, n), key == run_id, started_entry(n, name, attempts + 1, claims, worker, at))
            for run_id, n, key, name, attempts, claims, at in rows
        ]

    def starts(self, run_id: str, n: int | None) -> list[Entry]:
        rows = (
            self.tx.all(sql.claims.STARTS, run_id=run_id)
            if n is None
            else self.tx.all(sql.claims.START_OF, run_id=run_id, n=n)
        )
        return [
            started_entry(n, name, attempts + 1, claims, worker, at) for n, name, attempts, claims, worker, at in rows
        ]

    # --- jobs ---------------------------------------------------------------------------------------------------

    def put_job(self, job: JobRecord) -> bool:
        """Insert a job of version 0, or replace one of the same version."""
        row = job_row(job)
        if job.version:
            return self.tx.one(sql.jobs.PUT_JOB, **row, next=job.version + 1) is not None
        if self.tx.one(sql.jobs.HAS_JOB, id=job.id) is not None:
            return False
        self.tx.run(sql.jobs.ADD_JOB, **{**row, "version": 1})
        return True

    def move_job(self, job: JobRecord) -> bool:
        return self.tx.one(sql.jobs.MOVE_JOB, **move_of(job)) is not None

    def fired(self, job_id: str, times: Sequence[float]) -> set[float]:
        rows = self.tx.all(sql.jobs.FIRED, job_id=job_id, first=min(times), last=max(times))
        return {at for (at,) in rows} & set(times)

    def count_open(self, job_id: str) -> int:
        return self.tx.value(sql.jobs.COUNT_OPEN, job_id=job_id)

    def blame_job(self, run_id: str, error: str) -> tuple[str, str, float | None] | None:
        row = self.tx.one(sql.jobs.JOB_OF_RUN, run_id=run_id)
        if row is None:
            return None
        self.tx.run(sql.jobs.BLAME_JOB, id=row[0], error=error)
        return row[0], row[1], row[2]

    def append(
        self, run_id: str | None, single: bool, worker: str | None, entries: Sequence[Entry], now: float
    ) -> None:
        self.flush()
        self.wrote_events = True
        self._unwritten = {
            "time": now, "run_id": run_id, "single": int(single), "worker": worker, "entries": encoded(entries)
        }  # fmt: skip
        if run_id is not None:
            self.tx.wrote = sql.log.WROTE, {name: self._unwritten[name] for name in ("run_id", "time", "entries")}

    def flush(self) -> None:
        """Write the events that were kept to be written together with a ``pick``; at the latest before the commit."""
        if self._unwritten is not None:
            unwritten, self._unwritten = self._unwritten, None
            self.tx.run(sql.log.ADD_EVENTS, **unwritten)


def _parts(row: Row) -> tuple[Row, Row, Row]:
    """Return the columns HOT, COUNTED and RUN_STATE_COLUMNS."""
    first, last = len(HOT), len(RUN_STATE_COLUMNS)
    return row[:first], row[first:-last], row[-last:]


def _claim(claim: ClaimRef) -> dict[str, Any]:
    (step, generation), number = claim
    return {"run_id": step.run_id, "n": step.n, "generation": generation, "claim": number}
