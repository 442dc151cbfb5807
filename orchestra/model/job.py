"""ScheduledJob: what runs when, as its author wrote it and, once scheduled, the handle to what became of it."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol, TypedDict

from orchestra.errors import InvalidOption
from orchestra.model import options, schedule
from orchestra.model.function import WorkflowFunction
from orchestra.model.ids import new_id
from orchestra.model.options import Duration
from orchestra.model.record import JobRecord, moment
from orchestra.model.schedule import JobStatus, Schedule, ScheduleType
from orchestra.model.task import NOTHING, Task, WorkflowRun
from orchestra.model.workflow import ExecutionPattern, Workflow

RESERVED = ("scheduled_for", "last_run_at")
"""What every job's inputs may name in braces."""


class JobOptions(TypedDict, total=False):
    """What ``Orchestrator.schedule`` passes on to ScheduledJob."""

    id: str | None
    name: str | None
    kwargs: Mapping[str, object] | None
    context: Mapping[str, object] | None
    pattern: ExecutionPattern
    priority: int | None
    metadata: Mapping[str, object] | None
    schedule_type: str | None
    run_at: datetime | None
    interval_seconds: Duration | None
    cron: str | None
    timezone: str
    misfire: str
    grace_seconds: Duration
    overlap: str
    jitter_seconds: Duration
    starts_at: datetime | None
    ends_at: datetime | None
    max_runs: int | None


class JobOwner(Protocol):
    """What a handle needs of the orchestrator that it was scheduled with."""

    def read_job(self, job_id: str) -> JobRecord: ...
    def pause_job(self, job_id: str) -> JobRecord: ...
    def resume_job(self, job_id: str) -> JobRecord: ...
    def trigger_job(self, job_id: str) -> WorkflowRun: ...
    def delete_job(self, job_id: str) -> bool: ...
    def backfill_job(self, job_id: str, start: datetime, end: datetime, max_parallel: int) -> JobRecord: ...
    def job_times(self, record: JobRecord, count: int) -> Sequence[float]: ...
    def job_runs(self, job_id: str, limit: int) -> list[WorkflowRun]: ...


