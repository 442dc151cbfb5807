"""Transitions: what each operation of the contract does, written once over the primitives of a transaction.

The backends that can run Python inside a transaction (SQL, memory) share this module; it holds the semantics, they
hold the rows. Order matters for databases with row locks: a step's own row comes first, then joins and successors
(whose numbers are greater), then the run. Two records of one run therefore never wait for each other in a circle.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, assert_never

from orchestra.engine.outcome import Change, Completed, Expanded, Failed, Reopened, Rescheduled, Vanished, decide
from orchestra.engine.plan import Plan, PlannedStep, StepInput
from orchestra.errors import KeyConflict
from orchestra.model.ids import MessageRef, StepRef
from orchestra.model.record import ErrorInfo
from orchestra.model.retry import ONCE, RetryPolicy
from orchestra.model.status import TaskStatus as S
from orchestra.model.status import WorkflowStatus
from orchestra.store.contract import ClaimRef, Claimed, Created, Dispatch, NewRun, Recorded, Refused


@dataclass(frozen=True, slots=True)
class Hot:
    """What a transaction needs to know of a step that has just changed."""

    n: int
    key: str
    name: str
    queue: str
    feeds: Sequence[Sequence[int]]
    """Joins that it is a part of: number, how many parts, how many bodies."""
    parent: int | None
    attempts: int
    crashes: int
    retry: Mapping[str, object] | None
    generation: int
    started_at: float | None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a claim, or a map, is left."""

    status: S
    output: str | None = None
    error: ErrorInfo | None = None
    attempted: bool = False
    crashed: bool = False
    due_at: float | None = None
    parts_left: int | None = None
    completed_at: float | None = None


@dataclass(frozen=True, slots=True)
class RunState:
    """Where a run stands, as far as transitions care. A run that does not exist has ended."""

    ended: bool
    ending: WorkflowStatus | None
    """The status that it will have when what is running has ended."""
    single: bool


class Transaction(Protocol):
    """The primitives. Each is one statement, or none when there is nothing to do."""

    def taken(self, run_id: str, key: str | None) -> tuple[str, str | None, bool] | None:
        """Return (run id, fingerprint, whether by key) of the run that has this key or id."""
        ...

    def add_run(self, run: NewRun, status: WorkflowStatus, remaining: int, now: float) -> None: ...
    def add_steps(self, run_id: str, rows: Sequence[Mapping[str, object]], now: float) -> None: ...
    def add_joins(self, run_id: str, plan: Plan) -> None: ...
    def claim(self, message: MessageRef, worker: str, now: float) -> tuple[Claimed, int | None, str] | None:
        """Take a QUEUED step: what is known without its inputs, the join that released it, and its key."""
        ...

    def status(self, ref: StepRef) -> S | None: ...
    def outputs(self, run_id: str, numbers: Sequence[int]) -> dict[int, str]: ...
    def predecessors(self, run_id: str, join: int) -> dict[int, tuple[str, str | None]]:
        """Return (name, output) of the parts of a join, by number."""
        ...

    def held_step(self, claim: ClaimRef) -> Hot | None: ...
    def end(self, claim: ClaimRef, ending: Ending) -> Hot | None: ...
    def add_parts(self, run_id: str, parent: int, inputs: Sequence[str], now: float) -> list[str]:
        """Insert the parts of a map, those that may run at once as QUEUED. Returns the queues that got some."""
        ...

    def count_join(self, run_id: str, join: int) -> int: ...
    def release(self, run_id: str, join: int) -> list[tuple[int, str]]:
        """Make the bodies of a join QUEUED. Returns (number, queue) of each."""
        ...

    def count_part(self, run_id: str, parent: int) -> tuple[int, int | None] | None:
        """Return (parts left, max_parallel) of a map after one more part; None when the map is no longer WAITING."""
        ...

    def release_part(self, run_id: str, parent: int) -> list[tuple[int, str]]: ...
    def end_map(self, run_id: str, parent: int, now: float) -> Hot | None: ...
    def count_run(self, run_id: str) -> tuple[int, WorkflowStatus | None]:
        """Return (remaining, ending) of a run after one more of the steps it waits for."""
        ...

    def run_state(self, run_id: str) -> RunState: ...
    def begin_ending(self, run_id: str, ending: WorkflowStatus, error: ErrorInfo | None) -> bool: ...
    def stop(
        self, run_id: str, status: S, error: ErrorInfo, now: float, *, running_too: bool
    ) -> list[tuple[int, str]]: ...
    def stop_one(self, ref: StepRef, status: S, error: ErrorInfo, now: float) -> tuple[str, str] | None: ...
    def count_running(self, run_id: str) -> int: ...
    def wait_for(self, run_id: str, remaining: int) -> None: ...
    def end_run(self, run_id: str, status: WorkflowStatus, now: float) -> None: ...
    def best_waiting(self, queue: str) -> int | None: ...
    def count_sent(self, queue: str, priority: int, window: int) -> int: ...
    def pick(self, queue: str, priority: int, room: int, now: float) -> list[Dispatch]: ...
    def due(self, now: float) -> list[tuple[StepRef, str, bool]]: ...
    def append(
        self, run_id: str | None, single: bool, worker: str | None, entries: Sequence[object], now: float
    ) -> None: ...


