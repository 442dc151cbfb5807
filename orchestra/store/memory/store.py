"""MemoryStore: the contract over dicts of this process."""

import json
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice, takewhile
from operator import itemgetter
from typing import cast

from orchestra.engine.join import predecessors
from orchestra.engine.outcome import Change
from orchestra.errors import StoreUnavailable
from orchestra.model.event import Event, Wanted
from orchestra.model.ids import MessageRef, StepRef
from orchestra.model.record import JobRecord, LogLine, Progress, RunRecord, StepRecord
from orchestra.model.status import TaskStatus
from orchestra.store import firing, steering, transitions
from orchestra.store.contract import (
    MOST_LEARNED,
    WINDOW,
    Backlog,
    Census,
    Claimed,
    ClaimRef,
    Created,
    Cursor,
    Dispatch,
    Fired,
    Firing,
    Lease,
    NewRun,
    Onward,
    Recorded,
    Refused,
    RunFilter,
    ToClaim,
    ToRecord,
)
from orchestra.store.effects import fill
from orchestra.store.entries import events_of
from orchestra.store.learning import took
from orchestra.store.memory.tables import Run, Tables
from orchestra.store.memory.transaction import MemoryTransaction
from orchestra.store.window import LiveWindow, steps_of

URL = "memory://"


