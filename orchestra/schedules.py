"""Schedules: the scheduled jobs that people hold, made from the store and served by it."""

from collections.abc import Sequence
from datetime import datetime

from orchestra.handles import Handles
from orchestra.lifetime import Lifetime
from orchestra.model.event import Event
from orchestra.model.job import ScheduledJob
from orchestra.model.record import JobRecord
from orchestra.model.task import WorkflowRun
from orchestra.runtime.jobs import Jobs, queues_of
from orchestra.store.contract import RunFilter
from orchestra.wiring import Parts


class Schedules:
    """Makes handles of jobs, and is the ``orchestra.model.job.JobOwner`` that they ask."""

    def __init__(self, parts: Parts, lifetime: Lifetime, handles: Handles) -> None:
        self._parts, self._lifetime, self._handles = parts, lifetime, handles
        self._jobs = Jobs(parts.cycle, parts.registry, parts.settings.queue)

    def add(self, job: ScheduledJob) -> ScheduledJob:
        """Store a job, or replace the one of its id, and make it the handle of that."""
        self._lifetime.check()
        record = self._jobs.add(job)
        job.bind(self, record)
        self._beat(record)
        return job

    def all(self) -> list[ScheduledJob]:
        """Return all jobs, oldest first."""
        self._lifetime.check()
        return [ScheduledJob.of_record(each, self) for each in self._jobs.all()]

    def get(self, job_id: str) -> ScheduledJob:
        """Return a job."""
        return ScheduledJob.of_record(self.read_job(job_id), self)

    def subject(self, event: Event) -> object:
        """Return what an event is about: its job, unless that was deleted since, or what else it is about."""
        job = self._lifetime.store.job(event.job_id) if event.job_id is not None else None
        return self._handles.subject(event) if job is None else ScheduledJob.of_record(job, self)

    def read_job(self, job_id: str) -> JobRecord:
        """Return the record of a job."""
        _open = self._lifetime.store
        return self._jobs.read(job_id)

    def pause_job(self, job_id: str) -> JobRecord:
        """Fire no more."""
        self._lifetime.check()
        return self._jobs.pause(job_id)

    def resume_job(self, job_id: str) -> JobRecord:
        """Fire again."""
        self._lifetime.check()
        record = self._jobs.resume(job_id)
        self._beat(record)
        return record

    def trigger_job(self, job_id: str) -> WorkflowRun:
        """Run a job now."""
        self._lifetime.check()
        self._beat(self._jobs.read(job_id))
        return WorkflowRun(self._jobs.trigger(job_id), self._handles)

    def delete_job(self, job_id: str) -> bool:
        """Delete a job."""
        self._lifetime.check()
        return self._jobs.delete(job_id)

    def backfill_job(self, job_id: str, start: datetime, end: datetime, max_parallel: int) -> JobRecord:
        """Create the runs that a job has missed."""
        self._lifetime.check()
        record = self._jobs.backfill(job_id, start, end, max_parallel)
        self._beat(record)
        return record

    def job_times(self, record: JobRecord, count: int) -> Sequence[float]:
        """Return the next times of a job."""
        return self._jobs.times(record, count)

    def job_runs(self, job_id: str, limit: int) -> list[WorkflowRun]:
        """Return the runs of a job, newest first."""
        found = self._lifetime.store.runs(RunFilter(job_id=job_id, limit=limit))
        return [WorkflowRun(each.id, self._handles, each) for each in found]

    def _beat(self, record: JobRecord) -> None:
        """An embedded orchestrator fires its jobs itself, and does their work."""
        local = self._parts.local
        if local is not None:
            local.serve(queues_of(record))
            local.start()
            local.wake_beat()
