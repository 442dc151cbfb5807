"""Jobs: from what a user scheduled to the record that beats read, and from that to the run of one time."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from orchestra.engine import blueprint, calendar
from orchestra.engine.plan import plan
from orchestra.errors import InvalidOption, InvalidSchedule, UnknownId
from orchestra.model import options, schedule, template
from orchestra.model.graph import Graph
from orchestra.model.ids import new_id
from orchestra.model.job import ScheduledJob
from orchestra.model.options import DEFAULT_PRIORITY
from orchestra.model.record import JobRecord
from orchestra.model.schedule import JobStatus, Misfire, Overlap, Schedule, ScheduleType
from orchestra.model.workflow import graph_of, single
from orchestra.runtime.cycle import Cycle
from orchestra.runtime.registry import GENERIC, Registry
from orchestra.store.contract import Firing, NewRun

STOCK = "celery.beat/"
"""What the ids of the records begin with that stand for entries of Celery's own ``beat_schedule``: no jobs of ours."""
NEVER = "never"
"""What ``{last_run_at}`` is in the first run of a job."""


class Jobs:
    """What producers do with jobs.

    Args:
        queue: The queue of tasks that name none.
    """

    def __init__(self, cycle: Cycle, registry: Registry, queue: str) -> None:
        self._cycle, self._store, self._registry, self._queue = cycle, cycle.store, registry, queue

    def add(self, job: ScheduledJob) -> JobRecord:
        """Store a job, or replace the one of the same id.

        Raises:
            DefinitionError: It cannot be run as given, or never would; nothing has been stored.
        """
        payload = self._payload(job)
        _refuse_empty(job.schedule)

        def change(old: JobRecord | None) -> JobRecord:
            now = self._cycle.clock()
            if old is not None and old.schedule == job.schedule:
                return replace(old, name=job.name, payload=payload, error=None)
            base = JobRecord(job.id, job.name, job.schedule, payload, round(now, 6))
            if old is not None:
                kept = {"last_run_at": old.last_run_at, "last_run_id": old.last_run_id, "version": old.version}
                base = replace(base, **kept, status=old.status)
            if old is not None and old.status is JobStatus.PAUSED:
                return base
            return started(replace(base, status=JobStatus.ACTIVE), now, expected=True)

        return self._change(job.id, change)

    def all(self) -> list[JobRecord]:
        """Return all jobs, oldest first."""
        return [each for each in self._store.jobs() if not each.id.startswith(STOCK)]

    def read(self, job_id: str) -> JobRecord:
        """Return a job.

        Raises:
            UnknownId: There is none.
        """
        record = self._store.job(job_id)
        if record is None:
            raise UnknownId("job", job_id)
        return record

    def pause(self, job_id: str) -> JobRecord:
        """Fire no more until it is resumed. A job that has ended stays so."""

        def change(old: JobRecord) -> JobRecord:
            if old.status is not JobStatus.ACTIVE:
                return old
            return replace(old, status=JobStatus.PAUSED, next_run_at=None, due_at=None)

        return self._change_known(job_id, change)

    def resume(self, job_id: str) -> JobRecord:
        """Go on from now. A job that has ended stays so."""

        def change(old: JobRecord) -> JobRecord:
            if old.status is not JobStatus.PAUSED:
                return old
            return started(replace(old, status=JobStatus.ACTIVE, error=None), self._cycle.clock())

        return self._change_known(job_id, change)

    def delete(self, job_id: str) -> bool:
        """Delete a job; its runs stay."""
        return self._store.delete_job(job_id)

    def trigger(self, job_id: str) -> str:
        """Run a job now, beside its schedule; returns the id of the run."""
        at = 0.0
        while True:
            record, now = self.read(job_id), self._cycle.clock()
            at = round(max(now, at + 1e-6), 6)  # a time that has a run gets no second one
            run = run_of(record, at, record.last_run_at)
            firing = Firing(record, [run], record.next_run_at, record.due_at, by_hand=True)
            (fired,) = self._store.fire([firing], now)
            if fired is not None:
                self._cycle.send(fired.dispatches)
                if fired.run_ids:
                    return fired.run_ids[0]

    def backfill(self, job_id: str, start: datetime, end: datetime, max_parallel: int) -> JobRecord:
        """Make the job that creates the missed runs of another one."""
        record, now = self.read(job_id), self._cycle.clock()
        timing = record.schedule
        if timing.type is ScheduleType.ONCE or record.backfills is not None:
            raise InvalidOption("backfill", record.name, "a job with an interval or a cron expression")
        first = schedule.instant("start", start, timing.timezone)
        last = schedule.instant("end", end, timing.timezone)
        if timing.type is ScheduleType.INTERVAL:
            first = calendar.aligned(timing, first, record.created_at)
        past = replace(
            timing, starts_at=first, ends_at=min(last, now), misfire=Misfire.ALL, overlap=Overlap.ALLOW, jitter_s=0.0,
            max_runs=None, most_open=max_parallel,
        )  # fmt: skip
        at = calendar.following(past, first - 1e-6, record.created_at)
        if at is None:
            raise InvalidOption("backfill", [str(start), str(end)], "a span of the past with times of the job in it")
        name = f"{record.name} (backfill)"[: options.LONGEST_NAME]
        made = replace(
            record, id=f"{record.id}/{new_id()}", name=name, schedule=past, status=JobStatus.ACTIVE, next_run_at=at,
            due_at=at, last_run_at=None, last_run_id=None, runs=0, missed=0, error=None, backfills=record.id, version=0,
        )  # fmt: skip
        kept = self._store.put_job(made)
        assert kept is not None, made.id
        return kept

    def times(self, record: JobRecord, count: int) -> Sequence[float]:
        """Return the next times of a job."""
        if record.status is not JobStatus.ACTIVE or record.next_run_at is None:
            return []
        if record.schedule.max_runs is not None:
            count = min(count, record.schedule.max_runs - record.runs)
        return calendar.upcoming(record.schedule, record.next_run_at - 1e-6, record.created_at, count)

    def _change(self, job_id: str, change: Callable[[JobRecord | None], JobRecord]) -> JobRecord:
        """Change a job as it is now, again when somebody else changed it meanwhile: it may fire at any moment."""
        while True:
            old = self._store.job(job_id)
            new = change(old)
            kept = new if new is old else self._store.put_job(new)
            if kept is not None:
                return kept

    def _change_known(self, job_id: str, change: Callable[[JobRecord], JobRecord]) -> JobRecord:
        return self._change(job_id, lambda old: change(old if old is not None else self.read(job_id)))

    def _payload(self, job: ScheduledJob) -> dict[str, object]:
        graph = self._graph(job)
        default = DEFAULT_PRIORITY if job.priority is None else options.priority(job.priority)
        compiled = plan(graph, self._registry.bind, priority=default, queue=self._queue)
        data = {key: each for key, each in job.context.items() if not callable(each)}
        calls = {key: self._path(key, each) for key, each in job.context.items() if callable(each)}
        return {
            "plan": blueprint.to_json(compiled),
            "name": graph.name,
            "workflow_id": graph.id,
            "single": job.task is not None,
            "priority": compiled.steps[0].priority if job.task is not None else default,
            "metadata": job.task.metadata if job.task is not None else job.metadata,
            "context": template.plain(data, path="context"),
            "calls": calls,
        }

    def _graph(self, job: ScheduledJob) -> Graph:
        if job.task is not None:
            return single(job.task)
        assert job.workflow is not None, job
        return graph_of(job.workflow, job.input, job.kwargs, job.pattern)

    def _path(self, key: str, function: object) -> str:
        target = self._registry.bind(function)
        if target.task != GENERIC:
            raise InvalidOption(f"context[{key!r}]", function, "data or a plain function without arguments")
        return target.path


