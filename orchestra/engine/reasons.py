"""Reasons: what a run or a step is waiting for, from facts that were read from the store. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from orchestra.model.record import RunRecord, StepRecord
from orchestra.model.status import TaskStatus, WorkflowStatus

S = TaskStatus
_SHOWN = 5
"""Steps of one kind that are named; the others are counted."""
_LATE_S = 2.0
"""A step that is next on a free worker should have begun by then; after that its message is being sent again."""

_LONG_AGO_S = 5.0
"""A heartbeat that was heard longer ago makes people wonder whether the worker lives."""


class Cause(StrEnum):
    """Why something is not further than it is."""

    ENDED = "ended"
    PAUSED = "paused"
    RUNNING = "running"
    WORKER_SILENT = "worker_silent"
    PREDECESSOR = "predecessor"
    TURN = "turn"
    """One of the parts of a map, of which only so many run at a time."""
    PARTS = "parts"
    RETRY = "retry"
    WAITING = "waiting"
    NO_WORKER = "no_worker"
    BEHIND = "behind"
    NO_SLOT = "no_slot"
    NEXT = "next"


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that is waited for, as a sentence for people."""

    cause: Cause
    text: str
    task_id: str | None = None
    """The step that waits."""


@dataclass(frozen=True, slots=True)
class Server:
    """A worker that has a lease."""

    name: str
    incarnation: str
    queues: Sequence[str]
    slots: int
    busy: int
    alive: bool
    heard_at: float | None = None
    """When it renewed its lease."""
    holds_until: float | None = None
    """When its lease ends, unless it renews it."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a run, and of the workers and queues around it."""

    run: RunRecord
    steps: Mapping[int, StepRecord]
    before: Mapping[int, Sequence[int]]
    """Numbers of the steps that a step waits for."""
    servers: Sequence[Server]
    ready: Mapping[tuple[str, int], int]
    """How many steps are ready, by queue and priority, in all runs."""
    now: float


def why_run(facts: Facts) -> list[Reason]:
    """Say what a run waits for: its own state first, then the open steps that nothing else of it holds up."""
    run = facts.run
    if run.status.ended:
        ended = _ended(run.status, run.completed_at, run.error, facts.now)
        if run.status is WorkflowStatus.COMPLETED:
            return [ended]
        return [ended, Reason(Cause.ENDED, f"what failed or was cancelled of it runs again with: {again(run.id)}")]
    found = [_paused(run)] if run.status is WorkflowStatus.PAUSED else []
    foremost = [each for each in facts.steps.values() if _is_foremost(facts, each)]
    foremost.sort(key=lambda each: (each.status is not S.RUNNING, each.status is not S.RETRYING, each.ref.n))
    named = [reason for each in foremost[:_SHOWN] for reason in _of_open(facts, each, prefix=f"{each.name!r} ")]
    if run.status is WorkflowStatus.PAUSED:
        named = [each for each in named if each.cause is not Cause.PAUSED]
    found += named
    if len(foremost) > _SHOWN:
        found.append(Reason(Cause.WAITING, f"and {len(foremost) - _SHOWN} more of its steps are ready or running"))
    held_up = sum(each.status is S.PENDING for each in facts.steps.values())
    if held_up:
        found.append(Reason(Cause.PREDECESSOR, f"{_count(held_up, 'step')} behind them: waiting for those before"))
    return found


def again(run_id: str) -> str:
    """Return the command that runs again what did not end well."""
    return f"orchestra runs retry {run_id}"


def why_step(facts: Facts, n: int) -> list[Reason]:
    """Say what a step waits for, and behind that what holds up the steps that it waits for."""
    step = facts.steps[n]
    if step.status.ended:
        return [_ended(step.status, step.completed_at, step.error, facts.now, str(step.ref))]
    found = list(_of_open(facts, step))
    direct = {other.ref.n for other in _awaited(facts, step)}
    # Those that are held up by others again: what is behind all of it, once each.
    roots = [each for each in _roots(facts, n) if each.ref.n not in direct]
    for each in roots[:_SHOWN]:
        found += _of_open(facts, each, prefix=f"behind it: {each.name!r} ")
    return found


def _of_open(facts: Facts, step: StepRecord, prefix: str = "") -> Iterator[Reason]:
    ref = str(step.ref)
    if facts.run.status is WorkflowStatus.PAUSED and step.status is not S.RUNNING:
        yield _paused(facts.run, ref)
    match step.status:
        case S.PENDING:
            yield from _of_pending(facts, step, prefix)
        case S.QUEUED:
            cause, text = _of_queued(facts, step)
            yield Reason(cause, prefix + text, ref)
        case S.RUNNING:
            yield _of_running(facts, step, prefix)
        case S.RETRYING:
            yield Reason(Cause.RETRY, f"{prefix}{_retry(step, facts.now)}", ref)
        case S.WAITING:
            yield from _of_waiting(facts, step, prefix)
        case S.COMPLETED | S.FAILED | S.CANCELLED | S.SKIPPED:
            pass
        case _:
            assert_never(step.status)


def _of_pending(facts: Facts, step: StepRecord, prefix: str) -> Iterator[Reason]:
    ref = str(step.ref)
    awaited = _awaited(facts, step)
    for each in awaited[:_SHOWN]:
        text = f"{prefix}waits for step {each.name!r}, which {_state(facts, each)}"
        yield Reason(Cause.PREDECESSOR, text, ref)
    if len(awaited) > _SHOWN:
        yield Reason(Cause.PREDECESSOR, f"{prefix}waits for {len(awaited) - _SHOWN} more steps", ref)
    if not awaited and step.parent is not None:
        parent = facts.steps[step.parent]
        at_once = sum(each.parent == step.parent and each.status in _BUSY for each in facts.steps.values())
        text = f"{prefix}waits for its turn: {_count(at_once, 'part')} of {parent.name!r} at a time"
        yield Reason(Cause.TURN, text, ref)


