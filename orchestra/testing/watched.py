"""Watching a store: every status change is one that may happen, and the log tells the same story."""

import threading
from collections.abc import Callable, Collection, Mapping
from functools import wraps
from typing import Any, cast

from orchestra.model.event import RUN_ENDS, Event
from orchestra.model.ids import MessageRef, StepRef
from orchestra.model.status import AGAIN, FOLLOWS, TERMINAL, TaskStatus
from orchestra.store.contract import ClaimRef, NewRun, RunFilter, Store, ToClaim, ToRecord

S = TaskStatus
WRITES = (
    "create_runs", "claim", "record", "together", "vanish", "cancel", "pause", "resume", "retry", "fork", "due",
    "announce", "reserve", "refill", "resend",
)  # fmt: skip
SMALL = 200
"""Runs of more steps are not looked at after every write, since each look reads all of them."""
_READY = frozenset({S.QUEUED, S.RUNNING, S.RETRYING})
_BORN = frozenset({S.PENDING, S.QUEUED})
# In one transaction: what ends with a retry, while its run is ending, is not tried again.
_AT_ONCE: Mapping[TaskStatus, frozenset[TaskStatus]] = {**FOLLOWS, S.RUNNING: FOLLOWS[S.RUNNING] | {S.SKIPPED}}

# A retry by hand skips at once what no way leads to; what waited for nothing else has then completed.
_AGAIN_AT_ONCE: Mapping[TaskStatus, frozenset[TaskStatus]] = {
    old: new | {S.SKIPPED, S.COMPLETED} if S.PENDING in new else new for old, new in AGAIN.items()
}


class BrokenRule(AssertionError):
    """A store did what no store may do."""


def check_transitions(store: Store) -> Store:
    """Return the store, watched: after each write the steps of the runs that it was about are compared with before.

    A status may only change as ``model.status.FOLLOWS`` says; a run that has not ended has a step that somebody can
    get on with; and all steps of a run that has ended have ended.

    Raises (from the methods that write):
        BrokenRule: Something else happened.
    """
    return cast(Store, Watched(store))


