"""Rows: between what the tables hold and the values of the contract."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from orchestra.engine.rows import StepRow
from orchestra.model.event import Event, Wanted
from orchestra.model.ids import MessageRef, StepRef
from orchestra.model.record import ErrorInfo, JobRecord, RunRecord, StepRecord
from orchestra.model.schedule import JobStatus, Schedule
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.store.contract import Backlog, Claimed, ClaimRef, Dispatch, Lease, NewRun
from orchestra.store.entries import events_of as entries_of
from orchestra.store.primitives import Counted, Hot
from orchestra.store.sql.statements.columns import JOB, MOVES, ROW
from orchestra.store.values import ready_at_once

Row = tuple[Any, ...]


JSON_COLUMNS = ("input", "retry", "metadata", "feeds", "chain", "whens", "fallback")
"""The columns of a StepRow that are JSON text."""


def encoded(value: object) -> str | None:
    """Return compact JSON text; None is null."""
    return None if value is None else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def loads(text: str | None) -> Any:
    """Return what JSON text holds; None stays None."""
    return None if text is None else json.loads(text)


def error_text(error: ErrorInfo | None) -> str | None:
    """Return the JSON text of an error."""
    if error is None:
        return None
    return json.dumps([error.type, error.message, error.traceback, list(error.names)])


def error_of(text: str | None) -> ErrorInfo | None:
    """Return the error that ``error_text`` wrote."""
    if text is None:
        return None
    kind, message, traceback, names = json.loads(text)
    return ErrorInfo(kind, message, traceback, tuple(names))


def dispatch_of(row: Row) -> Dispatch:
    """Return a Dispatch from the columns DISPATCH."""
    run_id, n, generation, task, name, queue, priority, timeout_s, chain, target = row
    ref = MessageRef(StepRef(run_id, n), generation)
    return Dispatch(ref, task, name, queue, priority, timeout_s, loads(chain) or (), target=target)


def picked_of(rows: list[Row]) -> tuple[list[Dispatch], bool]:
    """Return dispatches in their order from the columns PICKED, and whether there was room for more that waits."""
    # The order of what a statement returns is not that of its subquery.
    rows.sort(key=lambda row: (-row[-4], row[-3], row[0], row[1]))
    return [dispatch_of(row[:-4]) for row in rows], bool(rows) and bool(rows[0][-2]) and len(rows) < rows[0][-1]


def counted_of(status: str, completed_at: float | None, single: int, now: float | None) -> Counted:
    """Return what a run was told, from the columns COUNTED."""
    return Counted(WorkflowStatus(status) if completed_at is not None and completed_at == now else None, bool(single))


def hot_of(row: Row) -> Hot:
    """Return a Hot from the columns HOT."""
    n, key, name, queue, feeds, parent, is_map, attempts, crashes, retry, fallback, *rest = row
    return Hot(
        n, key, name, queue, loads(feeds) or (), parent, bool(is_map), attempts, crashes, loads(retry),
        loads(fallback), *rest,
    )  # fmt: skip


def step_row_of(row: Row) -> StepRow:
    """Return a StepRow from the columns ROW."""
    values: dict[str, Any] = dict(zip(ROW, row, strict=True))
    values.update({name: loads(values[name]) for name in JSON_COLUMNS})
    values.update(status=TaskStatus(values["status"]), is_map=bool(values["is_map"]))
    return StepRow(**values)


def columns_of(step: StepRow) -> dict[str, object]:
    """Return the columns ROW of a step that is created."""
    values: dict[str, object] = {name: getattr(step, name) for name in ROW}
    values.update({name: encoded(values[name]) for name in JSON_COLUMNS})
    values["is_map"] = int(step.is_map)
    return values


def claimed_of(message: MessageRef, row: Row) -> Claimed:
    """Return a claim, without its inputs, from the columns CLAIMED."""
    claims, attempts, crashes, created_at, sent_at, started_at = row[-6:]
    step = step_row_of(row[:-6])
    ready_at = created_at if ready_at_once(step, message.generation, attempts, crashes) else sent_at
    return Claimed(ClaimRef(message, claims), step, attempts, crashes, ready_at=ready_at, started_at=started_at)


def backlog_of(rows: Iterable[Row]) -> list[Backlog]:
    """Return what is ready: of each queue and priority there may be two rows, one of them of what was sent."""
    found: dict[tuple[str, int], Backlog] = {}
    for queue, priority, count, sent_since, ready_since in rows:
        known = found.get((queue, priority), Backlog(queue, priority, 0, 0, None, None))
        found[queue, priority] = Backlog(
            queue,
            priority,
            known.ready + count,
            known.sent + (0 if sent_since is None else count),
            known.sent_since if sent_since is None else sent_since,
            min((each for each in (known.ready_since, ready_since) if each is not None), default=None),
        )
    return [each for _place, each in sorted(found.items())]


def step_of(row: Row) -> StepRecord:
    """Return a StepRecord from the columns RECORD."""
    (run_id, n, key, name, target, status, priority, queue, data, claims, attempts, crashes, generation, output, error,
     worker, created_at, due_at, started_at, completed_at, parent) = row  # fmt: skip
    return StepRecord(
        StepRef(run_id, n), key, name, target, TaskStatus(status), priority, queue, loads(data) or {}, claims, attempts,
        crashes, generation, output, error_of(error), worker, created_at, due_at, started_at, completed_at, parent,
    )  # fmt: skip


def run_of(row: Row) -> RunRecord:
    """Return a RunRecord from the columns RUN."""
    (run_id, name, workflow_id, status, single, priority, data, key, error, job_id, scheduled_for, created_at,
     started_at, completed_at, deadline) = row  # fmt: skip
    return RunRecord(
        run_id, name, workflow_id, WorkflowStatus(status), bool(single), priority, loads(data) or {}, key, None, None,
        error_of(error), job_id, scheduled_for, created_at, started_at, completed_at, deadline,
    )  # fmt: skip


def run_row(run: NewRun, remaining: int, steps: int, joins: int, now: float) -> dict[str, object]:
    """Return the columns of a run that is created: it waits for ``remaining`` steps, and has used so many numbers."""
    return {
        "id": run.id,
        "name": run.name,
        "workflow_id": run.workflow_id,
        "status": WorkflowStatus.RUNNING,
        "single": int(run.single),
        "priority": run.priority,
        "metadata": encoded(dict(run.metadata) or None),
        "key": run.key,
        "fingerprint": run.fingerprint,
        "job_id": run.job_id,
        "scheduled_for": run.scheduled_for,
        "deadline": run.deadline,
        "expires_at": run.expires_at,
        "result": encoded(run.plan.result),
        "on_failure": run.plan.on_failure,
        "next_n": steps,
        "next_join": joins,
        "remaining": remaining,
        "created_at": now,
        "started_at": now,
    }


def job_of(row: Row) -> JobRecord:
    """Return a JobRecord from the columns JOB."""
    values: dict[str, Any] = dict(zip(JOB, row, strict=True))
    values.update(
        schedule=Schedule.from_json(loads(values["schedule"])),
        payload=loads(values["payload"]),
        status=JobStatus(values["status"]),
    )
    return JobRecord(**values)


def job_row(job: JobRecord) -> dict[str, Any]:
    """Return the columns JOB of a job."""
    values: dict[str, Any] = {name: getattr(job, name) for name in JOB}
    return {**values, "schedule": encoded(job.schedule.to_json()), "payload": encoded(dict(job.payload))}


def move_of(job: JobRecord) -> dict[str, Any]:
    """Return the parameters of a job's move."""
    return {name: getattr(job, name) for name in MOVES}


def lease_of(row: Row) -> Lease:
    """Return a Lease from the columns LEASE."""
    incarnation, worker, host, boot_id, pid, pid_started, queues, *rest = row
    return Lease(incarnation, worker, host, boot_id, pid, pid_started, loads(queues), *rest)


def events_of(row: Row, wanted: Wanted | None = None) -> list[Event]:
    """Return the events of one transaction that are wanted, from the columns EVENT."""
    seq, time, run_id, single, worker, entries = row
    return entries_of(seq, time, run_id, bool(single), worker, json.loads(entries), wanted)


def lease_row(lease: Lease) -> Mapping[str, object]:
    """Return the columns of a lease."""
    fields = {name: getattr(lease, name) for name in Lease.__slots__}
    return {**fields, "queues": json.dumps(list(lease.queues))}