def _of_queued(facts: Facts, step: StepRecord) -> tuple[Cause, str]:
    queue = step.queue
    serving = [each for each in facts.servers if each.alive and queue in each.queues and each.slots]
    ahead = sum(count for (name, priority), count in facts.ready.items() if name == queue and priority < step.priority)
    if not serving:
        start = f"start one: orchestra worker --app MODULE:ATTRIBUTE --queues {queue}"
        return Cause.NO_WORKER, f"is ready, and no worker serves queue {queue!r}; {start}"
    if ahead:
        return Cause.BEHIND, f"is ready; {_count(ahead, 'ready step')} of higher priority before it on queue {queue!r}"
    beside = facts.ready.get((queue, step.priority), 1) - 1
    others = f" ({_count(beside, 'other step')} of its priority ready)" if beside > 0 else ""
    slots, busy = sum(each.slots for each in serving), sum(each.busy for each in serving)
    if busy >= slots:
        workers = _count(len(serving), "worker")
        return Cause.NO_SLOT, f"is ready; all {slots} slots of the {workers} of queue {queue!r} are taken{others}"
    return Cause.NEXT, f"is ready and on its way to one of {_count(len(serving), 'worker')}{others}"


def _of_running(facts: Facts, step: StepRecord, prefix: str) -> Reason:
    ref = str(step.ref)
    since = "" if step.started_at is None else f" for {_span(facts.now - step.started_at)}"
    holder = next((each for each in facts.servers if each.incarnation == step.worker), None)
    if holder is None or not holder.alive:
        name = step.worker if holder is None else holder.name
        text = f"{prefix}was taken by worker {name}, which is gone; another one takes it up"
        return Reason(Cause.WORKER_SILENT, text, ref)
    return Reason(Cause.RUNNING, f"{prefix}runs{since} on worker {holder.name}{_heard(holder, facts.now)}", ref)


def _heard(holder: Server, now: float) -> str:
    if holder.heard_at is None:
        return ""
    ago_s = max(0.0, now - holder.heard_at)
    text = f", last heartbeat {_span(ago_s)} ago"
    if ago_s < _LONG_AGO_S or holder.holds_until is None:
        return text
    return f"{text}; that is good for {_span(max(0.0, holder.holds_until - now))} more"  # some leases are long


def _of_waiting(facts: Facts, step: StepRecord, prefix: str) -> Iterator[Reason]:
    ref = str(step.ref)
    parts = [each for each in facts.steps.values() if each.parent == step.ref.n]
    left = sum(not each.status.ended for each in parts)
    if parts:
        yield Reason(Cause.PARTS, f"{prefix}waits for {left} of its {_count(len(parts), 'part')}", ref)
    else:
        yield Reason(Cause.WAITING, f"{prefix}waits for a timer, a limit or a person", ref)


_BUSY = frozenset({S.QUEUED, S.RUNNING, S.RETRYING, S.WAITING})


def _awaited(facts: Facts, step: StepRecord) -> list[StepRecord]:
    """Return the open steps that a step waits for, those that are under way first."""
    known = [facts.steps[n] for n in facts.before.get(step.ref.n, ()) if n in facts.steps]
    awaited = [each for each in known if not each.status.ended]
    return sorted(awaited, key=lambda each: (each.status is S.PENDING, each.ref.n))


def _roots(facts: Facts, n: int) -> list[StepRecord]:
    """Return the open steps that hold up a step, and that no step of the run holds up."""
    seen, todo = {n}, [n]
    found: list[StepRecord] = []
    parts: dict[int, list[int]] = {}
    for each in facts.steps.values():
        if each.parent is not None and not each.status.ended:
            parts.setdefault(each.parent, []).append(each.ref.n)
    while todo:
        at = todo.pop()
        behind = [each.ref.n for each in _awaited(facts, facts.steps[at])] + parts.get(at, [])
        if not behind and at != n:
            found.append(facts.steps[at])
        new = [each for each in behind if each not in seen]
        seen.update(new)
        todo += new
    return sorted(found, key=lambda each: each.ref.n)


def _is_foremost(facts: Facts, step: StepRecord) -> bool:
    if step.status in (S.QUEUED, S.RUNNING, S.RETRYING):
        return True
    return step.status is S.WAITING and not any(each.parent == step.ref.n for each in facts.steps.values())


def _state(facts: Facts, step: StepRecord) -> str:
    if step.status is S.PENDING:
        return "waits for others itself"
    return next((each.text for each in _of_open(facts, step) if each.cause is not Cause.PAUSED), "is about to go on")


def _retry(step: StepRecord, now: float) -> str:
    failed = f"failed {_times(step.attempts)}" + (f" ({step.error})" if step.error else "")
    wait = None if step.due_at is None else step.due_at - now
    if wait is None or wait <= -_LATE_S:
        return f"{failed} and is due to be tried again; a live worker makes it ready"
    return f"{failed} and retries in {_span(max(0.0, wait))}"


def _paused(run: RunRecord, task_id: str | None = None) -> Reason:
    return Reason(Cause.PAUSED, f"the run is paused; go on with: orchestra runs resume {run.id}", task_id)


def _ended(status: str, at: float | None, error: object, now: float, task_id: str | None = None) -> Reason:
    ago = "" if at is None else f" {_span(max(0.0, now - at))} ago"
    return Reason(Cause.ENDED, f"it ended {status}{ago}{f': {error}' if error else ''}", task_id)


def _times(number: int) -> str:
    return "once" if number == 1 else "twice" if number == 2 else f"{number} times"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"