def started(record: JobRecord, now: float, *, expected: bool = False) -> JobRecord:
    """Return a job that waits for its next time from now on; one that has none has ended.

    Raises:
        InvalidOption: There is none, although one was ``expected``.
    """
    # The one time of a job counts also when it has passed: misfire says what then.
    after = float("-inf") if record.schedule.type is ScheduleType.ONCE else now
    at = calendar.following(record.schedule, after, record.created_at)
    if at is None and expected:
        raise InvalidOption("ends_at", record.schedule.ends_at, "a time after the first firing")
    due_at = None if at is None else calendar.due_at(record.schedule, at, record.id)
    return replace(record, status=JobStatus.ENDED if at is None else record.status, next_run_at=at, due_at=due_at)


def run_of(
    record: JobRecord, at: float, last_run_at: float | None, durations: Mapping[str, float] | None = None
) -> NewRun:
    """Return the run of a job for one time; ``durations`` are seconds that its steps have taken, by name."""
    payload: Mapping[str, Any] = record.payload
    zone = record.schedule.timezone
    known = {
        **payload["context"],
        "scheduled_for": _shown(at, zone),
        "last_run_at": NEVER if last_run_at is None else _shown(last_run_at, zone),
    }
    run_id = new_id()
    compiled = blueprint.filled(blueprint.from_json(payload["plan"], durations), known, payload["calls"])
    if payload["single"]:
        # A task that runs alone has the id of its run.
        compiled = replace(compiled, steps=[replace(compiled.steps[0], key=run_id)])
    return NewRun(
        id=run_id,
        name=payload["name"],
        workflow_id=run_id if payload["single"] else payload["workflow_id"],
        plan=compiled,
        single=payload["single"],
        priority=payload["priority"],
        metadata=payload["metadata"],
        job_id=record.backfills or record.id,
        scheduled_for=at,
    )


def queues_of(record: JobRecord) -> Iterable[str]:
    """Return the queues that a job's runs go to."""
    payload: Mapping[str, Any] = record.payload
    return {step["queue"] for step in payload["plan"]["steps"]}


def _shown(at: float, zone: str) -> str:
    return datetime.fromtimestamp(at, schedule.zone(zone)).isoformat()


def _refuse_empty(timing: Schedule) -> None:
    if calendar.never_fires(timing):
        hint = "use a day that comes, or L for the last of a month"
        raise InvalidSchedule("cron", timing.cron, None, "no day of the calendar fits it", hint)


__all__ = ["Jobs", "queues_of", "run_of", "started"]
