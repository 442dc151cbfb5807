"""Firing: what happens when the time of a job has come, written once over the primitives of a transaction.

The job's row is changed before anything is inserted, and only if it is as the beat has read it. Of several beats that
decided about the same time, the first therefore goes on; the others find the row changed and do nothing.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Protocol

from orchestra.model.record import JobRecord
from orchestra.model.schedule import JobStatus, Overlap
from orchestra.store import primitives, transitions
from orchestra.store.contract import Fired, Firing, NewRun
from orchestra.store.effects import Window, fill
from orchestra.store.entries import Entry

BACKFILL_POLL_S = 0.5
"""How long a backfill waits for room before it is looked at again."""
OVERLAP = "a run of the job had not ended"
"""Why a time becomes no run when there is no room for it."""


class Transaction(primitives.Transaction, Protocol):
    """The primitives that jobs need beside those of runs."""

    def move_job(self, job: JobRecord) -> bool:
        """Write what changes when a job fires, and raise its version; False when it has another version by now."""
        ...

    def fired(self, job_id: str, times: Sequence[float]) -> Set[float]:
        """Return those of the times that have a run."""
        ...

    def count_open(self, job_id: str) -> int:
        """Return how many runs of a job have not ended."""
        ...


@dataclass(frozen=True, slots=True)
class _Sorted:
    """The runs of a firing: those that are created, and those for which there is no room."""

    admitted: Sequence[NewRun]
    turned_away: Sequence[NewRun]


def fire(tx: Transaction, firings: Sequence[Firing], window: Window, now: float) -> list[Fired | None]:
    """See the contract."""
    answers: dict[int, Fired | None] = {}
    queues: dict[str, None] = {}
    # In the order of their ids, so that transactions that fire the same jobs do not wait for each other in a circle.
    for at, firing in sorted(enumerate(firings), key=lambda each: each[1].job.id):
        ready = _fire(tx, firing, now)
        answers[at] = None if ready is None else Fired(ready[0], ())
        queues.update(dict.fromkeys(ready[1] if ready else ()))
    dispatches = fill(tx, list(queues), window, now)
    for at, answer in sorted(answers.items()):
        if answer is not None:
            # Which job a dispatch belongs to does not matter: they are published together.
            answers[at], dispatches = replace(answer, dispatches=dispatches), []
    return [answers[at] for at in range(len(firings))]


def _fire(tx: Transaction, firing: Firing, now: float) -> tuple[list[str], list[str]] | None:
    sorted_ = _sort(tx, firing)
    if not tx.move_job(_moved(firing, sorted_, now)):
        return None
    queues = [queue for run in sorted_.admitted for queue in transitions.add_run(tx, run, now) or ()]
    _tell_missed(tx, firing, sorted_, now)
    return [run.id for run in sorted_.admitted], queues


def _sort(tx: Transaction, firing: Firing) -> _Sorted:
    job = firing.job
    of = job.backfills or job.id
    taken = tx.fired(of, [run.scheduled_for or 0.0 for run in firing.runs]) if firing.runs else frozenset[float]()
    fresh = [run for run in firing.runs if run.scheduled_for not in taken]
    limit = most_open(firing)
    if limit is None or not fresh:
        return _Sorted(fresh, ())
    room = max(0, limit - tx.count_open(of))
    return _Sorted(fresh[:room], fresh[room:])


def most_open(firing: Firing) -> int | None:
    """Return how many runs of the job may be open; None when it does not matter."""
    if firing.by_hand:
        return None
    return 1 if firing.job.schedule.overlap is Overlap.SKIP else firing.job.schedule.most_open


def _moved(firing: Firing, runs: _Sorted, now: float) -> JobRecord:
    """Return the job as it is after the firing."""
    job = firing.job
    newest = runs.admitted[-1] if runs.admitted else None
    if newest is not None:
        job = replace(job, last_run_at=newest.scheduled_for, last_run_id=newest.id)
    if firing.by_hand:
        return job
    next_run_at, due_at, missed = firing.next_run_at, firing.due_at, firing.missed_count
    if runs.turned_away and job.schedule.most_open is not None:
        next_run_at, due_at = runs.turned_away[0].scheduled_for, now + BACKFILL_POLL_S
    else:
        missed += len(runs.turned_away)
    count = job.runs + len(runs.admitted)
    ended = next_run_at is None or (job.schedule.max_runs is not None and count >= job.schedule.max_runs)
    return replace(
        job,
        status=JobStatus.ENDED if ended else job.status,
        next_run_at=None if ended else next_run_at,
        due_at=None if ended else due_at,
        runs=count,
        missed=job.missed + missed,
        error=firing.error,
    )


def _tell_missed(tx: Transaction, firing: Firing, runs: _Sorted, now: float) -> None:
    job = firing.job
    if firing.missed_count:
        entry = missed(job, firing.missed, firing.missed_count, firing.reason)
        tx.append(None, False, None, [entry], now)
    if runs.turned_away and job.schedule.most_open is None:
        times = [run.scheduled_for for run in runs.turned_away]
        tx.append(None, False, None, [missed(job, times, len(times), OVERLAP)], now)


def missed(job: JobRecord, times: Sequence[float | None], count: int, reason: str) -> Entry:
    """Return the event of times that became no run; of many the first and the last are named."""
    first, last = (times[0], times[-1]) if times else (None, None)
    data = {"job_id": job.id, "name": job.name, "scheduled_for": first, "until": last, "count": count, "reason": reason}
    return "job.missed", (), data