class Watched:
    """A store and what is known of its steps."""

    def __init__(self, store: Store) -> None:
        self.watched = store
        self._known: dict[str, dict[int, TaskStatus]] = {}
        self._generations: dict[str, dict[int, int]] = {}
        self._lock = threading.Lock()
        self._writing = self._writes = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.watched, name)
        return self._watching(name, method) if name in WRITES else method

    def _watching(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def write(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                alone = self._writing == 0
                self._writing += 1
                self._writes += 1
                number = self._writes
            try:
                return method(*args, **kwargs)
            finally:
                with self._lock:
                    self._writing -= 1
                    several = name == "together" or (name == "record" and args[3:] not in ((), (None,)))
                    alone = alone and number == self._writes and not several
                    for run_id in self._concerned(name, args):
                        self._look(run_id, step_by_step=alone)

        return write

    def _concerned(self, name: str, args: tuple[Any, ...]) -> list[str]:
        match args[:1]:
            case (ClaimRef(ref=MessageRef(step=StepRef(run_id=run_id))),) | (MessageRef(step=StepRef(run_id=run_id)),):
                return [run_id]
            case (str() as run_id,) if name == "fork":
                return [run_id, args[1]]
            case (str() as run_id,):
                return [run_id]
            case (list(),) if name == "together":
                wanted = cast(list[ToClaim | ToRecord], args[0])
                refs = [each.message if isinstance(each, ToClaim) else each.claim.ref for each in wanted]
                return list(dict.fromkeys(ref.step.run_id for ref in refs))
            case (list(),) if name == "create_runs":
                return [run.id for run in cast(list[NewRun], args[0])]
            case _:
                return list(self._known) if name == "due" else []

    def _look(self, run_id: str, *, step_by_step: bool) -> None:
        known = self._known.setdefault(run_id, {})
        if len(known) > SMALL and self._writes % (len(known) // SMALL + 1) ** 2:
            return
        step_by_step = step_by_step and len(known) <= SMALL
        steps = self.watched.steps(run_id)
        now = {step.ref.n: step.status for step in steps}
        generations = {step.ref.n: step.generation for step in steps}
        before = self._generations.get(run_id, {})
        for n in sorted({*known, *now}):
            again = generations.get(n, 0) > before.get(n, 0) or (not known and any(generations.values()))
            _check_change(f"{run_id}.{n}", known.get(n), now.get(n), step_by_step, again)
        self._known[run_id], self._generations[run_id] = now, generations
        if step_by_step:
            _check_run(self.watched, run_id, now)


def _check_change(step: str, old: TaskStatus | None, new: TaskStatus | None, step_by_step: bool, again: bool) -> None:
    if new is None:
        raise BrokenRule(f"step {step}, which was {old}, is gone")
    if old is None:
        allowed = _BORN if step_by_step and not again else _reachable(None) | TERMINAL  # a fork keeps what has ended
    elif again:
        allowed = _AGAIN_AT_ONCE.get(old, frozenset[S]()) if step_by_step else frozenset(S)
    else:
        allowed = _AT_ONCE[old] | {old} if step_by_step else _reachable(old)
    if new not in allowed:
        raise BrokenRule(f"step {step} went from {old} to {new}")


def _reachable(status: TaskStatus | None) -> frozenset[TaskStatus]:
    """Return what a step can become in any number of changes."""
    found = set(_BORN if status is None else {status})
    while more := {new for old in found for new in FOLLOWS[old]} - found:
        found |= more
    return frozenset(found)


def _check_run(store: Store, run_id: str, steps: Mapping[int, TaskStatus]) -> None:
    run = store.run(run_id)
    if run is None:
        return
    if run.status.ended and not TERMINAL.issuperset(steps.values()):
        raise BrokenRule(f"run {run_id} is {run.status} while its steps are {steps}")
    if not run.status.ended and _READY.isdisjoint(steps.values()):
        raise BrokenRule(f"run {run_id} is {run.status}, and nothing of it goes on: {steps}")


# --- the log --------------------------------------------------------------------------------------------------------

_ENDS = {
    S.COMPLETED: "task.completed",
    S.FAILED: "task.failed",
    S.CANCELLED: "task.cancelled",
    S.SKIPPED: "task.skipped",
}
_STOPS = frozenset({"task.skipped", "task.cancelled"})
_TOLD = frozenset({"task.completed", "task.failed"})
_NEXT: Mapping[str | None, frozenset[str]] = {
    None: frozenset({"task.submitted"}),
    "task.submitted": frozenset({"task.queued"}) | _STOPS,
    "task.queued": frozenset({"task.started"}) | _STOPS,
    "task.started": frozenset({"task.retrying"}) | _TOLD | _STOPS,
    # After a crash it is ready at once; with a fallback it ends as that does.
    "task.retrying": frozenset({"task.queued", "task.started", "task.retrying"}) | _TOLD | _STOPS,
    # After the end, only by a retry of the run by hand: what completed, too, when it is a part of what was cancelled.
    **{end: frozenset({"task.retrying"}) for end in _ENDS.values()},
}


def check_history(store: Store, run_ids: Collection[str] | None = None) -> None:
    """Check that the log tells of each run what the store holds of it: everything once, in an order that makes sense.

    Args:
        run_ids: The runs to look at; default all.

    Raises:
        BrokenRule: An event is missing, double or too early.
    """
    for run in store.runs(RunFilter(limit=1_000_000)):
        if run_ids is not None and run.id not in run_ids:
            continue
        events: list[Event] = []
        cursor = 0
        while page := store.events(cursor, run_id=run.id)[0]:
            events += page
            cursor = store.events(cursor, run_id=run.id)[1]
        _check_steps(store, run.id, run.single, events)
        of_run = _of_last_life([event.type for event in events if event.type.startswith("workflow.")], run.single)
        ended = [f"workflow.{run.status.value.lower()}"] if run.status.ended else []
        if of_run != ([] if run.single else ["workflow.started", *ended]):
            raise BrokenRule(f"run {run.id} is {run.status}, and the log says {of_run}")
        # What a job made begins with the firing of that.
        begins = [event.type for event in events if event.type != "job.fired"][:1]
        if of_run and begins != ["workflow.started"]:
            raise BrokenRule(f"the log of run {run.id} begins with {events[0]}")
        if ended and of_run and events[-1].type not in RUN_ENDS:
            raise BrokenRule(f"after the end of run {run.id} there was {events[-1]}")


def check_log(store: Store) -> int:
    """Check that what the log tells of each step is a way through the transition table; also while the store is in use.

    Returns how many events there were. It reads them once, from the oldest on.

    Raises:
        BrokenRule: A step changed as no step may.
    """
    told: dict[str, dict[str | None, str]] = {}
    cursor = count = 0
    while (page := store.events(cursor))[0]:
        for event in page[0]:
            _follow(told.setdefault(event.run_id or "", {}), event)
        cursor, count = page[1], count + len(page[0])
    return count


def _of_last_life(types: list[str], single: bool) -> list[str]:
    """Return the events of a run without pauses; what came before a retry by hand ended as nothing was to come."""
    told = [each for each in types if each not in ("workflow.paused", "workflow.resumed")]
    begins: list[str] = [] if single else ["workflow.started"]
    while "workflow.retried" in told:
        at = told.index("workflow.retried")
        ended = told[len(begins) : at]
        if told[: len(begins)] != begins or (ended and ended[0] not in ("workflow.failed", "workflow.cancelled")):
            raise BrokenRule(f"a run was retried after {told[:at]}")
        told = begins + told[at + 1 :]
    return told


def _follow(last: dict[str | None, str], event: Event) -> None:
    """Check that what an event says of a task may come after what was said of it last."""
    if event.type.startswith("task."):
        before = last.get(event.task_id)
        if event.type not in _NEXT[before]:
            raise BrokenRule(f"{event.type} of {event.task_id} in run {event.run_id} came after {before}")
        last[event.task_id] = event.type


def _check_steps(store: Store, run_id: str, single: bool, events: list[Event]) -> None:
    last: dict[str | None, str] = {}
    kept: set[object] = set()
    for event in events:
        if "kept" in event.data:
            kept |= set(cast(list[object], event.data["kept"]))
        _follow(last, event)
    for step in store.steps(run_id):
        told = last.pop(run_id if single and step.ref.n == 0 else str(step.ref), None)
        if told is None and step.ref.n in kept:
            continue
        wanted = _ENDS.get(step.status)
        if told is None or (wanted is None and told in _ENDS.values()) or wanted not in (None, told):
            raise BrokenRule(f"step {step.ref} is {step.status}, and the last that the log says is {told}")
    if last:
        raise BrokenRule(f"the log of run {run_id} tells of what is no step of it: {last}")


__all__ = ["BrokenRule", "check_history", "check_log", "check_transitions"]
