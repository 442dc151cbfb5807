"""Steering: pause, resume, retry, fork and deadlines of runs, written once over the primitives of a transaction.

All of it reaches far, so each transaction holds its run alone.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import Protocol

from orchestra.engine.again import Again, Standing, again, downstream
from orchestra.model.record import ErrorInfo
from orchestra.model.status import TaskStatus as S
from orchestra.model.status import WorkflowStatus
from orchestra.store import primitives
from orchestra.store.effects import Effects, Window
from orchestra.store.endings import end_run, shut
from orchestra.store.values import Created, Dispatch, Recorded

EXPIRED = ErrorInfo("Expired", "nothing of it had begun when it expired")
OVERDUE = ErrorInfo("DeadlineExceeded", "it had not ended by its deadline")


class Transaction(primitives.Transaction, Protocol):
    """The primitives that control needs beside those of runs."""

    def set_paused(self, run_id: str, paused: bool) -> bool:
        """Make a RUNNING run PAUSED, or a PAUSED one RUNNING; False when it is not that, or is ending."""
        ...

    def park(self, run_id: str) -> list[str]:
        """Take what is open of a run out of the window, for as long as it is parked; returns the queues."""
        ...

    def unpark(self, run_id: str) -> list[str]:
        """Undo that; returns the queues of ready steps."""
        ...

    def standing(self, run_id: str) -> tuple[list[Standing], Mapping[int, frozenset[int]]]:
        """Return the steps of a run, and the dead parts of its joins."""
        ...

    def reopen(self, run_id: str, remaining: int) -> None:
        """Make an ended run RUNNING: no error, no deadline, waiting for so many steps."""
        ...

    def set_back(self, run_id: str, to: Again) -> None:
        """Give steps their new statuses in a new generation, and joins and parents their counts."""
        ...

    def copy_run(self, run_id: str, new_id: str, undone: Sequence[int], now: float) -> str | None:
        """Insert a CANCELLED copy of a run, its first steps (some CANCELLED) and its joins; returns its name.

        None when there is none.
        """
        ...

    def overdue(self, now: float) -> list[tuple[str, bool]]:
        """Return the runs whose deadline, or else whose expiry has come; True stands for the deadline."""
        ...

    def has_begun(self, run_id: str) -> bool:
        """Whether a step of a run was ever claimed. Then the run will not expire, and that is noted."""
        ...


def pause(tx: Transaction, run_id: str, window: Window, now: float) -> Recorded | None:
    """See the contract."""
    tx.lock_run(run_id, alone=True)
    if not tx.set_paused(run_id, True):
        return None
    effects = _effects(tx, run_id, window, now)
    effects.touch(*tx.park(run_id))
    effects.say("workflow.paused")
    return Recorded(effects.commit())


def resume(tx: Transaction, run_id: str, window: Window, now: float) -> Recorded | None:
    """See the contract."""
    tx.lock_run(run_id, alone=True)
    if not tx.set_paused(run_id, False):
        return None
    effects = _effects(tx, run_id, window, now)
    effects.touch(*tx.unpark(run_id))
    effects.say("workflow.resumed")
    return Recorded(effects.commit())


def retry(tx: Transaction, run_id: str, window: Window, now: float) -> Recorded | None:
    """See the contract."""
    tx.lock_run(run_id, alone=True)
    run = tx.run_state(run_id)
    if not run.ended or run.status not in (WorkflowStatus.FAILED, WorkflowStatus.CANCELLED):
        return None
    steps, dead = tx.standing(run_id)
    to = again(steps, dead)
    if to is None:
        return None
    effects = _effects(tx, run_id, window, now)
    effects.say("workflow.retried")
    effects.say("task.retrying", sorted(to.steps), by="request")
    ended = _open_again(tx, effects, steps, to)
    return Recorded(effects.commit(), ended)


def fork(tx: Transaction, run_id: str, new_id: str, n: int, window: Window, now: float) -> Created | None:
    """See the contract. ``n`` must be a step that the run began with."""
    if tx.run_state(run_id).single:
        return None
    steps, _dead = tx.standing(run_id)
    undone = forked(steps, n)
    name = None if undone is None else tx.copy_run(run_id, new_id, sorted(undone), now)
    if undone is None or name is None:
        return None
    copied, dead = tx.standing(new_id)
    to = again(copied, dead)
    assert to is not None, (run_id, n)
    effects = _effects(tx, new_id, window, now)
    kept = [each.n for each in copied if each.n not in to.steps]
    effects.say("workflow.started", name=name, forked_from=run_id, kept=kept)
    effects.say("task.submitted", sorted(to.steps))
    _open_again(tx, effects, copied, to)
    return Created(new_id, effects.commit())


def forked(steps: Sequence[Standing], n: int) -> set[int] | None:
    """Return the steps that a fork from a step runs; None when the run has not begun with such a step."""
    first = [each for each in steps if each.parent is None]
    if n not in {each.n for each in first}:
        return None
    undone = downstream(first, n)
    for each in first:
        is_kept = each.status is S.COMPLETED or (each.status is S.SKIPPED and not each.is_undone)
        if not is_kept:
            undone |= downstream(first, each.n)
    return undone


def copied(steps: Sequence[Standing], undone: Set[int]) -> list[Standing]:
    """Return the steps of a fork before it is opened: of those that the run began with, some have not run."""
    return [
        replace(each, status=S.CANCELLED if each.n in undone else each.status, collects=None)
        for each in steps
        if each.parent is None
    ]


def end_overdue(tx: Transaction, run_id: str, by_deadline: bool, window: Window, now: float) -> list[Dispatch]:
    """End a run whose time has come: what is open is CANCELLED, and the run has FAILED with the reason."""
    tx.lock_run(run_id, alone=True)
    run = tx.run_state(run_id)
    if run.ended or (not by_deadline and tx.has_begun(run_id)):
        return []
    reason = OVERDUE if by_deadline else EXPIRED
    effects = Effects(tx, run_id, run.single, window, now)
    tx.begin_ending(run_id, WorkflowStatus.FAILED, reason)
    effects.entries += tx.starts(run_id, None)
    stopped = tx.stop(run_id, S.CANCELLED, reason, now, running_too=True)
    effects.say("task.cancelled", [number for number, _queue in stopped], error=str(reason), error_type=reason.type)
    effects.touch(*(queue for _number, queue in stopped))
    end_run(tx, effects, run.ending or WorkflowStatus.FAILED)
    return effects.commit()


def _effects(tx: Transaction, run_id: str, window: Window, now: float) -> Effects:
    return Effects(tx, run_id, tx.run_state(run_id).single, window, now)


def _open_again(tx: Transaction, effects: Effects, steps: Sequence[Standing], to: Again) -> WorkflowStatus | None:
    tx.reopen(effects.run_id, to.remaining)
    tx.set_back(effects.run_id, to)
    queues = {each.n: each.queue for each in steps}
    effects.released([(n, queues[n]) for n, status in sorted(to.steps.items()) if status is S.QUEUED])
    return shut(tx, effects, sorted(to.shut))
