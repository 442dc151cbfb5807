"""Jobs in Redis: the part of the store that keeps and fires them. ``lua/jobs.lua`` says what stands where."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from orchestra.model.record import JobRecord
from orchestra.model.schedule import JobStatus, Schedule
from orchestra.store.firing import BACKFILL_POLL_S, OVERLAP, missed, most_open
from orchestra.store.jobs import Fired, Firing
from orchestra.store.redis.connection import Connection
from orchestra.store.redis.creation import creation
from orchestra.store.redis.rows import dispatches_of, encoded, text_of
from orchestra.store.window import LiveWindow

_PAGE = 500


class RedisJobs(ABC):
    """What the contract says of jobs, for a store that has a connection."""

    _connection: Connection
    _window: LiveWindow

    @abstractmethod
    def _tell(self) -> None: ...

    def put_job(self, job: JobRecord) -> JobRecord | None:
        made = [job.schedule.to_json(), dict(job.payload), job.created_at, job.backfills]
        names = [job.id, job.version, self._connection.token(), text_of(job.created_at), job.backfills or "", job.name]
        times = [_text(each) for each in (job.next_run_at, job.due_at, job.last_run_at)]
        at = [job.status.value, *times, job.last_run_id or "", job.runs, job.missed]
        kept: int = self._connection.run("put_job", *names, encoded(made), job.error or "", *at)
        return replace(job, version=job.version + 1) if kept else None

    def job(self, job_id: str) -> JobRecord | None:
        found = _jobs_of(self._connection.run("read_jobs", job_id))
        return found[0] if found else None

    def jobs(self) -> list[JobRecord]:
        ids = self._connection.command("ZRANGE", f"{self._connection.key}jobs", 0, -1)
        pages = (ids[at : at + _PAGE] for at in range(0, len(ids), _PAGE))
        return [job for page in pages for job in _jobs_of(self._connection.run("read_jobs", *page))]

    def delete_job(self, job_id: str) -> bool:
        return self._connection.run("delete_job", job_id, self._connection.token()) == 1

    def due_jobs(self, now: float, limit: int) -> tuple[list[JobRecord], float | None]:
        next_due, found = self._connection.run("due_jobs", text_of(now), limit)
        return _jobs_of(found), float(next_due) if next_due else None

    def fire(self, firings: Sequence[Firing], now: float) -> list[Fired | None]:
        token = self._connection.token()
        arguments: list[object] = [text_of(now), self._window.at(now).text, token, len(firings)]
        in_order = sorted(enumerate(firings), key=lambda each: each[1].job.id)  # as in ``store.firing``
        for at, firing in in_order:
            arguments += _head(firing, now)
            for n, run in enumerate(firing.runs):
                arguments += creation(run, now).sent(self._connection.run, f"{token}.{at}.{n}")
        answers, found = self._connection.run("fire", *arguments)
        if any(answer is not None for answer in answers):
            self._tell()
        dispatches = dispatches_of(found)
        fired: dict[int, Fired | None] = {}
        for (at, _firing), run_ids in zip(in_order, answers, strict=True):
            # Which job a dispatch belongs to does not matter: they are published together.
            fired[at] = None if run_ids is None else Fired(run_ids, dispatches)
            dispatches = dispatches if run_ids is None else []
        return [fired[at] for at in range(len(firings))]


def _head(firing: Firing, now: float) -> list[object]:
    """Return a firing, without its runs, as the function ``fire`` takes it."""
    job, room = firing.job, most_open(firing)
    event = missed(firing.job, firing.missed, firing.missed_count, firing.reason) if firing.missed_count else None
    return [
        job.id,
        job.version,
        job.backfills or job.id,
        "" if room is None else room,
        "" if job.schedule.most_open is None else text_of(now + BACKFILL_POLL_S),
        int(firing.by_hand),
        _text(firing.next_run_at),
        _text(firing.due_at),
        firing.missed_count,
        "" if event is None else encoded([event]),
        encoded({"job_id": job.id, "name": job.name, "reason": OVERLAP})[1:-1],
        "" if job.schedule.max_runs is None else job.schedule.max_runs,
        firing.error or "",
        len(firing.runs),
    ]


def _jobs_of(found: Sequence[str]) -> list[JobRecord]:
    """Return the jobs that a function answered with."""
    return [_job_of(*found[at : at + 5]) for at in range(0, len(found), 5)]


def _job_of(job_id: str, name: str, made: str, at: str, error: str) -> JobRecord:
    schedule, payload, created_at, backfills = json.loads(made)
    status, version, next_run_at, due_at, last_run_at, last_run_id, runs, missed_count = json.loads(at)
    return JobRecord(
        job_id, name, Schedule.from_json(schedule), payload, created_at, JobStatus(status), _time(next_run_at),
        _time(due_at), _time(last_run_at), last_run_id or None, runs, missed_count, error or None, backfills, version,
    )  # fmt: skip


def _text(at: float | None) -> str:
    return "" if at is None else text_of(at)


def _time(text: Any) -> float | None:
    return None if text is False else float(text)