_CANCELLED = ErrorInfo("Cancelled", "cancelled by request")
_ENDING = ErrorInfo("Skipped", "not tried again, because the run was ending")

Entry = tuple[str, Sequence[int], Mapping[str, object]]


class Effects:
    """What one transaction does to one run beside its main change: events, and queues whose windows may have room."""

    def __init__(self, tx: Transaction, run_id: str, single: bool, window: int, now: float) -> None:
        self.tx, self.run_id, self.single, self.window, self.now = tx, run_id, single, window, now
        self.entries: list[Entry] = []
        self.queues: dict[str, None] = {}

    def say(self, event: str, numbers: Sequence[int] = (), **data: object) -> None:
        """Add an event of the run that the transaction is about."""
        self.entries.append((event, numbers, data))

    def released(self, steps: Sequence[tuple[int, str]]) -> None:
        """Steps became ready."""
        if steps:
            self.say("task.queued", [n for n, _queue in steps])
            self.touch(*(queue for _n, queue in steps))

    def touch(self, *queues: str) -> None:
        """The windows of these queues may have room."""
        self.queues.update(dict.fromkeys(queues))

    def commit(self) -> list[Dispatch]:
        """Write the events and fill the windows; the last thing in a transaction."""
        if self.entries:
            self.tx.append(self.run_id, self.single, None, self.entries, self.now)
        return fill(self.tx, list(self.queues), self.window, self.now)


def fill(tx: Transaction, queues: Sequence[str], window: int, now: float) -> list[Dispatch]:
    """Send the best waiting steps of each queue as far as its window has room for their priority."""
    dispatches: list[Dispatch] = []
    for queue in queues:
        while (priority := tx.best_waiting(queue)) is not None:
            room = window - tx.count_sent(queue, priority, window)
            picked = tx.pick(queue, priority, room, now) if room > 0 else []
            dispatches += picked
            if len(picked) >= room:
                break
    return dispatches


def create_runs(tx: Transaction, runs: Sequence[NewRun], window: int, now: float) -> list[Created]:
    """See the contract."""
    created: list[Created] = []
    queues: dict[str, None] = {}
    for run in runs:
        taken = tx.taken(run.id, run.key)
        if taken is not None:
            created.append(_existing(run, *taken))
            continue
        plan = run.plan
        status = WorkflowStatus.RUNNING
        tx.add_run(run, status, len(plan.last), now)
        tx.add_steps(run.id, [_row(step, plan) for step in plan.steps], now)
        tx.add_joins(run.id, plan)
        ready = [step for step in plan.steps if step.waits_for is None]
        entries: list[Entry] = [] if run.single else [("workflow.started", (), {"name": run.name})]
        entries.append(("task.submitted", [step.n for step in plan.steps], {}))
        entries.append(("task.queued", [step.n for step in ready], {}))
        tx.append(run.id, run.single, None, entries, now)
        queues.update(dict.fromkeys(step.queue for step in ready))
        created.append(Created(run.id, ()))
    dispatches = fill(tx, list(queues), window, now)
    # Which run of the call a dispatch belongs to does not matter: they are published together.
    return [Created(each.run_id, dispatches if at == 0 else (), each.existing) for at, each in enumerate(created)]


def _existing(run: NewRun, run_id: str, fingerprint: str | None, by_key: bool) -> Created:
    if not by_key:
        raise KeyConflict(run.id, run_id, "ids are used once; give the task another id, or submit it with key=…")
    if fingerprint != run.fingerprint:
        raise KeyConflict(run.key or "", run_id, "that run calls something else, or with another input")
    return Created(run_id, (), existing=True)


def _row(step: PlannedStep, plan: Plan) -> dict[str, object]:
    """Return the columns of a step as it begins."""
    feeds = [[j, len(plan.joins[j].parts), len(plan.joins[j].bodies)] for j in step.feeds]
    chain = [
        [each.n, each.target.task, each.name, each.queue, each.priority] for each in (plan.steps[n] for n in step.chain)
    ]
    return {
        "n": step.n,
        "key": step.key,
        "name": step.name,
        "task": step.target.task,
        "target": step.target.path,
        "status": S.QUEUED if step.waits_for is None else S.PENDING,
        "priority": step.priority,
        "queue": step.queue,
        "rank": step.rank,
        "input": step.input.to_json(),
        "retry": step.retry.to_json() if step.retry else None,
        "timeout_s": step.timeout_s,
        "metadata": dict(step.metadata) or None,
        "is_map": step.is_map,
        "max_parallel": step.max_parallel,
        "waits_for": step.waits_for,
        "feeds": feeds or None,
        "chain": chain or None,
        "parent": None,
    }


