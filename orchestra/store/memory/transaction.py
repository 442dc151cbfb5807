"""The primitives of ``orchestra.store.primitives`` over dicts, with a log that takes back what an error cut short."""

from collections.abc import Sequence, Set
from dataclasses import replace
from functools import partial
from typing import Any

from orchestra.engine.join import Arrivals, Way
from orchestra.engine.rows import JoinRow, StepRow
from orchestra.model.ids import MessageRef, StepRef
from orchestra.model.record import ErrorInfo, JobRecord
from orchestra.model.status import IDLE, OPEN, TaskStatus, WorkflowStatus
from orchestra.store.contract import Claimed, ClaimRef, Dispatch, NewRun
from orchestra.store.entries import Entry, started_entry
from orchestra.store.memory.control import MemoryControl
from orchestra.store.memory.tables import EventRow, Join, Run, Step, Tables, Undo
from orchestra.store.primitives import Counted, Ending, Hot, RunState

S = TaskStatus
_ENDED = RunState(ended=True, ending=None, single=False, goes_on=False)


class MemoryTransaction(MemoryControl):
    """One transaction of the memory store, under its lock. Each method is the primitive of its name."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.wrote_events = False
        self._undo: list[Undo] = []

    def roll_back(self) -> None:
        """Leave everything as it was before."""
        while self._undo:
            self._undo.pop()()

    def set(self, thing: Run | Join, **fields: Any) -> None:
        """Change fields of a run or a join."""
        old = {name: getattr(thing, name) for name in fields}
        self._undo.append(partial(_put, thing, old))
        _put(thing, fields)

    def change(self, step: Step, **fields: Any) -> None:
        """Change fields of a step, and move it to the index where it then belongs."""
        old = {name: getattr(step, name) for name in fields}
        self._undo.append(partial(self._move, step, old))
        self._move(step, fields)

    def _move(self, step: Step, fields: dict[str, Any]) -> None:
        self.tables.leave(step)
        _put(step, fields)
        self.tables.enter(step)

    def lock_run(self, run_id: str, *, alone: bool) -> None:
        """Nothing: one transaction writes at a time."""

    # --- creating -----------------------------------------------------------------------------------------------

    def taken(self, run_id: str, key: str | None) -> tuple[str, str | None, bool] | None:
        by_key = None if key is None else self.tables.run_of_key.get(key)
        if by_key is not None:
            return by_key.new.id, by_key.new.fingerprint, True
        by_id = self.tables.runs.get(run_id)
        return None if by_id is None else (by_id.new.id, by_id.new.fingerprint, False)

    def add_run(self, run: NewRun, remaining: int, steps: int, joins: int, now: float) -> bool:
        if self.taken(run.id, run.key) is not None:
            return False
        kept = replace(run, metadata=dict(run.metadata), plan=replace(run.plan, steps=(), joins=()))
        added = Run(kept, remaining, steps, joins, now, deadline=run.deadline, expires_at=run.expires_at)
        self._undo.append(partial(self.tables.drop_run, added))
        self.tables.add_run(added)
        return True

    def add_steps(self, run_id: str, steps: Sequence[StepRow], now: float, *, parked: bool = False) -> None:
        run = self.tables.runs[run_id]
        for row in steps:
            step = Step(run, row, now)
            self._undo.append(partial(self.tables.drop_step, step))
            self.tables.add_step(step)

    def add_joins(self, run_id: str, joins: Sequence[JoinRow]) -> None:
        run = self.tables.runs[run_id]
        for each in joins:
            run.joins[each.number] = Join(list(each.parts), each.any, len(each.parts))
            self._undo.append(partial(run.joins.__delitem__, each.number))

    def reserve(self, run_id: str, steps: int, joins: int) -> tuple[int, int]:
        run = self.tables.runs[run_id]
        first = run.next_n, run.next_join
        self.set(run, next_n=run.next_n + steps, next_join=run.next_join + joins)
        return first

    # --- claiming and ending ------------------------------------------------------------------------------------

    def claim(self, message: MessageRef, worker: str, now: float) -> Claimed | None:
        step = self.tables.step(*message.step)
        if step is None or step.status is not S.QUEUED or step.parked or step.generation != message.generation:
            return None
        ready_at = step.ready_at
        self.change(step, status=S.RUNNING, claims=step.claims + 1, worker=worker, started_at=now, sent_at=None)
        return step.claimed(ready_at)

    def status(self, ref: StepRef) -> TaskStatus | None:
        step = self.tables.step(*ref)
        return None if step is None else step.status

    def outputs(self, run_id: str, numbers: Sequence[int]) -> dict[int, str]:
        run = self.tables.runs.get(run_id)
        if run is None:
            return {}
        found = ((n, run.steps.get(n)) for n in numbers)
        return {n: step.output for n, step in found if step is not None and step.output is not None}

    def predecessors(self, run_id: str, join: int) -> dict[int, tuple[str, str]]:
        run = self.tables.runs[run_id]
        its = run.joins[join]
        steps = (run.steps[n] for n in its.parts if n not in its.dead)
        return {step.n: (step.row.name, step.output) for step in steps if step.output is not None}

    def held_step(self, claim: ClaimRef) -> Hot | None:
        step = self.held(claim)
        return None if step is None else step.hot()

    def held(self, claim: ClaimRef) -> Step | None:
        """Return the step that is RUNNING under a claim."""
        (ref, generation), number = claim
        step = self.tables.step(*ref)
        if step is None or step.status is not S.RUNNING or (step.claims, step.generation) != (number, generation):
            return None
        return step

    def end(self, claim: ClaimRef, ending: Ending) -> Hot | None:
        step = self.held(claim)
        if step is None:
            return None
        self.change(
            step,
            status=ending.status,
            output=ending.output,
            error=ending.error,
            attempts=step.attempts + ending.attempted,
            crashes=step.crashes + ending.crashed,
            due_at=ending.due_at,
            parts_left=ending.parts_left,
            collects=ending.collects,
            completed_at=ending.completed_at,
        )
        return step.hot()

    def waiting_step(self, run_id: str, n: int) -> Hot | None:
        step = self.tables.step(run_id, n)
        return None if step is None or step.status is not S.WAITING else step.hot()

    def end_waiting(self, run_id: str, n: int, ending: Ending) -> Hot | None:
        step = self.tables.step(run_id, n)
        if step is None or step.status is not S.WAITING:
            return None
        self.change(
            step, status=ending.status, output=ending.output, error=ending.error, completed_at=ending.completed_at
        )
        return step.hot()

    def is_caught(self, run_id: str, parent: int) -> bool:
        steps = self.tables.runs[run_id].steps
        above: int | None = parent
        while above is not None:
            step = steps[above]
            if step.status is S.WAITING and step.fallback is not None and not step.row.is_map:
                return True
            above = step.parent
        return False

    def add_fallback(self, run_id: str, like: int, n: int, fallback: Sequence[str], now: float, *, parked: bool) -> str:
        step = self.tables.runs[run_id].steps[like]
        task, target, name = fallback
        row = replace(
            step.row, n=n, key=name, name=name, task=task, target=target, status=S.QUEUED, parent=like,
            is_map=False, feeds=None, chain=None, fallback=None, retry=None,
        )  # fmt: skip
        self.add_steps(run_id, [row], now)
        self.change(step, fallback=None, parts_left=1, parts_broken=0, collects=n)
        return row.queue

    # --- joins and parts ----------------------------------------------------------------------------------------

    def count_join(self, run_id: str, join: int, way: Way, part: int, parts: int | None) -> Arrivals:
        its = self.tables.runs[run_id].joins[join]
        live, broken = its.live + (way is Way.LIVE), its.broken + (way is Way.BROKEN)
        self.set(its, remaining=its.remaining - 1, live=live, broken=broken)
        if way is not Way.LIVE:
            its.dead.add(part)
            self._undo.append(partial(its.dead.discard, part))
        return Arrivals(its.remaining, live, broken, its.any)

    def _pending(self, run_id: str, join: int) -> list[Step]:
        return [step for step in self.tables.runs[run_id].bodies.get(join, ()) if step.status is S.PENDING]

    def release(
        self, run_id: str, join: int, at_once: int | None, now: float
    ) -> tuple[list[tuple[int, str]], list[Dispatch]]:
        released = self._pending(run_id, join)
        sent: list[Dispatch] = []
        for step in released:
            queue = self.tables.queues[step.queue]
            is_sent = (
                at_once is not None
                and not step.parked
                and queue.best() is None
                and queue.count_sent(step.priority) < at_once
            )
            self.change(step, status=S.QUEUED, sent_at=now if is_sent else None)
            if is_sent:
                sent.append(step.dispatch())
        return [(step.n, step.queue) for step in released], sent

    def skip(self, run_id: str, join: int, error: ErrorInfo, now: float) -> list[Hot]:
        skipped = self._pending(run_id, join)
        for step in skipped:
            self.change(step, status=S.SKIPPED, error=error, completed_at=now)
        return [step.hot() for step in skipped]

    def count_part(self, run_id: str, parent: int, broken: bool) -> tuple[int, int, int | None, int | None] | None:
        step = self.tables.step(run_id, parent)
        if step is None or step.status is not S.WAITING:
            return None
        left = (step.parts_left or 0) - 1
        self.change(step, parts_left=left, parts_broken=step.parts_broken + broken)
        return left, step.parts_broken, step.collects, step.row.max_parallel

    def release_part(self, run_id: str, parent: int) -> list[tuple[int, str]]:
        # Parts are released in order: those that wait are the last ones.
        run = self.tables.runs[run_id]
        parts = run.parts[parent]
        low, high = 0, len(parts)
        if run.retried:
            low = next((at for at, part in enumerate(parts) if part.status is S.PENDING), high)
            high = low
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if parts[middle].status is S.PENDING else (middle + 1, high)
        if low == len(parts):
            return []
        self.change(parts[low], status=S.QUEUED)
        return [(parts[low].n, parts[low].queue)]

    def part_outputs(self, run_id: str, parent: int) -> str:
        parts = self.tables.runs[run_id].parts.get(parent, [])
        return f"[{','.join(step.output or 'null' for step in parts)}]"

    # --- the end of a run ---------------------------------------------------------------------------------------

    def count_run(self, run_id: str, now: float) -> Counted:
        run = self.tables.runs[run_id]
        self.set(run, remaining=run.remaining - 1)
        if run.remaining > 0 or run.completed_at is not None:
            return Counted(None, run.new.single)
        status = run.ending or (WorkflowStatus.COMPLETED if run.error is None else WorkflowStatus.FAILED)
        self.set(run, status=status, completed_at=now)
        return Counted(status, run.new.single)

    def run_state(self, run_id: str) -> RunState:
        run = self.tables.runs.get(run_id)
        if run is None:
            return _ENDED
        goes_on = run.new.plan.on_failure == "continue"
        return RunState(run.completed_at is not None, run.ending, run.new.single, goes_on, run.status)

    def begin_ending(self, run_id: str, ending: WorkflowStatus, error: ErrorInfo) -> bool:
        run = self.tables.runs[run_id]
        if run.ending is not None or run.completed_at is not None:
            return False
        self.set(run, ending=ending, error=error)
        return True

    def note_error(self, run_id: str, error: ErrorInfo) -> None:
        run = self.tables.runs[run_id]
        if run.error is None:
            self.set(run, error=error)

    def stop(
        self, run_id: str, status: TaskStatus, error: ErrorInfo, now: float, *, running_too: bool
    ) -> list[tuple[int, str]]:
        these = OPEN if running_too else IDLE
        stopped = [step for step in self.tables.runs[run_id].steps.values() if step.status in these]
        for step in stopped:
            self.change(step, status=status, error=error, completed_at=now, sent_at=None)
        return sorted((step.n, step.queue) for step in stopped)

    def stop_one(self, ref: StepRef, status: TaskStatus, error: ErrorInfo, now: float) -> tuple[str, str] | None:
        step = self.tables.step(*ref)
        if step is None or step.status not in OPEN:
            return None
        self.change(step, status=status, error=error, completed_at=now, sent_at=None)
        return step.row.name, step.queue

    def count_running(self, run_id: str) -> int:
        return sum(step.status is S.RUNNING for step in self.tables.runs[run_id].steps.values())

    def wait_for(self, run_id: str, remaining: int) -> None:
        self.set(self.tables.runs[run_id], remaining=remaining)

    def end_run(self, run_id: str, status: WorkflowStatus, now: float) -> bool | None:
        run = self.tables.runs[run_id]
        if run.completed_at is not None:
            return None
        self.set(run, status=status, completed_at=now)
        return run.new.single

    # --- the window, timers, events -----------------------------------------------------------------------------

    def pick(self, queue: str, window: int, now: float) -> tuple[list[Dispatch], bool]:
        its = self.tables.queues[queue]
        priority = its.best()
        room = 0 if priority is None else window - its.count_sent(priority)
        picked: list[Dispatch] = []
        if priority is not None and room > 0:
            for step in its.take(priority):
                self.change(step, sent_at=now)
                picked.append(step.dispatch())
                if len(picked) == room:
                    break
        return picked, len(picked) < room

    def due(self, now: float) -> list[tuple[StepRef, str, bool]]:
        found: list[tuple[StepRef, str, bool]] = []
        while (step := self.tables.next_due()) is not None and (step.due_at or 0.0) <= now:
            self.change(step, status=S.QUEUED, due_at=None)
            found.append((step.ref, step.queue, step.row.key == step.run.new.id))
        return found

    def resend(self, queue: str, before: float, room: int, now: float) -> list[Dispatch]:
        """Take the oldest steps that were sent before a time, and date them ahead."""
        unheard = [
            step
            for _priority, sent in sorted(self.tables.queues[queue].sent.items())
            for step in sorted(sent, key=_sent_at)
            if _sent_at(step) < before
        ]
        for step in unheard[:room]:
            self.change(step, sent_at=now + (1 << step.resends), resends=min(step.resends + 1, 5))
        return [step.dispatch() for step in unheard[:room]]

    def unannounced(self, worker: str, started_before: float) -> list[tuple[StepRef, bool, Entry]]:
        held = self.tables.running.get(worker, {})
        silent = [each for each in held if each.announced < each.claims and (each.started_at or 0.0) < started_before]
        return [(step.ref, step.row.key == step.run.new.id, self._start(step)) for step in silent]

    def starts(self, run_id: str, n: int | None) -> list[Entry]:
        steps = self.tables.runs[run_id].steps
        these = steps.values() if n is None else [steps[n]] if n in steps else []
        return [self._start(each) for each in these if each.status is S.RUNNING and each.announced < each.claims]

    def _start(self, step: Step) -> Entry:
        self.change(step, announced=step.claims)
        at, worker = step.started_at or 0.0, step.worker or ""
        return started_entry(step.n, step.row.name, step.attempts + 1, step.claims, worker, at)

    # --- jobs ---------------------------------------------------------------------------------------------------

    def put_job(self, job: JobRecord) -> bool:
        """Insert or replace a job whose version is one more than before."""
        old = self.tables.jobs.get(job.id)
        if (0 if old is None else old.version) != job.version - 1:
            return False
        self._undo.append(partial(self.tables.jobs.pop, job.id) if old is None else partial(self.tables.put_job, old))
        self.tables.put_job(job)
        return True

    def move_job(self, job: JobRecord) -> bool:
        return self.put_job(replace(job, version=job.version + 1))

    def fired(self, job_id: str, times: Sequence[float]) -> Set[float]:
        return frozenset(times) & self.tables.runs_of_job[job_id].keys()

    def count_open(self, job_id: str) -> int:
        still = [run for run in self.tables.open_of_job[job_id] if run.completed_at is None]
        self.tables.open_of_job[job_id] = still
        return len(still)

    def blame_job(self, run_id: str, error: str) -> tuple[str, str, float | None] | None:
        new = self.tables.runs[run_id].new
        job = None if new.job_id is None else self.tables.jobs.get(new.job_id)
        if job is None:
            return None
        self.move_job(replace(job, error=error))
        return job.id, job.name, new.scheduled_for

    def append(
        self, run_id: str | None, single: bool, worker: str | None, entries: Sequence[Entry], now: float
    ) -> None:
        self.wrote_events = True
        tables, events = self.tables, self.tables.events
        self._undo.append(partial(setattr, tables, "last_seq", tables.last_seq))
        tables.last_seq += 1
        row: EventRow = (tables.last_seq, now, run_id, single, worker, list(entries))
        events.append(row)
        self._undo.append(events.pop)
        if run_id is not None:
            of_run = self.tables.runs[run_id].events
            of_run.append(row)
            self._undo.append(of_run.pop)


def _put(thing: Any, fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        setattr(thing, name, value)


def _sent_at(step: Step) -> float:
    return step.sent_at or 0.0