class ScheduledJob:
    """A task or a workflow that runs at given times. Scheduled, it is also the handle to the job in the store.

    Exactly one of ``run_at``, ``interval_seconds`` and ``cron`` says when. In the texts of inputs ``{scheduled_for}``
    (the time that the run stands for), ``{last_run_at}`` (that of the run before, or ``never``) and ``{key}`` for the
    keys of ``context`` are replaced; all other braces stay.

    Args:
        task: What to call: a ``Task``, a function, an ``@task``, a Celery task or the name of one.
        workflow: A ``Workflow`` or an ``@workflow`` function, in place of ``task``.
        id: What the job is known by; default a new one. Scheduling the same id again replaces the job; where the
            times stay as they were, it goes on where it was.
        name: Default that of the task or the workflow.
        input: The input of each run; ``kwargs`` for several.
        context: Data, or importable functions without arguments, which the worker calls when the job has fired.
        run_at: The one time; without a time zone it is in ``timezone``.
        interval_seconds: Seconds or a timedelta, counted from ``starts_at``, without drift; default from now.
        cron: Five fields, or ``@daily`` and the like, read in ``timezone``.
        misfire: What becomes of times that are later than the grace when a beat sees them: ``skip``, ``once`` (one
            run for all of them) or ``all``.
        overlap: ``skip`` leaves a time out while a run of the job has not ended.
        jitter_seconds: Each firing is put off by up to so much, always the same for the same time.
        max_runs: The job ends after so many.

    Raises:
        InvalidSchedule: A wrong expression, zone or interval; it says where.
        InvalidOption: Another option has a value that it cannot have.
    """

    def __init__(
        self,
        task: object = None,
        workflow: Workflow | WorkflowFunction[...] | None = None,
        *,
        id: str | None = None,
        name: str | None = None,
        input: object = NOTHING,
        kwargs: Mapping[str, object] | None = None,
        context: Mapping[str, object] | None = None,
        pattern: ExecutionPattern = ExecutionPattern.PARALLEL,
        priority: int | None = None,
        metadata: Mapping[str, object] | None = None,
        schedule_type: str | None = None,
        run_at: datetime | None = None,
        interval_seconds: Duration | None = None,
        cron: str | None = None,
        timezone: str = "UTC",
        misfire: str = "once",
        grace_seconds: Duration = 60,
        overlap: str = "allow",
        jitter_seconds: Duration = 0,
        starts_at: datetime | None = None,
        ends_at: datetime | None = None,
        max_runs: int | None = None,
    ) -> None:
        self.schedule = schedule.schedule(
            schedule_type=schedule_type, run_at=run_at, interval_seconds=interval_seconds, cron=cron,
            timezone=timezone, misfire=misfire, grace_seconds=grace_seconds, overlap=overlap,
            jitter_seconds=jitter_seconds, starts_at=starts_at, ends_at=ends_at, max_runs=max_runs,
        )  # fmt: skip
        if (task is None) == (workflow is None):
            raise InvalidOption("task", task, "either task=… or workflow=…")
        self.id = new_id() if id is None else options.text("id", id)
        self.task = None if task is None else _task(task, input, kwargs, priority, metadata)
        self.workflow = workflow
        self.name = options.text("name", name) if name is not None else self.task.name if self.task else _name(workflow)
        self.input, self.kwargs, self.pattern, self.priority = input, dict(kwargs or {}), pattern, priority
        self.metadata = options.metadata(metadata)
        self.context = _context(context)
        self._owner: JobOwner | None = None
        self._record: JobRecord | None = None

    @classmethod
    def of_record(cls, record: JobRecord, owner: JobOwner) -> "ScheduledJob":
        """Return the handle of a job that the store holds."""
        job = cls.__new__(cls)
        job.id, job.name, job.schedule = record.id, record.name, record.schedule
        job.task, job.workflow, job.input, job.kwargs, job.context = None, None, NOTHING, {}, {}
        job.pattern, job.priority, job.metadata = ExecutionPattern.PARALLEL, None, {}
        job.bind(owner, record)
        return job

    def bind(self, owner: JobOwner, record: JobRecord) -> None:
        """Make this the handle of a job. Called by the orchestrator."""
        self._owner, self._record = owner, record

    @property
    def record(self) -> JobRecord:
        """What the store holds now; what it held last when the job was deleted.

        Raises:
            InvalidOption: It has not been scheduled.
        """
        self._record = self._known().read_job(self.id)
        return self._record

    @property
    def schedule_type(self) -> ScheduleType:
        """once, interval or cron."""
        return self.schedule.type

    @property
    def status(self) -> JobStatus:
        """ACTIVE, PAUSED or ENDED."""
        return self.record.status

    @property
    def next_run_at(self) -> datetime | None:
        """The next time, in UTC; None when it is paused or has ended."""
        return moment(self.record.next_run_at)

    @property
    def last_run_at(self) -> datetime | None:
        """The time that its newest run stands for, in UTC."""
        return moment(self.record.last_run_at)

    @property
    def runs_count(self) -> int:
        """How many runs its times have made."""
        return self.record.runs

    @property
    def missed(self) -> int:
        """How many of its times became no run."""
        return self.record.missed

    @property
    def error(self) -> str | None:
        """Why its last run could not begin, such as a task that cannot be found any more."""
        return self.record.error

    def runs(self, limit: int = 100) -> list[WorkflowRun]:
        """Return its runs, newest first."""
        return self._known().job_runs(self.id, limit)

    def next_run_times(self, n: int = 5) -> list[datetime]:
        """Return the next times in the job's time zone; none when it is paused or has ended."""
        zone = schedule.zone(self.schedule.timezone)
        times = self._known().job_times(self.record, options.at_least_one("n", n))
        return [datetime.fromtimestamp(each, zone) for each in times]

    def pause(self) -> "ScheduledJob":
        """Fire no more until ``resume``."""
        return self._changed(self._known().pause_job)

    def resume(self) -> "ScheduledJob":
        """Go on with the next time from now; those of the pause do not count as missed."""
        return self._changed(self._known().resume_job)

    def trigger(self) -> WorkflowRun:
        """Run it now, beside its schedule; also when it is paused or has ended."""
        return self._known().trigger_job(self.id)

    def delete(self) -> bool:
        """Delete the job; its runs stay. False when it was gone."""
        return self._known().delete_job(self.id)

    def backfill(self, start: datetime, end: datetime, *, max_parallel: int = 4) -> "ScheduledJob":
        """Create the runs of the times from ``start`` to ``end`` that have none, oldest first.

        Beats do it, a few at a time: at most ``max_parallel`` runs of the job are open at once. Returns the job that
        stands for this; it has ENDED when all runs have been created.
        """
        owner = self._known()
        record = owner.backfill_job(self.id, start, end, options.at_least_one("max_parallel", max_parallel))
        return ScheduledJob.of_record(record, owner)

    def __repr__(self) -> str:
        return f"<ScheduledJob {self.name!r} {self.id} {self.schedule.type.value}>"

    def _changed(self, change: Callable[[str], JobRecord]) -> "ScheduledJob":
        self._record = change(self.id)
        return self

    def _known(self) -> JobOwner:
        if self._owner is None:
            raise InvalidOption("job", self.name, "a job that was scheduled: orch.schedule(job)")
        return self._owner


def _task(
    task: object,
    given: object,
    kwargs: Mapping[str, object] | None,
    priority: int | None,
    metadata: Mapping[str, object] | None,
) -> Task:
    if not isinstance(task, Task):
        return Task(None, task, given, kwargs=kwargs, priority=priority, metadata=metadata)
    if given is not NOTHING or any(each is not None for each in (kwargs, priority, metadata)):
        raise InvalidOption("task", task, "a ready Task alone; put input and options on the Task")
    return task


def _name(workflow: object) -> str:
    if not isinstance(workflow, Workflow | WorkflowFunction):
        raise InvalidOption("workflow", workflow, "a Workflow or a function decorated with @workflow")
    return workflow.name


def _context(context: Mapping[str, object] | None) -> dict[str, object]:
    checked = dict(context or {})
    for key in checked:
        if not isinstance(key, str) or not key or key in RESERVED or set(key) & set("{}"):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidOption("context", key, f"names without braces, and not {' or '.join(RESERVED)}")
    return checked


__all__ = ["JobOptions", "JobOwner", "Schedule", "ScheduledJob"]
