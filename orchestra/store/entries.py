"""Entries: the events of one transaction as stores keep them, and as readers of the log see them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from orchestra.model.event import Event, Wanted

Entry = tuple[str, Sequence[int], Mapping[str, object]]
"""An event as it is written: type, numbers of the steps it is about, data."""


def started_entry(n: int, name: str, attempts: int, claims: int, worker: str, at: float) -> Entry:
    """Return the event of a start. Its time is that of the claim, not that of the transaction that writes it."""
    return "task.started", [n], {"name": name, "attempt": attempts, "claim": claims, "worker": worker, "at": at}


def completed_entry(n: int, name: str, attempts: int, started_at: float | None, now: float) -> Entry:
    """Return the event of a completion."""
    took = {} if started_at is None else {"duration_s": round(now - started_at, 6)}
    return "task.completed", [n], {"name": name, "attempt": attempts, **took}


def events_of(
    seq: int,
    time: float,
    run_id: str | None,
    single: bool,
    worker: str | None,
    entries: Sequence[Entry],
    wanted: Wanted | None = None,
) -> list[Event]:
    """Return the events of one transaction: one for each step that an entry is about.

    ``single`` says that the first step of the run is the task that was submitted alone, whose id is that of the run.
    """
    at = datetime.fromtimestamp(time, UTC)
    found: list[Event] = []
    place = 0
    for kind, numbers, written in entries:
        if wanted is not None and not wanted(kind):
            place += len(numbers) or 1
            continue
        data, its_time, its_worker = dict(written), at, worker
        job_id = str(data.pop("job_id")) if kind.startswith("job.") else None
        if kind == "task.started":
            # A start may be written with the end of what it started; it says itself when it was, and where.
            its_time = datetime.fromtimestamp(float(str(data.pop("at"))), UTC)
            its_worker = str(data.pop("worker"))
        for n in numbers or [None]:
            task_id = None if n is None else run_id if single and n == 0 else f"{run_id}.{n}"
            found.append(Event(f"{seq}-{place}", kind, its_time, run_id, task_id, job_id, its_worker, data))
            place += 1
    return found
