"""SqlStore: the contract over a SQL database."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

from orchestra.engine.join import predecessors
from orchestra.engine.outcome import Change, Completed
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
from orchestra.store.learning import took
from orchestra.store.sql import census, control, cursors, log, notes, results, retention, within
from orchestra.store.sql import statements as sql
from orchestra.store.sql.batch import Batch
from orchestra.store.sql.database import Row, Transaction
from orchestra.store.sql.opening import open_database
from orchestra.store.sql.queries import runs_where
from orchestra.store.sql.rows import (
    backlog_of,
    claimed_of,
    dispatch_of,
    events_of,
    job_of,
    lease_of,
    lease_row,
    loads,
    run_of,
    step_of,
)
from orchestra.store.sql.transaction import SqlTransaction
from orchestra.store.sql.whole import Whole
from orchestra.store.window import LiveWindow, steps_of

T = TypeVar("T")


class SqlStore:
    """Runs, steps, results, joins and events in a SQL database. The contract says what each method does.

    Args:
        url: ``sqlite://`` (in memory), ``sqlite:///path`` or ``postgresql://user@host/database``; the latter keeps its
            tables in the schema ``orchestra``, or the one given as ``?schema=name``.
        window: Ready steps of one queue and priority that may be with the broker at a time; more for many live slots.
        result_limit: Characters of JSON text up to which an output stays in the row of its step. What is longer is
            compressed and kept in a table of its own.

    Raises:
        SettingsError: The URL names no store of this kind, or its schema is of another version.
        StoreUnavailable: It cannot be opened.
    """

    def __init__(self, url: str, *, window: int = WINDOW, result_limit: int = results.LIMIT) -> None:
        self._database = open_database(url)
        self.url = self._database.url
        self._window = LiveWindow(self.leases, window)
        self._result_limit = result_limit
        self._whole = Whole(self._database, result_limit)
        self._listeners: list[Callable[[], None]] = []

    def _write(self, change: Callable[[SqlTransaction], T], output: str | None = None) -> T:
        """Make a change as one transaction; it may be tried several times. Listeners hear of its events.

        An output that it will write is compressed before the transaction begins, so that nobody waits for that.
        """
        packing = results.Packing(self._result_limit)
        packing.body(output)

        def block(inner: Transaction) -> tuple[T, bool]:
            tx = SqlTransaction(inner, packing)
            result = change(tx)
            tx.flush()
            return result, tx.wrote_events

        return self._told(self._database.write(block))

    def _told(self, result_and_news: tuple[T, bool]) -> T:
        result, news = result_and_news
        if news:
            self._tell()
        return result

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()

    # --- writing ------------------------------------------------------------------------------------------------

    def create_runs(self, runs: Sequence[NewRun], now: float) -> list[Created]:
        window = self._window.at(now, steps_of(runs))
        whole = self._whole.create(runs[0], window, now) if len(runs) == 1 else None
        if whole is not None:
            self._tell()
            return [whole]
        return self._write(lambda tx: transitions.create_runs(tx, runs, window, now))

    def create_within(self, connection: Any, run: NewRun, now: float, then: Callable[[Created], object]) -> Created:
        """Create a run in a transaction of the caller's own, and call ``then`` once that has been committed.

        Raises:
            InvalidOption: The connection is none of SQLAlchemy's, or leads to another database.
            KeyConflict: See ``create_runs``.
        """
        window = self._window.at(now, steps_of([run]))

        def block(inner: Transaction) -> Created:
            tx = SqlTransaction(inner, results.Packing(self._result_limit))
            return transitions.create_runs(tx, [run], window, now)[0]

        def committed() -> None:
            self._tell()
            then(created)

        created = within.write(self._database, connection, block)
        within.after_commit(self._database, connection, lambda: self.run(created.run_id) is not None, committed)
        return created

    def claim(self, message: MessageRef, worker: str, now: float) -> Claimed | Refused:
        attempts = itertools.count()

        def block(inner: Transaction) -> Claimed | Refused:
            tx = SqlTransaction(inner, results.Packing(), again=next(attempts) > 0)
            return transitions.claim(tx, message, worker, now)

        claimed = self._database.singly(block)  # what it reads after the claim does not change any more
        if isinstance(claimed, Claimed):
            self._whole.hold(claimed, worker, now)
        return claimed

    def claimed(self, message: MessageRef, worker: str) -> Claimed | None:
        (run_id, n), generation = message
        row = self._database.read(
            lambda tx: tx.one(sql.claims.HELD_CLAIM, run_id=run_id, n=n, generation=generation, worker=worker)
        )
        return None if row is None else claimed_of(message, row)

    def announce(self, worker: str, started_before: float, now: float) -> int:
        return self._write(lambda tx: transitions.announce(tx, worker, started_before, now))

    def reserve(self, run_id: str, steps: int, joins: int) -> tuple[int, int]:
        return self._write(lambda tx: tx.reserve(run_id, steps, joins))

    def record(self, claim: ClaimRef, change: Change, now: float, onward: Onward | None = None) -> Recorded | None:
        window = self._window.at(now)
        if isinstance(change, Completed):
            whole = self._whole.complete(claim, change, window, now, onward)
            if whole is not None:
                self._tell()
                return whole
            if onward is not None:
                return cast("Recorded | None", self.together([ToRecord(claim, change, now)], onward)[0])
        output = change.output if isinstance(change, Completed) else None
        return self._write(lambda tx: transitions.record(tx, claim, change, window, now), output)

    def together(
        self, wanted: Sequence[ToClaim | ToRecord], onward: Onward | None = None
    ) -> list[Claimed | Refused | Recorded | None]:
        window = self._window.at(wanted[0].now)
        packing = results.Packing(self._result_limit)
        for each in wanted:
            if isinstance(each, ToRecord) and isinstance(each.change, Completed):
                packing.body(each.change.output)

        def block(inner: Transaction) -> tuple[list[Claimed | Refused | Recorded | None], bool]:
            if inner.combines and len(wanted) > 1:  # statements for many cost more than those for one
                batch = Batch(inner, packing, window, onward)
                return batch.make(wanted), batch.wrote_events
            made: list[SqlTransaction] = []

            def tx() -> SqlTransaction:
                for each in made[-1:]:
                    each.flush()
                made.append(SqlTransaction(inner, packing))
                return made[-1]

            answers = transitions.together(tx, wanted, window, onward)
            made[-1].flush()
            return answers, any(each.wrote_events for each in made)

        answers = self._told(self._database.write(block))
        self._whole.hold_all(wanted, answers, onward)
        return answers

    def vanish(self, claim: ClaimRef, reason: str, now: float) -> Recorded | None:
        window = self._window.at(now)
        return self._write(lambda tx: transitions.vanish(tx, claim, reason, window, now))

    def cancel(self, run_id: str, n: int | None, now: float) -> Recorded | None:
        window = self._window.at(now)
        return self._write(lambda tx: transitions.cancel(tx, run_id, n, window, now))

    def pause(self, run_id: str, now: float) -> Recorded | None:
        window = self._window.at(now)
        return self._write(lambda tx: steering.pause(tx, run_id, window, now))

    def resume(self, run_id: str, now: float) -> Recorded | None:
        window = self._window.at(now)
        return self._write(lambda tx: steering.resume(tx, run_id, window, now))

    def retry(self, run_id: str, now: float) -> Recorded | None:
        window = self._window.at(now)
        return self._write(lambda tx: steering.retry(tx, run_id, window, now))

    def fork(self, run_id: str, new_id: str, n: int, now: float) -> Created | None:
        window = self._window.at(now)
        return self._write(lambda tx: steering.fork(tx, run_id, new_id, n, window, now))

    def due(self, now: float) -> tuple[Sequence[Dispatch], float | None]:
        window = self._window.at(now)
        next_due, next_timed = self._database.read(lambda tx: (tx.value(sql.window.NEXT_DUE), control.next_timed(tx)))
        found: list[Dispatch] = []
        if next_due is not None and next_due <= now:
            found, next_due = self._write(
                lambda tx: (transitions.due(tx, window, now), tx.tx.value(sql.window.NEXT_DUE))
            )
        if next_timed is not None and next_timed <= now:
            for run_id, by_deadline in self._write(lambda tx: tx.overdue(now)):

                def end(tx: SqlTransaction, run_id: str = run_id, by_deadline: bool = by_deadline) -> list[Dispatch]:
                    return steering.end_overdue(tx, run_id, by_deadline, window, now)

                found = [*found, *self._write(end)]
            next_timed = self._database.read(control.next_timed)
        return found, min((at for at in (next_due, next_timed) if at is not None), default=None)

    def refill(self, queues: Sequence[str], now: float) -> Sequence[Dispatch]:
        window = self._window.at(now)
        return self._write(lambda tx: fill(tx, queues, window, now))

    def resend(self, queues: Sequence[str], unheard_since: float, limit: int, now: float) -> Sequence[Dispatch]:
        def take(tx: SqlTransaction) -> list[Dispatch]:
            found: list[Dispatch] = []
            for queue in queues:
                room = limit - len(found)
                if room > 0:
                    rows = tx.tx.all(sql.window.RESEND, queue=queue, before=unheard_since, room=room, now=now)
                    found += [dispatch_of(row) for row in rows]
            return found

        return self._write(take)

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
        entry = (event_type, [of.n] if of else (), data)
        self._write(lambda tx: tx.append(of and of.run_id, single, worker, [entry], now))

    # --- jobs ---------------------------------------------------------------------------------------------------

    def put_job(self, job: JobRecord) -> JobRecord | None:
        return replace(job, version=job.version + 1) if self._write(lambda tx: tx.put_job(job)) else None

    def job(self, job_id: str) -> JobRecord | None:
        row = self._database.read(lambda tx: tx.one(sql.jobs.GET_JOB, id=job_id))
        return None if row is None else job_of(row)

    def jobs(self) -> list[JobRecord]:
        return [job_of(row) for row in self._database.read(lambda tx: tx.all(sql.jobs.JOBS))]

    def delete_job(self, job_id: str) -> bool:
        def block(tx: Transaction) -> bool:
            tx.run(sql.jobs.DROP_BACKFILLS, id=job_id)
            return tx.one(sql.jobs.DROP_JOB, id=job_id) is not None

        return self._database.write(block)

    def due_jobs(self, now: float, limit: int) -> tuple[list[JobRecord], float | None]:
        next_due: float | None = self._database.read(lambda tx: tx.value(sql.jobs.NEXT_JOB))
        if next_due is None or next_due > now:
            return [], next_due
        rows = self._database.read(lambda tx: tx.all(sql.jobs.DUE_JOBS, now=now, limit=limit))
        return [job_of(row) for row in rows], next_due

    def fire(self, firings: Sequence[Firing], now: float) -> list[Fired | None]:
        window = self._window.at(now)
        return self._write(lambda tx: firing.fire(tx, firings, window, now))

    # --- notes --------------------------------------------------------------------------------------------------

    def save_checkpoint(self, claim: ClaimRef, key: str, value: str, now: float) -> bool:
        return notes.save_checkpoint(self._database, claim, key, value)

    def checkpoints(self, ref: StepRef) -> Mapping[str, str]:
        return notes.read_checkpoints(self._database, ref)

    def run_checkpoints(self, run_id: str, key: str | None = None) -> Mapping[int, Mapping[str, str]]:
        return notes.read_run_checkpoints(self._database, run_id, key)

    def tell(self, claim: ClaimRef, progress: Progress | None, lines: Sequence[LogLine], now: float) -> bool:
        return notes.tell(self._database, claim, progress, lines)

    def progress(self, run_id: str) -> Mapping[int, Progress]:
        return notes.read_progress(self._database, run_id)

    def logs(self, run_id: str, n: int | None, limit: int) -> Sequence[LogLine]:
        return notes.read_logs(self._database, run_id, n, limit)

    # --- subscribers --------------------------------------------------------------------------------------------

    def take_cursor(self, name: str, holder: str, start: int, now: float, until: float, instead_of: str = "") -> Cursor:
        return cursors.take(self._database, name, holder, start, now, until, instead_of)

    def move_cursor(self, name: str, holder: str, seq: int, until: float) -> bool:
        return cursors.move(self._database, name, holder, seq, until)

    def drop_cursor(self, name: str) -> bool:
        return cursors.drop(self._database, name)

    # --- workers ------------------------------------------------------------------------------------------------

    def note_body(self, seconds: float) -> None:
        self._window.note(seconds)

    def renew(self, lease: Lease) -> None:
        def block(tx: Transaction) -> None:
            row = lease_row(lease)
            renewed = {name: row[name] for name in ("incarnation", "expires_at", "queues", "slots")}
            if tx.one(sql.leases.RENEW, **renewed) is None:
                tx.run(sql.leases.ADD_LEASE, **row)

        self._database.write(block)

    def leases(self) -> list[Lease]:
        return self._database.read(lambda tx: [lease_of(row) for row in tx.all(sql.leases.LEASES)])

    def release_lease(self, incarnation: str, expires_at: float | None = None) -> bool:
        if expires_at is None:
            return self._database.write(lambda tx: tx.one(sql.leases.DROP_LEASE, incarnation=incarnation) is not None)
        seen = {"incarnation": incarnation, "expires_at": expires_at}
        return self._database.write(lambda tx: tx.one(sql.leases.DROP_LEASE_AS_SEEN, **seen) is not None)

    def held(self, incarnation: str) -> list[ClaimRef]:
        return self._database.read(lambda tx: [_claim_ref(*row) for row in tx.all(sql.claims.HELD, worker=incarnation)])

    def orphans(self) -> list[ClaimRef]:
        return self._database.read(lambda tx: [_claim_ref(*row) for row in tx.all(sql.claims.ORPHANS)])

    # --- reading ------------------------------------------------------------------------------------------------

    def run(self, run_id: str) -> RunRecord | None:
        row = self._database.read(lambda tx: tx.one(sql.runs.GET_RUN, run_id=run_id))
        return None if row is None else run_of(row)

    def runs(self, where: RunFilter) -> list[RunRecord]:
        return self._database.read(lambda tx: [run_of(row) for row in runs_where(tx, where)])

    def step(self, ref: StepRef) -> StepRecord | None:
        return self._database.read(lambda tx: _whole_step(tx, tx.one(sql.steps.GET_STEP, run_id=ref.run_id, n=ref.n)))

    def find_step(self, key: str) -> StepRecord | None:
        return self._database.read(lambda tx: _whole_step(tx, tx.one(sql.steps.FIND_STEP, key=key)))

    def steps(self, run_id: str, status: TaskStatus | None = None) -> list[StepRecord]:
        def block(tx: Transaction) -> list[Row]:
            if status is None:
                return tx.all(sql.steps.STEPS, run_id=run_id)
            return tx.all(sql.steps.STEPS_IN, run_id=run_id, status=status)

        return [step_of(row) for row in self._database.read(block)]

    def counts(self, run_id: str) -> dict[TaskStatus, int]:
        return self._database.read(
            lambda tx: {TaskStatus(status): count for status, count in tx.all(sql.steps.COUNTS, run_id=run_id)}
        )

    def outputs(self, run_id: str, numbers: Sequence[int]) -> dict[int, str]:
        return self._database.read(lambda tx: SqlTransaction(tx, results.Packing()).outputs(run_id, numbers))

    def result_template(self, run_id: str) -> object:
        return self._database.read(lambda tx: loads(tx.value(sql.runs.GET_RESULT, run_id=run_id)))

    def depth(self) -> dict[str, int]:
        counted: dict[str, int] = {}
        for queue, count in self._database.read(lambda tx: tx.all(sql.window.DEPTH)):
            counted[queue] = counted.get(queue, 0) + count
        return counted

    def backlog(self) -> list[Backlog]:
        return backlog_of(self._database.read(lambda tx: tx.all(sql.window.BACKLOG)))

    def predecessors(self, run_id: str) -> dict[int, Sequence[int]]:
        rows = self._database.read(lambda tx: tx.all(sql.steps.EDGES, run_id=run_id))
        return predecessors((n, waits_for, loads(feeds)) for n, waits_for, feeds in rows)

    def durations(self, name: str) -> Mapping[str, float]:
        rows = self._database.read(lambda tx: tx.all(sql.steps.DURATIONS, name=name, most=MOST_LEARNED))
        return took((name, started_at, completed_at) for name, started_at, completed_at in rows)

    def open_queues(self) -> list[str]:
        return self._database.read(lambda tx: [queue for (queue,) in tx.all(sql.steps.OPEN_QUEUES)])

    def last_event(self) -> int:
        return self._database.read(lambda tx: log.end(tx))

    def events(
        self,
        after: int,
        limit: int = 1000,
        *,
        run_id: str | None = None,
        newest: bool = False,
        wanted: Wanted | None = None,
    ) -> tuple[list[Event], int]:
        rows = self._database.read(lambda tx: log.rows(tx, after, limit, run_id, newest))
        return [each for row in rows for each in events_of(row, wanted)], rows[-1][0] if rows else after

    # --- keeping and looking after ------------------------------------------------------------------------------

    def prune(self, ended_before: float, limit: int) -> int:
        return retention.prune(self._database, ended_before, limit)

    def prunable(self, ended_before: float) -> int:
        return self._database.read(lambda tx: tx.value(retention.COUNT_PRUNABLE, before=ended_before))

    def census(self) -> Census:
        return self._database.read(census.take)

    # --- life ---------------------------------------------------------------------------------------------------

    def watch(self, listener: Callable[[], None]) -> Callable[[], None]:
        self._listeners = [*self._listeners, listener]

        def stop() -> None:
            self._listeners = [each for each in self._listeners if each is not listener]

        return stop

    def close(self) -> None:
        self._database.close()


def _whole_step(tx: Transaction, row: Row | None) -> StepRecord | None:
    """Return a step with its output, from the columns RECORD."""
    if row is None:
        return None
    step = step_of(row)
    if step.output != results.MARKER:
        return step
    return replace(step, output=results.whole(tx, step.ref.run_id, step.ref.n, step.output))


def _claim_ref(run_id: str, n: int, generation: int, claim: int) -> ClaimRef:
    return ClaimRef(MessageRef(StepRef(run_id, n), generation), claim)