class MemoryStore:
    """Runs, steps, results, joins and events in this process. The contract says what each method does.

    Args:
        window: Ready steps of one queue and priority that may be with the broker at a time; more for many live slots.
    """

    def __init__(self, *, window: int = WINDOW) -> None:
        self.url = URL
        self._window = LiveWindow(self.leases, window)
        self._tables = Tables()
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []
        self._closed = False

    @contextmanager
    def _transaction(self) -> Generator[MemoryTransaction]:
        with self._lock:
            self._check_open()
            tx = MemoryTransaction(self._tables)
            try:
                yield tx
            except BaseException:
                tx.roll_back()
                raise
        if tx.wrote_events:
            for listener in self._listeners:
                listener()

    @contextmanager
    def _reading(self) -> Generator[Tables]:
        with self._lock:
            self._check_open()
            yield self._tables

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable(self.url, "it was closed")

    # --- writing ------------------------------------------------------------------------------------------------

    def create_runs(self, runs: Sequence[NewRun], now: float) -> list[Created]:
        window = self._window.at(now, steps_of(runs))
        with self._transaction() as tx:
            return transitions.create_runs(tx, runs, window, now)

    def claim(self, message: MessageRef, worker: str, now: float) -> Claimed | Refused:
        with self._transaction() as tx:
            return transitions.claim(tx, message, worker, now)

    def claimed(self, message: MessageRef, worker: str) -> Claimed | None:
        with self._reading() as tables:
            step = tables.step(*message.step)
            if step not in tables.running.get(worker, {}) or step.generation != message.generation:
                return None
            return step.claimed()

    def announce(self, worker: str, started_before: float, now: float) -> int:
        with self._transaction() as tx:
            return transitions.announce(tx, worker, started_before, now)

    def reserve(self, run_id: str, steps: int, joins: int) -> tuple[int, int]:
        with self._transaction() as tx:
            return tx.reserve(run_id, steps, joins)

    def record(self, claim: ClaimRef, change: Change, now: float, onward: Onward | None = None) -> Recorded | None:
        if onward is not None:
            return cast("Recorded | None", self.together([ToRecord(claim, change, now)], onward)[0])
        window = self._window.at(now)
        with self._transaction() as tx:
            return transitions.record(tx, claim, change, window, now)

    def together(
        self, wanted: Sequence[ToClaim | ToRecord], onward: Onward | None = None
    ) -> list[Claimed | Refused | Recorded | None]:
        window = self._window.at(wanted[0].now)
        with self._transaction() as tx:
            return transitions.together(lambda: tx, wanted, window, onward)

    def vanish(self, claim: ClaimRef, reason: str, now: float) -> Recorded | None:
        window = self._window.at(now)
        with self._transaction() as tx:
            return transitions.vanish(tx, claim, reason, window, now)

    def cancel(self, run_id: str, n: int | None, now: float) -> Recorded | None:
        window = self._window.at(now)
        with self._transaction() as tx:
            return transitions.cancel(tx, run_id, n, window, now)

    def pause(self, run_id: str, now: float) -> Recorded | None:
        window = self._window.at(now)
        with self._transaction() as tx:
            return steering.pause(tx, run_id, window, now)

    def resume(self, run_id: str, now: float) -> Recorded | None:
        window = self._window.at(now)
        with self._transaction() as tx:
            return steering.resume(tx, run_id, window, now)

    def retry(self, run_id: str, now: float) -> Recorded | None:
        window = self._window.at(now)
        with self._transaction() as tx:
            return steering.retry(tx, run_id, window, now)

    def fork(self, run_id: str, new_id: str, n: int, now: float) -> Created | None:
        window = self._window.at(now)
        with self._transaction() as tx:
            return steering.fork(tx, run_id, new_id, n, window, now)

    def due(self, now: float) -> tuple[Sequence[Dispatch], float | None]:
        window = self._window.at(now)
        with self._transaction() as tx:
            dispatches = transitions.due(tx, window, now)
            for run_id, by_deadline in tx.overdue(now):
                dispatches += steering.end_overdue(tx, run_id, by_deadline, window, now)
            following = tx.tables.next_due()
            times = [None if following is None else following.due_at, tx.tables.next_timed()]
            return dispatches, min((at for at in times if at is not None), default=None)

    def refill(self, queues: Sequence[str], now: float) -> Sequence[Dispatch]:
        window = self._window.at(now)
        with self._transaction() as tx:
            return fill(tx, queues, window, now)

    def resend(self, queues: Sequence[str], unheard_since: float, limit: int, now: float) -> Sequence[Dispatch]:
        found: list[Dispatch] = []
        with self._transaction() as tx:
            for queue in queues:
                found += tx.resend(queue, unheard_since, limit - len(found), now)
        return found

    def emit(
        self,
        event_type: str,
        data: Mapping[str, object],
        now: float,
        *,
        worker: str | None = None,
        of: StepRef | None = None,
        single: bool = False,
    ) -> None:
        kept = json.loads(json.dumps(dict(data)))  # as the other stores keep it, and out of reach of its owner
        with self._transaction() as tx:
            tx.append(of and of.run_id, single, worker, [(event_type, [of.n] if of else (), kept)], now)

    # --- jobs ---------------------------------------------------------------------------------------------------

    def put_job(self, job: JobRecord) -> JobRecord | None:
        # As the other stores keep it, and out of reach of its owner.
        kept = replace(job, version=job.version + 1, payload=json.loads(json.dumps(dict(job.payload))))
        with self._transaction() as tx:
            return kept if tx.put_job(kept) else None

    def job(self, job_id: str) -> JobRecord | None:
        with self._reading() as tables:
            return tables.jobs.get(job_id)

    def jobs(self) -> list[JobRecord]:
        with self._reading() as tables:
            return sorted(tables.jobs.values(), key=lambda job: (job.created_at, job.id))

    def delete_job(self, job_id: str) -> bool:
        with self._reading() as tables:
            for each in [job for job in tables.jobs.values() if job.backfills == job_id]:
                del tables.jobs[each.id]
            return tables.jobs.pop(job_id, None) is not None

    def due_jobs(self, now: float, limit: int) -> tuple[list[JobRecord], float | None]:
        with self._reading() as tables:
            return tables.due_jobs(now, limit)

    def fire(self, firings: Sequence[Firing], now: float) -> list[Fired | None]:
        window = self._window.at(now)
        with self._transaction() as tx:
            return firing.fire(tx, firings, window, now)

    # --- notes --------------------------------------------------------------------------------------------------

    def save_checkpoint(self, claim: ClaimRef, key: str, value: str, now: float) -> bool:
        with self._transaction() as tx:
            step = tx.held(claim)
            if step is not None:
                step.saved[key] = value
            return step is not None

    def checkpoints(self, ref: StepRef) -> Mapping[str, str]:
        with self._reading() as tables:
            step = tables.step(*ref)
            return {} if step is None else dict(step.saved)

    def run_checkpoints(self, run_id: str, key: str | None = None) -> Mapping[int, Mapping[str, str]]:
        with self._reading() as tables:
            run = tables.runs.get(run_id)
            steps = [] if run is None else [each for each in run.steps.values() if each.saved]
            if key is not None:
                return {each.n: {key: each.saved[key]} for each in steps if key in each.saved}
            return {each.n: dict(each.saved) for each in steps}

    def tell(self, claim: ClaimRef, progress: Progress | None, lines: Sequence[LogLine], now: float) -> bool:
        with self._transaction() as tx:
            step = tx.held(claim)
            if step is not None:
                step.progress = progress or step.progress
                step.run.lines.extend(lines)
            return step is not None

    def progress(self, run_id: str) -> Mapping[int, Progress]:
        with self._reading() as tables:
            run = tables.runs.get(run_id)
            steps = () if run is None else run.steps.values()
            return {step.n: step.progress for step in steps if step.progress is not None}

    def logs(self, run_id: str, n: int | None, limit: int) -> Sequence[LogLine]:
        with self._reading() as tables:
            run = tables.runs.get(run_id)
            found = [] if run is None else [line for line in run.lines if n in (None, line.n)]
            return found[max(0, len(found) - limit) :]

    # --- subscribers --------------------------------------------------------------------------------------------

    def take_cursor(self, name: str, holder: str, start: int, now: float, until: float, instead_of: str = "") -> Cursor:
        with self._reading() as tables:
            cursor, held_until = tables.cursors.get(name, (Cursor(start, holder), 0.0))
            if cursor.holder in (holder, instead_of) or held_until <= now:
                cursor, held_until = Cursor(cursor.seq, holder), until
            tables.cursors[name] = cursor, held_until
            return cursor

    def move_cursor(self, name: str, holder: str, seq: int, until: float) -> bool:
        with self._reading() as tables:
            cursor, _until = tables.cursors.get(name, (None, 0.0))
            if cursor is None or cursor.holder != holder:
                return False
            tables.cursors[name] = Cursor(seq, holder), until
            return True

    def drop_cursor(self, name: str) -> bool:
        with self._reading() as tables:
            return tables.cursors.pop(name, None) is not None

    # --- workers ------------------------------------------------------------------------------------------------

    def note_body(self, seconds: float) -> None:
        self._window.note(seconds)

    def renew(self, lease: Lease) -> None:
        with self._reading() as tables:
            tables.leases[lease.incarnation] = lease

    def leases(self) -> list[Lease]:
        with self._reading() as tables:
            return list(tables.leases.values())

    def release_lease(self, incarnation: str, expires_at: float | None = None) -> bool:
        with self._reading() as tables:
            lease = tables.leases.get(incarnation)
            if lease is None or expires_at not in (None, lease.expires_at):
                return False
            del tables.leases[incarnation]
            return True

    def held(self, incarnation: str) -> list[ClaimRef]:
        with self._reading() as tables:
            return [step.claim_ref for step in tables.running.get(incarnation, {})]

    def orphans(self) -> list[ClaimRef]:
        with self._reading() as tables:
            dead = [held for worker, held in tables.running.items() if worker not in tables.leases]
            return [step.claim_ref for held in dead for step in held]

    # --- reading ------------------------------------------------------------------------------------------------

    def run(self, run_id: str) -> RunRecord | None:
        with self._reading() as tables:
            run = tables.runs.get(run_id)
            return None if run is None else run.record()

    def runs(self, where: RunFilter) -> list[RunRecord]:
        with self._reading() as tables:
            matching = (run for run in tables.runs_backwards() if _matches(run, where))
            return [run.record() for run in islice(matching, where.limit)]

    def step(self, ref: StepRef) -> StepRecord | None:
        with self._reading() as tables:
            step = tables.step(*ref)
            return None if step is None else step.record(with_output=True)

    def find_step(self, key: str) -> StepRecord | None:
        with self._reading() as tables:
            steps = tables.by_step_key.get(key)
            return steps[-1].record(with_output=True) if steps else None

    def steps(self, run_id: str, status: TaskStatus | None = None) -> list[StepRecord]:
        with self._reading() as tables:
            run = tables.runs.get(run_id)
            numbered = [] if run is None else sorted(run.steps.items())
            return [step.record(with_output=False) for _n, step in numbered if status in (None, step.status)]

    def counts(self, run_id: str) -> dict[TaskStatus, int]:
        with self._reading() as tables:
            run = tables.runs.get(run_id)
            return {} if run is None else dict(Counter(step.status for step in run.steps.values()))

    def outputs(self, run_id: str, numbers: Sequence[int]) -> dict[int, str]:
        with self._reading() as tables:
            return MemoryTransaction(tables).outputs(run_id, numbers)

    def result_template(self, run_id: str) -> object:
        with self._reading() as tables:
            run = tables.runs.get(run_id)
            return None if run is None else run.new.plan.result

    def depth(self) -> dict[str, int]:
        with self._reading() as tables:
            lengths = {
                name: sum(queue.lengths.values()) + sum(len(sent) for sent in queue.sent.values())
                for name, queue in tables.queues.items()
            }
            return {name: length for name, length in lengths.items() if length}

    def backlog(self) -> list[Backlog]:
        with self._reading() as tables:
            found: list[Backlog] = []
            for name, queue in sorted(tables.queues.items()):
                for priority in sorted({*queue.lengths, *queue.sent}):
                    sent = queue.sent.get(priority, {})
                    ready = queue.lengths.get(priority, 0) + len(sent)
                    since = min((step.sent_at for step in sent if step.sent_at is not None), default=None)
                    times = (step.ready_at for step in queue.ready(priority))
                    first = min((each for each in times if each is not None), default=None)
                    found += [Backlog(name, priority, ready, len(sent), since, first)] if ready else []
            return found

    def predecessors(self, run_id: str) -> dict[int, Sequence[int]]:
        with self._reading() as tables:
            run = tables.runs.get(run_id)
            numbered = [] if run is None else sorted(run.steps.items())
            return predecessors((n, step.row.waits_for, step.feeds) for n, step in numbered)

    def durations(self, name: str) -> Mapping[str, float]:
        with self._reading() as tables:
            run = tables.completed_last(name)
            steps = [] if run is None else [run.steps[n] for n in sorted(run.steps) if n < MOST_LEARNED]
            return took(
                (step.row.name, step.started_at, step.completed_at)
                for step in steps
                if step.status is TaskStatus.COMPLETED and step.parent is None
            )

    def open_queues(self) -> list[str]:
        with self._reading() as tables:
            unended = (run for run in tables.runs.values() if run.completed_at is None)
            return sorted({step.queue for run in unended for step in run.steps.values() if not step.status.ended})

    def last_event(self) -> int:
        with self._reading() as tables:
            return tables.last_seq

    def events(
        self,
        after: int,
        limit: int = 1000,
        *,
        run_id: str | None = None,
        newest: bool = False,
        wanted: Wanted | None = None,
    ) -> tuple[list[Event], int]:
        with self._reading() as tables:
            run = None if run_id is None else tables.runs.get(run_id)
            log = tables.events if run_id is None else [] if run is None else run.events
            first = bisect_right(log, after, key=itemgetter(0))
            rows = log[max(first, len(log) - limit) :] if newest else log[first : first + limit]
        return [each for row in rows for each in events_of(*row, wanted)], rows[-1][0] if rows else after

    # --- keeping and looking after ------------------------------------------------------------------------------

    def prune(self, ended_before: float, limit: int) -> int:
        with self._reading() as tables:
            ended = list(islice(_ended_before(tables, ended_before), limit))
            for run in ended:
                tables.forget_run(run)
            tables.forget_events(ended, ended_before)
            return len(ended)

    def prunable(self, ended_before: float) -> int:
        with self._reading() as tables:
            return sum(1 for _run in _ended_before(tables, ended_before))

    def census(self) -> Census:
        with self._reading() as tables:
            runs = tables.runs.values()
            steps = sum(len(run.steps) for run in runs)
            return Census(Counter(run.status for run in runs), steps, len(tables.events))

    # --- life ---------------------------------------------------------------------------------------------------

    def watch(self, listener: Callable[[], None]) -> Callable[[], None]:
        self._listeners = [*self._listeners, listener]

        def stop() -> None:
            self._listeners = [each for each in self._listeners if each is not listener]

        return stop

    def close(self) -> None:
        with self._lock:
            self._closed = True


def _ended_before(tables: Tables, time: float) -> Iterator[Run]:
    """Give the runs that ended before a time, oldest first. A run begins before it ends."""
    begun = takewhile(lambda run: run.created_at < time, tables.by_age)
    return (run for run in begun if run.completed_at is not None and run.completed_at < time)


def _matches(run: Run, where: RunFilter) -> bool:
    new = run.new
    return (
        where.status in (None, run.status)
        and where.name in (None, new.name)
        and where.job_id in (None, new.job_id)
        and where.has_error(run.error)
        and (where.since is None or run.created_at >= where.since)
        and all(key in new.metadata and new.metadata[key] == value for key, value in where.metadata.items())
    )
