"""The part of the store contract that is about jobs. Normative. What ``contract`` says of methods holds here too."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestra.model.record import JobRecord
from orchestra.store.values import Dispatch, NewRun


@dataclass(frozen=True, slots=True)
class Firing:
    """What a beat, or a person, decided about a job."""

    job: JobRecord
    """As it was read: the decision holds only if the job has not changed since."""
    runs: Sequence[NewRun]
    """One for each time that becomes a run, in their order."""
    next_run_at: float | None
    due_at: float | None
    missed: Sequence[float] = ()
    """The first and the last time that become none."""
    missed_count: int = 0
    reason: str = ""
    """Why they become none."""
    error: str | None = None
    """Why no run can be made of the job."""
    by_hand: bool = False
    """A run beside the schedule, which does not move."""


@dataclass(frozen=True, slots=True)
class Fired:
    """The runs that a firing created, and what is to be published for them."""

    run_ids: Sequence[str]
    dispatches: Sequence[Dispatch]


class Jobs(Protocol):
    """Where jobs are kept, and where their times become runs."""

    def put_job(self, job: JobRecord) -> JobRecord | None:
        """Insert a job (version 0) or replace one that still has the version that was read; returns it as it is kept.

        None when there is one of that id already, or it has changed meanwhile; nothing changes then.
        """
        ...

    def job(self, job_id: str) -> JobRecord | None:
        """Return a job."""
        ...

    def jobs(self) -> list[JobRecord]:
        """Return all jobs by age."""
        ...

    def delete_job(self, job_id: str) -> bool:
        """Delete a job and its backfills; its runs stay. False when there is none."""
        ...

    def due_jobs(self, now: float, limit: int) -> tuple[list[JobRecord], float | None]:
        """Return ACTIVE jobs whose ``due_at`` has come, earliest first, and the earliest ``due_at`` of all.

        Its cost grows with what is due, not with how many jobs there are.
        """
        ...

    def fire(self, firings: Sequence[Firing], now: float) -> list[Fired | None]:
        """Create the runs of jobs whose time has come, move the jobs on, and write job.fired and job.missed.

        One transaction. A firing of a job that has changed since it was read does nothing and gives None: somebody
        else fired it, or it was paused, edited or deleted. So of several that decide about a time, one creates its
        run, and that one publishes it. A (job, time) that has a run gets no second one, whoever asks.

        A job with ``overlap`` skip gets no run while one of its runs is open; that time is missed. A backfill
        (``most_open``) waits instead: it moves on only as far as there was room. ``max_runs`` ends a job.
        """
        ...