def claim(tx: Transaction, message: MessageRef, worker: str, now: float) -> Claimed | Refused:
    """See the contract."""
    taken = tx.claim(message, worker, now)
    if taken is None:
        status = tx.status(message.step)
        return Refused(status, "no such step" if status is None else f"it is {status}, or the message is an old one")
    claimed, waits_for, key = taken
    given = StepInput.from_json(claimed.input)
    outputs = tx.outputs(message.step.run_id, given.needs())
    names: dict[int, str] = {}
    if given.from_predecessors and waits_for is not None:
        for n, (name, output) in tx.predecessors(message.step.run_id, waits_for).items():
            names[n] = name
            outputs[n] = "null" if output is None else output
    data = {"name": claimed.name, "attempt": claimed.attempts + 1, "claim": claimed.claim.claim}
    single = key == message.step.run_id
    tx.append(message.step.run_id, single, worker, [("task.started", (message.step.n,), data)], now)
    return replace(claimed, outputs=outputs, predecessors=names)


def record(tx: Transaction, claim: ClaimRef, change: Change, window: int, now: float) -> Recorded | None:
    """See the contract."""
    hot = tx.end(claim, _ending(change, now))
    if hot is None:
        return None
    run_id = claim.ref.step.run_id
    effects = Effects(tx, run_id, hot.key == run_id, window, now)
    effects.touch(hot.queue)
    ended_run = _follow_up(tx, effects, hot, change)
    parent = claim.ref.celery_id
    dispatches = [replace(each, parent=parent) if each.ref.step.run_id == run_id else each for each in effects.commit()]
    return Recorded(dispatches, ended_run)


def _ending(change: Change, now: float) -> Ending:
    match change:
        case Completed(output):
            return Ending(S.COMPLETED, output, attempted=True, completed_at=now)
        case Failed(error, attempted, crashed):
            return Ending(S.FAILED, None, error, attempted, crashed, completed_at=now)
        case Rescheduled(error, after_s):
            return Ending(S.RETRYING, None, error, attempted=True, due_at=now + after_s)
        case Reopened(reason):
            return Ending(S.QUEUED, None, ErrorInfo("WorkerLost", reason), crashed=True)
        case Expanded(inputs):
            return Ending(S.WAITING, parts_left=len(inputs))
        case _:
            assert_never(change)


def _follow_up(tx: Transaction, effects: Effects, hot: Hot, change: Change) -> WorkflowStatus | None:
    about: dict[str, object] = {"name": hot.name, "attempt": hot.attempts}
    match change:
        case Completed():
            if hot.started_at is not None:
                about["duration_s"] = round(effects.now - hot.started_at, 6)
            effects.say("task.completed", [hot.n], **about)
            return _completed(tx, effects, hot)
        case Failed(error):
            effects.say("task.failed", [hot.n], **about, error=str(error)[:500], error_type=error.type)
            return _end_early(tx, effects, hot.name, WorkflowStatus.FAILED, error)
        case Expanded(inputs) if not inputs:
            return _map_done(tx, effects, hot.n)
        case Rescheduled() | Reopened() | Expanded():
            if tx.run_state(effects.run_id).ending is not None:
                # The run is only waiting for what is running to be over: nothing is begun any more.
                tx.stop_one(StepRef(effects.run_id, hot.n), S.SKIPPED, _ENDING, effects.now)
                effects.say("task.skipped", [hot.n], **about)
                return _count_run(tx, effects)
            _go_on(tx, effects, hot, change, about)
            return None
        case _:
            assert_never(change)


def _go_on(
    tx: Transaction, effects: Effects, hot: Hot, change: Rescheduled | Reopened | Expanded, about: Mapping[str, object]
) -> None:
    match change:
        case Rescheduled(error, after_s):
            effects.say("task.retrying", [hot.n], **about, error=str(error)[:500], after_s=round(after_s, 3))
        case Reopened(reason):
            effects.say("task.retrying", [hot.n], **about, error=reason, crashes=hot.crashes, after_s=0)
        case Expanded(inputs):
            effects.touch(*tx.add_parts(effects.run_id, hot.n, inputs, effects.now))
            effects.say("task.submitted", [hot.n], name=hot.name, parts=len(inputs))
        case _:
            assert_never(change)


