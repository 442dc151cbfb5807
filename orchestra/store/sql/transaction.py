"""The primitives of ``orchestra.store.transitions`` as statements."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from orchestra.engine.plan import Plan
from orchestra.model.ids import MessageRef, StepRef
from orchestra.model.record import ErrorInfo
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.store.contract import ClaimRef, Claimed, Dispatch, NewRun
from orchestra.store.sql import statements as sql
from orchestra.store.sql.database import Transaction
from orchestra.store.sql.rows import claimed_of, dispatch_of, error_text, hot_of
from orchestra.store.transitions import Ending, Hot, RunState, encoded

_JSON_COLUMNS = ("input", "retry", "metadata", "feeds", "chain")


class SqlTransaction:
    """One transaction of the SQL store. Each method is the primitive of its name."""

    def __init__(self, tx: Transaction) -> None:
        self.tx = tx
        self.wrote_events = False

    def taken(self, run_id: str, key: str | None) -> tuple[str, str | None, bool] | None:
        rows = self.tx.all(sql.RUN_OF_KEY, run_id=run_id, key=key)
        by_key = [(found, fingerprint, True) for found, fingerprint, its in rows if key is not None and its == key]
        by_id = [(found, fingerprint, False) for found, fingerprint, _its in rows if found == run_id]
        return next(iter(by_key + by_id), None)

    def add_run(self, run: NewRun, status: WorkflowStatus, remaining: int, now: float) -> None:
        self.tx.run(
            sql.ADD_RUN,
            id=run.id,
            name=run.name,
            workflow_id=run.workflow_id,
            status=status,
            single=int(run.single),
            priority=run.priority,
            metadata=encoded(dict(run.metadata) or None),
            key=run.key,
            fingerprint=run.fingerprint,
            job_id=run.job_id,
            scheduled_for=run.scheduled_for,
            result=encoded(run.plan.result),
            remaining=remaining,
            created_at=now,
            started_at=now,
        )

    def add_steps(self, run_id: str, rows: Sequence[Mapping[str, object]], now: float) -> None:
        self.tx.many(sql.ADD_STEP, [self._columns(run_id, row, now) for row in rows])

    def _columns(self, run_id: str, row: Mapping[str, object], now: float) -> dict[str, object]:
        texts = {name: encoded(row[name]) for name in _JSON_COLUMNS}
        flags = {"is_map": int(bool(row["is_map"])), "sent_at": None, "created_at": now, "run_id": run_id}
        return {**row, **texts, **flags}

    def add_joins(self, run_id: str, plan: Plan) -> None:
        counted = [
            {"run_id": run_id, "number": join.number, "remaining": len(join.parts), "parts": json.dumps(join.parts)}
            for join in plan.joins
        ]
        if counted:
            self.tx.many(sql.ADD_JOIN, counted)

    def claim(self, message: MessageRef, worker: str, now: float) -> tuple[Claimed, int | None, str] | None:
        (run_id, n), generation = message
        row = self.tx.one(sql.CLAIM, run_id=run_id, n=n, generation=generation, worker=worker, now=now)
        return None if row is None else claimed_of(message, row)

    def status(self, ref: StepRef) -> TaskStatus | None:
        found = self.tx.value(sql.STATUS, run_id=ref.run_id, n=ref.n)
        return None if found is None else TaskStatus(found)

    def outputs(self, run_id: str, numbers: Sequence[int]) -> dict[int, str]:
        found: dict[int, str] = {}
        for number in numbers:
            row = self.tx.one(sql.OUTPUT, run_id=run_id, n=number)
            if row is not None and row[1] is not None:
                found[row[0]] = row[1]
        return found

    def predecessors(self, run_id: str, join: int) -> dict[int, tuple[str, str | None]]:
        parts: list[int] = json.loads(self.tx.value(sql.JOIN_PARTS, run_id=run_id, number=join))
        rows = self.tx.all(sql.NAMED_OUTPUTS, run_id=run_id, first=parts[0], last=parts[-1])
        wanted = set(parts)
        return {n: (name, output) for n, name, output in rows if n in wanted}

    def held_step(self, claim: ClaimRef) -> Hot | None:
        row = self.tx.one(sql.HELD_STEP, **_claim(claim))
        return None if row is None else hot_of(row)

    def end(self, claim: ClaimRef, ending: Ending) -> Hot | None:
        row = self.tx.one(
            sql.END,
            **_claim(claim),
            status=ending.status,
            output=ending.output,
            error=error_text(ending.error),
            attempted=int(ending.attempted),
            crashed=int(ending.crashed),
            due_at=ending.due_at,
            parts_left=ending.parts_left,
            completed_at=ending.completed_at,
        )
        return None if row is None else hot_of(row)

    def add_parts(self, run_id: str, parent: int, inputs: Sequence[str], now: float) -> list[str]:
        row = self.tx.one(sql.EXPANSION, run_id=run_id, n=parent)
        first = self.tx.value(sql.LAST_NUMBER, run_id=run_id)
        if row is None or first is None:
            return []
        of: dict[str, Any] = dict(zip(sql.EXPANSION.columns, row, strict=True))
        key, name, at_once = of.pop("key"), of.pop("name"), of.pop("max_parallel") or len(inputs)
        common = {
            **of, "run_id": run_id, "parent": parent, "is_map": 0, "max_parallel": None, "waits_for": None,
            "feeds": None, "chain": None, "sent_at": None, "created_at": now,
        }  # fmt: skip
        self.tx.many(
            sql.ADD_STEP,
            [
                {
                    **common,
                    "n": first + 1 + at,
                    "key": f"{key}[{at}]",
                    "name": f"{name}[{at}]",
                    "input": given,
                    "status": TaskStatus.QUEUED if at < at_once else TaskStatus.PENDING,
                }
                for at, given in enumerate(inputs)
            ],
        )
        return [of["queue"]]

    def count_join(self, run_id: str, join: int) -> int:
        return self.tx.value(sql.COUNT_JOIN, run_id=run_id, number=join)

    def release(self, run_id: str, join: int) -> list[tuple[int, str]]:
        return [(n, queue) for n, queue in self.tx.all(sql.RELEASE, run_id=run_id, number=join)]

    def count_part(self, run_id: str, parent: int) -> tuple[int, int | None] | None:
        row = self.tx.one(sql.COUNT_PART, run_id=run_id, n=parent)
        return None if row is None else (row[0], row[1])

    def release_part(self, run_id: str, parent: int) -> list[tuple[int, str]]:
        return [(n, queue) for n, queue in self.tx.all(sql.RELEASE_PART, run_id=run_id, parent=parent)]

    def end_map(self, run_id: str, parent: int, now: float) -> Hot | None:
        outputs = [output for (output,) in self.tx.all(sql.PART_OUTPUTS, run_id=run_id, parent=parent)]
        row = self.tx.one(sql.END_MAP, run_id=run_id, n=parent, output=f"[{','.join(outputs)}]", now=now)
        return None if row is None else hot_of(row)

    def count_run(self, run_id: str) -> tuple[int, WorkflowStatus | None]:
        row = self.tx.one(sql.COUNT_RUN, run_id=run_id)
        assert row is not None, run_id
        return row[0], WorkflowStatus(row[1]) if row[1] else None

    def run_state(self, run_id: str) -> RunState:
        row = self.tx.one(sql.RUN_STATE, run_id=run_id)
        if row is None:
            return RunState(ended=True, ending=None, single=False)
        completed_at, ending, single = row
        return RunState(completed_at is not None, WorkflowStatus(ending) if ending else None, bool(single))

    def begin_ending(self, run_id: str, ending: WorkflowStatus, error: ErrorInfo | None) -> bool:
        row = self.tx.one(sql.BEGIN_ENDING, run_id=run_id, ending=ending, error=error_text(error))
        return row is not None

    def stop(
        self, run_id: str, status: TaskStatus, error: ErrorInfo, now: float, *, running_too: bool
    ) -> list[tuple[int, str]]:
        statement = sql.STOP_OPEN if running_too else sql.STOP_IDLE
        rows = self.tx.all(statement, run_id=run_id, status=status, error=error_text(error), now=now)
        return sorted((n, queue) for n, queue in rows)

    def stop_one(self, ref: StepRef, status: TaskStatus, error: ErrorInfo, now: float) -> tuple[str, str] | None:
        row = self.tx.one(sql.STOP_ONE, run_id=ref.run_id, n=ref.n, status=status, error=error_text(error), now=now)
        return None if row is None else (row[0], row[1])

    def count_running(self, run_id: str) -> int:
        return self.tx.value(sql.COUNT_RUNNING, run_id=run_id)

    def wait_for(self, run_id: str, remaining: int) -> None:
        self.tx.run(sql.WAIT_FOR, run_id=run_id, remaining=remaining)

    def end_run(self, run_id: str, status: WorkflowStatus, now: float) -> None:
        self.tx.run(sql.END_RUN, run_id=run_id, status=status, now=now)

    def best_waiting(self, queue: str) -> int | None:
        return self.tx.value(sql.BEST_WAITING, queue=queue)

    def count_sent(self, queue: str, priority: int, window: int) -> int:
        return self.tx.value(sql.COUNT_SENT, queue=queue, priority=priority, window=window)

    def pick(self, queue: str, priority: int, room: int, now: float) -> list[Dispatch]:
        rows = self.tx.all(sql.PICK, queue=queue, priority=priority, room=room, now=now)
        return [dispatch_of(row) for row in rows]

    def due(self, now: float) -> list[tuple[StepRef, str, bool]]:
        rows = self.tx.all(sql.DUE, now=now)
        return [(StepRef(run_id, n), queue, key == run_id) for run_id, n, queue, key in rows]

    def append(
        self, run_id: str | None, single: bool, worker: str | None, entries: Sequence[object], now: float
    ) -> None:
        self.wrote_events = True
        self.tx.run(
            sql.ADD_EVENTS, time=now, run_id=run_id, single=int(single), worker=worker, entries=encoded(entries)
        )


def _claim(claim: ClaimRef) -> dict[str, Any]:
    (step, generation), number = claim
    return {"run_id": step.run_id, "n": step.n, "generation": generation, "claim": number}
