"""SqlStore: the contract over a SQL database."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from orchestra.engine.outcome import Change
from orchestra.model.event import Event
from orchestra.model.ids import MessageRef, StepRef
from orchestra.model.record import RunRecord, StepRecord
from orchestra.model.status import TaskStatus
from orchestra.store import transitions
from orchestra.store.contract import (
    WINDOW,
    ClaimRef,
    Claimed,
    Created,
    Dispatch,
    Lease,
    NewRun,
    Recorded,
    Refused,
    RunFilter,
)
from orchestra.store.sql import statements as sql
from orchestra.store.sql.database import Database
from orchestra.store.sql.queries import runs_where
from orchestra.store.sql.rows import claimed_of, dispatch_of, events_of, lease_of, lease_row, loads, run_of, step_of
from orchestra.store.sql.transaction import SqlTransaction


class SqlStore:
    """Runs, steps, results, joins and events in a SQL database. The contract says what each method does.

    Args:
        url: ``sqlite://`` (in memory) or ``sqlite:///path``.
        window: Ready steps of one queue and priority that are with the broker at a time.

    Raises:
        SettingsError: The URL names no store of this kind, or its schema is of another version.
        StoreUnavailable: It cannot be opened.
    """

    def __init__(self, url: str, *, window: int = WINDOW) -> None:
        self._database = Database(url)
        self.url = self._database.url
        self._window = window
        self._listeners: list[Callable[[], None]] = []

    @contextmanager
    def _transaction(self) -> Iterator[SqlTransaction]:
        with self._database.transaction() as inner:
            tx = SqlTransaction(inner)
            yield tx
        if tx.wrote_events:
            for listener in self._listeners:
                listener()

    def _window_of(self) -> transitions.Window:
        return lambda _queue: self._window

    # --- writing ------------------------------------------------------------------------------------------------

    def create_runs(self, runs: Sequence[NewRun], now: float) -> list[Created]:
        with self._transaction() as tx:
            return transitions.create_runs(tx, runs, self._window_of(), now)

    def claim(self, message: MessageRef, worker: str, now: float) -> Claimed | Refused:
        with self._transaction() as tx:
            return transitions.claim(tx, message, worker, now)

    def claimed(self, message: MessageRef, worker: str) -> Claimed | None:
        (run_id, n), generation = message
        with self._database.transaction(write=False) as tx:
            row = tx.one(sql.HELD_CLAIM, run_id=run_id, n=n, generation=generation, worker=worker)
        return None if row is None else claimed_of(message, row)

    def announce(self, worker: str, started_before: float, now: float) -> int:
        with self._transaction() as tx:
            return transitions.announce(tx, worker, started_before, now)

    def reserve(self, run_id: str, steps: int, joins: int) -> tuple[int, int]:
        with self._transaction() as tx:
            return tx.reserve(run_id, steps, joins)

    def record(self, claim: ClaimRef, change: Change, now: float) -> Recorded | None:
        with self._transaction() as tx:
            return transitions.record(tx, claim, change, self._window_of(), now)

    def vanish(self, claim: ClaimRef, reason: str, now: float) -> Recorded | None:
        with self._transaction() as tx:
            return transitions.vanish(tx, claim, reason, self._window_of(), now)

    def cancel(self, run_id: str, n: int | None, now: float) -> Recorded | None:
        with self._transaction() as tx:
            return transitions.cancel(tx, run_id, n, self._window_of(), now)

    def due(self, now: float) -> tuple[Sequence[Dispatch], float | None]:
        with self._database.transaction(write=False) as reader:
            next_due: float | None = reader.value(sql.NEXT_DUE)
        if next_due is None or next_due > now:
            return (), next_due
        with self._transaction() as tx:
            return transitions.due(tx, self._window_of(), now), tx.tx.value(sql.NEXT_DUE)

    def refill(self, queues: Sequence[str], now: float) -> Sequence[Dispatch]:
        with self._transaction() as tx:
            return transitions.fill(tx, queues, self._window_of(), now)

    def resend(self, queues: Sequence[str], unheard_since: float, limit: int, now: float) -> Sequence[Dispatch]:
        found: list[Dispatch] = []
        with self._transaction() as tx:
            for queue in queues:
                room = limit - len(found)
                if room > 0:
                    rows = tx.tx.all(sql.RESEND, queue=queue, before=unheard_since, room=room, now=now)
                    found += [dispatch_of(row) for row in rows]
        return found

    def emit(self, event_type: str, data: Mapping[str, object], now: float, *, worker: str | None = None) -> None:
        with self._transaction() as tx:
            tx.append(None, False, worker, [(event_type, (), data)], now)

    # --- workers ------------------------------------------------------------------------------------------------

    def renew(self, lease: Lease) -> None:
        with self._database.transaction() as tx:
            row = lease_row(lease)
            if tx.one(sql.RENEW, incarnation=lease.incarnation, expires_at=lease.expires_at) is None:
                tx.run(sql.ADD_LEASE, **row)

    def leases(self) -> list[Lease]:
        with self._database.transaction(write=False) as tx:
            return [lease_of(row) for row in tx.all(sql.LEASES)]

    def release_lease(self, incarnation: str) -> bool:
        with self._database.transaction() as tx:
            return tx.one(sql.DROP_LEASE, incarnation=incarnation) is not None

    def held(self, incarnation: str) -> list[ClaimRef]:
        with self._database.transaction(write=False) as tx:
            return [_claim_ref(*row) for row in tx.all(sql.HELD, worker=incarnation)]

    def orphans(self) -> list[ClaimRef]:
        with self._database.transaction(write=False) as tx:
            return [_claim_ref(*row) for row in tx.all(sql.ORPHANS)]

    # --- reading ------------------------------------------------------------------------------------------------

    def run(self, run_id: str) -> RunRecord | None:
        with self._database.transaction(write=False) as tx:
            row = tx.one(sql.GET_RUN, run_id=run_id)
        return None if row is None else run_of(row)

    def runs(self, where: RunFilter) -> list[RunRecord]:
        with self._database.transaction(write=False) as tx:
            return [run_of(row) for row in runs_where(tx, where)]

    def step(self, ref: StepRef) -> StepRecord | None:
        with self._database.transaction(write=False) as tx:
            row = tx.one(sql.GET_STEP, run_id=ref.run_id, n=ref.n)
        return None if row is None else step_of(row)

    def find_step(self, key: str) -> StepRecord | None:
        with self._database.transaction(write=False) as tx:
            row = tx.one(sql.FIND_STEP, key=key)
        return None if row is None else step_of(row)

    def steps(self, run_id: str, status: TaskStatus | None = None) -> list[StepRecord]:
        with self._database.transaction(write=False) as tx:
            if status is None:
                rows = tx.all(sql.STEPS, run_id=run_id)
            else:
                rows = tx.all(sql.STEPS_IN, run_id=run_id, status=status)
        return [step_of(row) for row in rows]

    def counts(self, run_id: str) -> dict[TaskStatus, int]:
        with self._database.transaction(write=False) as tx:
            return {TaskStatus(status): count for status, count in tx.all(sql.COUNTS, run_id=run_id)}

    def outputs(self, run_id: str, numbers: Sequence[int]) -> dict[int, str]:
        with self._database.transaction(write=False) as tx:
            return SqlTransaction(tx).outputs(run_id, numbers)

    def result_template(self, run_id: str) -> object:
        with self._database.transaction(write=False) as tx:
            return loads(tx.value(sql.GET_RESULT, run_id=run_id))

    def depth(self) -> dict[str, int]:
        with self._database.transaction(write=False) as tx:
            return {queue: count for queue, count in tx.all(sql.DEPTH)}

    def open_queues(self) -> list[str]:
        with self._database.transaction(write=False) as tx:
            return [queue for (queue,) in tx.all(sql.OPEN_QUEUES)]

    def last_event(self) -> int:
        with self._database.transaction(write=False) as tx:
            return tx.value(sql.LAST_EVENT)

    def events(
        self, after: int, limit: int = 1000, *, run_id: str | None = None, newest: bool = False
    ) -> tuple[list[Event], int]:
        with self._database.transaction(write=False) as tx:
            if run_id is not None:
                rows = tx.all(sql.EVENTS_OF_RUN, run_id=run_id, after=after, limit=limit)
            elif newest:
                rows = tx.all(sql.NEWEST_EVENTS, after=after, limit=limit)[::-1]
            else:
                rows = tx.all(sql.EVENTS, after=after, limit=limit)
        return [each for row in rows for each in events_of(row)], rows[-1][0] if rows else after

    # --- life ---------------------------------------------------------------------------------------------------

    def watch(self, listener: Callable[[], None]) -> Callable[[], None]:
        self._listeners = [*self._listeners, listener]

        def stop() -> None:
            self._listeners = [each for each in self._listeners if each is not listener]

        return stop

    def close(self) -> None:
        self._database.close()


def _claim_ref(run_id: str, n: int, generation: int, claim: int) -> ClaimRef:
    return ClaimRef(MessageRef(StepRef(run_id, n), generation), claim)