def _completed(tx: Transaction, effects: Effects, hot: Hot) -> WorkflowStatus | None:
    """Count every join that the step feeds, release what became ready, and end what ends with it."""
    for join, parts, _bodies in hot.feeds:
        if parts == 1 or tx.count_join(effects.run_id, join) == 0:
            effects.released(tx.release(effects.run_id, join))
    if hot.parent is not None:
        of_map = tx.count_part(effects.run_id, hot.parent)
        if of_map is not None:
            left, max_parallel = of_map
            if left == 0:
                return _map_done(tx, effects, hot.parent)
            if max_parallel is not None:
                effects.released(tx.release_part(effects.run_id, hot.parent))
    elif not hot.feeds:
        return _count_run(tx, effects)
    return None if tx.run_state(effects.run_id).ending is None else _count_run(tx, effects)


def _map_done(tx: Transaction, effects: Effects, parent: int) -> WorkflowStatus | None:
    done = tx.end_map(effects.run_id, parent, effects.now)
    if done is None:
        return None
    effects.say("task.completed", [done.n], name=done.name, attempt=done.attempts)
    return _completed(tx, effects, done)


def _end_early(
    tx: Transaction, effects: Effects, name: str, status: WorkflowStatus, error: ErrorInfo
) -> WorkflowStatus | None:
    """Skip what has not started, and wait for what is running."""
    run_id = effects.run_id
    blamed = error if effects.single else ErrorInfo(error.type, f"{name!r}: {error}", error.traceback)
    if not tx.begin_ending(run_id, status, blamed):
        return _count_run(tx, effects)
    reason = ErrorInfo("Skipped", f"not run, because {name!r} ended before: {str(error)[:300]}")
    skipped = tx.stop(run_id, S.SKIPPED, reason, effects.now, running_too=False)
    if skipped:
        effects.say("task.skipped", [n for n, _queue in skipped], because=name)
        effects.touch(*(queue for _n, queue in skipped))
    running = tx.count_running(run_id)
    tx.wait_for(run_id, running)
    return _end_run(tx, effects, status) if running == 0 else None


def _count_run(tx: Transaction, effects: Effects) -> WorkflowStatus | None:
    remaining, ending = tx.count_run(effects.run_id)
    return None if remaining > 0 else _end_run(tx, effects, ending or WorkflowStatus.COMPLETED)


def _end_run(tx: Transaction, effects: Effects, status: WorkflowStatus) -> WorkflowStatus:
    tx.end_run(effects.run_id, status, effects.now)
    if not effects.single:
        effects.say(f"workflow.{status.value.lower()}")
    return status


def vanish(tx: Transaction, claim: ClaimRef, reason: str, window: int, now: float) -> Recorded | None:
    """See the contract."""
    hot = tx.held_step(claim)
    if hot is None:
        return None
    retry = RetryPolicy.from_json(dict(hot.retry)) if hot.retry else ONCE
    change = decide(Vanished(reason), name=hot.name, attempts=hot.attempts, crashes=hot.crashes, retry=retry)
    return record(tx, claim, change, window, now)


def cancel(tx: Transaction, run_id: str, n: int | None, window: int, now: float) -> Recorded | None:
    """See the contract."""
    run = tx.run_state(run_id)
    if run.ended:
        return None
    effects = Effects(tx, run_id, run.single, window, now)
    if n is None or run.single:
        tx.begin_ending(run_id, WorkflowStatus.CANCELLED, _CANCELLED)
        stopped = tx.stop(run_id, S.CANCELLED, _CANCELLED, now, running_too=True)
        effects.say("task.cancelled", [number for number, _queue in stopped])
        effects.touch(*(queue for _number, queue in stopped))
        ended = _end_run(tx, effects, run.ending or WorkflowStatus.CANCELLED)
        return Recorded(effects.commit(), ended)
    stopped_one = tx.stop_one(StepRef(run_id, n), S.CANCELLED, _CANCELLED, now)
    if stopped_one is None:
        return None
    name, queue = stopped_one
    effects.say("task.cancelled", [n], name=name)
    effects.touch(queue)
    ended_run = _end_early(tx, effects, name, WorkflowStatus.CANCELLED, _CANCELLED)
    return Recorded(effects.commit(), ended_run)


def due(tx: Transaction, window: int, now: float) -> list[Dispatch]:
    """See the contract."""
    queues: dict[str, None] = {}
    for ref, queue, single in tx.due(now):
        tx.append(ref.run_id, single, None, [("task.queued", (ref.n,), {})], now)
        queues[queue] = None
    return fill(tx, list(queues), window, now) if queues else []


def encoded(value: object) -> str | None:
    """Return compact JSON text of something that is JSON already; None stays None."""
    return None if value is None else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
