"""The SQL store on PostgreSQL: many at once, lost connections, forks, and a log that nobody reads too early."""

import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from orchestra.engine.outcome import Completed, Failed
from orchestra.errors import KeyConflict, SettingsError, StoreUnavailable
from orchestra.model.event import Event
from orchestra.model.ids import MessageRef, new_id
from orchestra.model.record import ErrorInfo
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.store.contract import Claimed, NewRun, Onward, Refused, Store
from orchestra.store.sql import database, log
from orchestra.store.sql.postgres import PostgresTransaction, _LostCommit
from orchestra.store.sql.store import SqlStore
from orchestra.testing import Clock
from orchestra.testing.contract.desk import Desk, graph
from tests.graphs import create, layered, planned, work
from tests.servers import PrivatePostgres

FAILED = Failed(ErrorInfo("ValueError", "no"))


@pytest.fixture
def store(postgres_store_url: str) -> Iterator[SqlStore]:
    with ExitStack() as stack:
        store = SqlStore(postgres_store_url)
        stack.callback(store.close)
        yield store


def together(count: int, act: Callable[[int], Any]) -> list[Any]:
    """Do something in several threads at once; return the results, or raise what one of them raised."""
    results: list[Any] = [None] * count
    barrier = threading.Barrier(count)

    def body(at: int) -> None:
        barrier.wait()
        try:
            results[at] = act(at)
        except BaseException as error:
            results[at] = error

    threads = [threading.Thread(target=body, args=(at,)) for at in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def all_events(store: Store, *, run_id: str | None = None, page: int = 7) -> list[Event]:
    """Read the log from its beginning, in small pages."""
    found: list[Event] = []
    cursor = 0
    while True:
        events, following = store.events(cursor, page, run_id=run_id)
        found += events
        if following == cursor:
            return found
        cursor = following


# --- many at once ---------------------------------------------------------------------------------------------------


def test_eight_threads_record_each_step_of_one_run_once(store: SqlStore) -> None:
    run_id, messages = create(store, layered(6, 12))
    messages += messages  # every message comes twice
    stop = threading.Event()

    def act(at: int) -> int:
        done = 0
        while not stop.is_set():
            done += work(store, messages, f"w{at}")
            run = store.run(run_id)
            if run is not None and run.status.ended:
                stop.set()
            messages.extend(each.ref for each in store.refill(["q"], 4.0))
        return done

    assert sum(together(8, act)) == 72
    assert store.counts(run_id) == {TaskStatus.COMPLETED: 72}
    ends = Counter(event.task_id for event in all_events(store) if event.type == "task.completed")
    assert len(ends) == 72
    assert set(ends.values()) == {1}
    run = store.run(run_id)
    assert run is not None
    assert run.status is WorkflowStatus.COMPLETED
    assert all_events(store)[-1].type == "workflow.completed"


def hammer(url: str, run_id: str, at: int, results: Any) -> None:
    store = SqlStore(url)
    done = 0
    while not (run := store.run(run_id)) or not run.status.ended:
        messages = [MessageRef(each.ref, each.generation) for each in store.steps(run_id, TaskStatus.QUEUED)]
        done += work(store, messages, f"w{at}")
    results.put(done)
    store.close()


def test_four_processes_record_each_step_of_one_run_once(store: SqlStore, postgres_store_url: str) -> None:
    run_id, _messages = create(store, layered(5, 10))
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=hammer, args=(postgres_store_url, run_id, at, results)) for at in range(4)]
    for worker in workers:
        worker.start()
    assert sum(results.get(timeout=60) for _ in workers) == 50
    for worker in workers:
        worker.join()
    assert store.counts(run_id) == {TaskStatus.COMPLETED: 50}


def test_a_claim_is_given_to_one_of_eight(store: SqlStore) -> None:
    _run, (message,) = create(store, [[]])
    claims = together(8, lambda at: store.claim(message, f"w{at}", 2.0))
    assert sum(isinstance(each, Claimed) for each in claims) == 1
    assert sum(isinstance(each, Refused) for each in claims) == 7


@pytest.mark.parametrize("joined", [True, False])
def test_a_run_that_fails_beside_others_that_complete_comes_to_its_end(store: SqlStore, joined: bool) -> None:
    """The failure counts what is running; a step that completes at that moment must be counted once, not twice."""
    for _ in range(20):
        run_id, messages = create(store, [*([[]] * 6), *([list(range(6))] if joined else [])])
        claims = [store.claim(message, "w", 2.0) for message in messages]

        def record(at: int, claims: list[Any] = claims) -> None:
            store.record(claims[at].claim, FAILED if at in (0, 3) else Completed("null"), 3.0)

        together(6, record)
        run = store.run(run_id)
        assert run is not None
        assert run.status is WorkflowStatus.FAILED
        skipped = {TaskStatus.SKIPPED: 1} if joined else {}
        assert store.counts(run_id) == {TaskStatus.FAILED: 2, TaskStatus.COMPLETED: 4, **skipped}


@pytest.mark.parametrize("layers", [4, 1])
def test_cancelling_a_run_that_is_being_worked_on_leaves_no_step_open(store: SqlStore, layers: int) -> None:
    for _ in range(10):
        run_id, messages = create(store, layered(layers, 32 // layers))

        def act(at: int, run_id: str = run_id, messages: list[MessageRef] = messages) -> None:
            if at == 0:
                store.cancel(run_id, None, 4.0)
            else:
                work(store, messages, f"w{at}")

        together(5, act)
        work(store, messages)
        run = store.run(run_id)
        assert run is not None
        assert run.status is WorkflowStatus.CANCELLED
        assert all(status.ended for status in store.counts(run_id))


def test_what_is_skipped_names_the_same_cause_wherever_its_rows_lie(store: SqlStore) -> None:
    told: list[list[object]] = []
    for moved in (1, 2):
        desk = Desk(store, Clock())
        run_id = desk.create(graph([], [0], [0], [1, 2], on_failure="continue"))
        text = f"UPDATE steps SET key = key || '!' WHERE run_id = '{run_id}' AND n = {moved}"
        store._database.write(lambda tx, text=text: tx.execute(text) and None)  # now it lies behind the others
        desk.record(desk.claim(run_id, 0), FAILED)
        skipped = [event for event in all_events(store, run_id=run_id) if event.type == "task.skipped"]
        told.append([(str(event.task_id)[-2:], event.data["because"]) for event in skipped])
    assert told[0] == told[1]


def test_the_same_key_submitted_by_eight_makes_one_run(store: SqlStore) -> None:
    plan = planned([[]])

    def submit(_at: int) -> str:
        (created,) = store.create_runs([NewRun(new_id(), "w", "w", plan, key="k", fingerprint="f")], 1.0)
        return created.run_id

    assert len(set(together(8, submit))) == 1
    with pytest.raises(KeyConflict):
        store.create_runs([NewRun(new_id(), "w", "w", plan, key="k", fingerprint="other")], 1.0)


def test_what_waits_is_sent_once_whoever_fills_the_window(postgres_store_url: str) -> None:
    store = SqlStore(postgres_store_url, window=1000)
    small = SqlStore(postgres_store_url, window=1)
    create(small, [[]] * 200)
    filled = together(8, lambda _at: store.refill(["q"], 2.0))
    refs = [each.ref for dispatches in filled for each in dispatches]
    assert len(refs) == len(set(refs))
    refs += [each.ref for each in store.refill(["q"], 2.0)]
    assert len(refs) == len(set(refs)) == 199
    again = together(4, lambda _at: store.resend(["q"], 5.0, 100, 6.0))
    resent = [each.ref for dispatches in again for each in dispatches]
    assert len(resent) == len(set(resent)) == 200
    store.close()
    small.close()


def test_a_step_that_was_sent_again_waits_twice_as_long_each_time(store: SqlStore) -> None:
    create(store, [[]])
    sent_at = 1.0
    for wait in (1, 2, 4):
        assert not store.resend(["q"], sent_at, 10, 100.0)
        assert len(store.resend(["q"], sent_at + 0.1, 10, 100.0)) == 1
        sent_at = 100.0 + wait


def test_a_deadlock_is_tried_again_and_nobody_hears_of_it(store: SqlStore) -> None:
    """Two transactions that take the same two locks in opposite orders; the server ends one of them."""
    met = threading.Barrier(2)
    tries: Counter[int] = Counter()

    def act(at: int) -> str:
        def block(tx: database.Transaction) -> str:
            tries[at] += 1
            tx.lock("ab"[at], alone=True)
            tx.all(log.sql.log.LAST_EVENT)
            if tries[at] == 1:
                met.wait()
            tx.lock("ba"[at], alone=True)
            tx.all(log.sql.log.LAST_EVENT)
            return "done"

        return store._database.write(block)

    assert together(2, act) == ["done", "done"]
    assert sum(tries.values()) == 3


# --- the log --------------------------------------------------------------------------------------------------------


class OpenWriter:
    """A transaction that has written an event and has not ended."""

    def __init__(self, store: SqlStore) -> None:
        self.written, self.end, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.fails = False
        self._store = store
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self.written.wait(30)

    def _run(self) -> None:
        def change(tx: Any) -> None:
            tx.append("r", True, None, [("late.event", (), {})], 1.0)
            tx.flush()
            tx.tx.value(log.sql.log.LAST_EVENT)  # the answer to this says that the event is there
            self.written.set()
            self.end.wait(30)
            if self.fails:
                raise LookupError

        with suppress(LookupError):
            self._store._write(change)

    def finish(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.end.set()
        self._thread.join()


def types(found: tuple[list[Event], int]) -> list[str]:
    return [event.type for event in found[0]]


def test_a_reader_waits_for_an_event_that_was_written_before_what_it_sees(store: SqlStore) -> None:
    store.emit("first", {}, 1.0)
    writer = OpenWriter(store)
    store.emit("second", {}, 1.0)
    events, cursor = store.events(0)
    assert [event.type for event in events] == ["first"]
    assert store.events(cursor) == ([], cursor)
    assert store.last_event() == cursor
    assert store.events(0, newest=True) == (events, cursor)
    writer.finish()
    assert types(store.events(cursor)) == ["late.event", "second"]


def test_a_reader_of_one_run_waits_as_well(store: SqlStore) -> None:
    run_id, (message,) = create(store, [[]])
    _seen, cursor = store.events(0, run_id=run_id)
    writer = OpenWriter(store)
    claimed = store.claim(message, "w", 2.0)
    assert isinstance(claimed, Claimed)
    store.record(claimed.claim, Completed("null"), 3.0)
    assert store.events(cursor, run_id=run_id) == ([], cursor)
    writer.finish()
    assert "task.completed" in types(store.events(cursor, run_id=run_id))


def test_an_event_that_was_taken_back_holds_nobody_up(store: SqlStore) -> None:
    writer = OpenWriter(store)
    store.emit("second", {}, 1.0)
    writer.finish(fails=True)
    events, cursor = store.events(0)
    assert [event.type for event in events] == ["second"]
    assert store.last_event() == cursor == 2


def test_a_long_transaction_of_somebody_else_does_not_stop_the_log(store: SqlStore, postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as other:
        other.execute("SELECT pg_current_xact_id()")
        writer = OpenWriter(store)
        writer.finish(fails=True)
        store.emit("second", {}, 1.0)
        assert types(store.events(0)) == ["second"]


def test_a_tail_hears_every_event_of_eight_writers_once_and_in_the_order_of_its_run(store: SqlStore) -> None:
    heard: list[Event] = []
    cursor = 0
    writing = threading.Event()

    def read() -> None:
        nonlocal cursor
        while True:
            last = writing.is_set()
            events, cursor = store.events(cursor, 50)
            heard.extend(events)
            if last and not events:
                return

    reader = threading.Thread(target=read)
    reader.start()
    runs = [create(store, layered(3, 8)) for _ in range(8)]
    together(8, lambda at: work(store, runs[at][1], f"w{at}"))
    writing.set()
    reader.join()
    assert [event.id for event in heard] == [event.id for event in all_events(store)]
    assert len({event.id for event in heard}) == len(heard)
    for run_id, _messages in runs:
        its = [event for event in heard if event.run_id == run_id]
        assert its[-1].type == "workflow.completed"
        assert sum(event.type == "task.completed" for event in its) == 24


# --- connections ----------------------------------------------------------------------------------------------------


def test_a_forked_child_uses_connections_of_its_own(store: SqlStore) -> None:
    run_id, messages = create(store, [[]] * 20)
    mine = messages[10:]

    pid = os.fork()
    if pid == 0:
        done = -1
        try:
            done = work(store, messages[:10], "child")
        finally:
            os._exit(0 if done == 10 else 1)
    assert work(store, mine, "parent") == 10
    assert os.waitpid(pid, 0)[1] == 0
    assert store.counts(run_id) == {TaskStatus.COMPLETED: 20}


def terminate_all(url: str) -> None:
    """End every session of the store's database but our own."""
    with psycopg.connect(url.partition("?")[0], autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'orchestra'"
        )


def test_idle_connections_that_the_server_ended_are_replaced(store: SqlStore, postgres_store_url: str) -> None:
    run_id, messages = create(store, [[]] * 5)
    terminate_all(postgres_store_url)
    assert work(store, messages) == 5
    assert store.counts(run_id) == {TaskStatus.COMPLETED: 5}


def test_connections_that_are_ended_again_and_again_under_load_lose_and_double_nothing(
    store: SqlStore, postgres_store_url: str
) -> None:
    run_id, messages = create(store, layered(10, 10))
    over = threading.Event()

    def act(at: int) -> int:
        try:
            return terminate_until_over() if at == 4 else work_until_over(at)
        finally:
            over.set()

    def terminate_until_over() -> int:
        pause = 0.03
        while not over.wait(pause):
            began = time.monotonic()
            terminate_all(postgres_store_url)
            # Time enough to connect and do something, however slow the machine is.
            pause = max(0.03, 3 * (time.monotonic() - began))
        return 0

    def work_until_over(at: int) -> int:
        done = 0
        while not over.is_set():
            done += work(store, messages, f"w{at}")
            run = store.run(run_id)
            if run is not None and run.status.ended:
                over.set()
            messages.extend(each.ref for each in store.refill(["q"], 4.0))
            messages.extend(each.ref for each in store.resend(["q"], 1e9, 10, 5.0))
        return done

    assert sum(together(5, act)) == 100
    assert store.counts(run_id) == {TaskStatus.COMPLETED: 100}
    ends = Counter(event.task_id for event in all_events(store) if event.type == "task.completed")
    assert len(ends) == 100
    assert set(ends.values()) == {1}


class DeafCommit:
    """A cursor whose commits are answered by the loss of the connection: with or without having happened."""

    def __init__(self, cursor: Any, *, happens: bool) -> None:
        self._cursor, self._happens = cursor, happens

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def execute(self, text: str, *args: Any, **options: Any) -> Any:
        if text == "COMMIT":
            if self._happens:
                self._cursor.execute("COMMIT")
            self._cursor.connection.close()
            raise psycopg.OperationalError("the connection was lost")
        return self._cursor.execute(text, *args, **options)


@pytest.mark.parametrize("happens", [True, False])
def test_an_operation_whose_commit_was_not_answered_is_done_once(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch, happens: bool
) -> None:
    """The transaction's own number tells: the server knows what became of it."""
    inner = store._database._committed
    lost: list[str] = []

    def committed(cursor: Any, block: Any) -> Any:
        if len(lost) % 2 == 0:
            lost.append("once")
            return inner(DeafCommit(cursor, happens=happens), block)
        lost.append("through")
        return inner(cursor, block)

    monkeypatch.setattr(store._database, "_committed", committed)
    store.emit("custom", {}, 1.0)
    if happens:
        lost.append("answered")
    (created,) = store.create_runs([NewRun(new_id(), "w", "w", planned([[], [0]]))], 1.0)
    if happens:
        lost.append("answered")
    claimed = store.claim(created.dispatches[0].ref, "w", 2.0)
    assert isinstance(claimed, Claimed)
    assert store.record(claimed.claim, Completed("null"), 3.0) is not None
    assert Counter(types(store.events(0)))["custom"] == 1
    assert Counter(types(store.events(0)))["task.completed"] == 1


def test_a_number_that_a_crashed_server_gave_again_settles_nothing(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not written before the crash never happened, although another transaction has that number now."""
    inner = store._database._committed
    lost: list[str] = []

    def committed(cursor: Any, block: Any) -> Any:
        if lost:
            return inner(cursor, block)
        try:
            return inner(DeafCommit(cursor, happens=False), block)
        except _LostCommit as error:
            with store._database._session() as another:
                lost.append(another.execute("SELECT pg_current_xact_id()::text").fetchone()[0])
            error.tx.number = lost[0]
            raise

    monkeypatch.setattr(store._database, "_committed", committed)
    (created,) = store.create_runs([NewRun(new_id(), "w", "w", planned([[], [0]]))], 1.0)
    assert lost
    assert store.run(created.run_id) is not None
    assert Counter(types(store.events(0)))["workflow.started"] == 1


class Deafness:
    """Loses the connection during the next statement, before or after the server has executed it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, happens: bool) -> None:
        self._inner, self._happens, self._armed = PostgresTransaction.execute, happens, False
        self.sent: list[str] = []
        monkeypatch.setattr(PostgresTransaction, "execute", lambda tx, *args: self._execute(tx, *args))

    def next(self) -> None:
        self._armed = True

    def _execute(self, tx: Any, text: str, parameters: Any = None) -> Any:
        self.sent.append(text)
        if not self._armed:
            return self._inner(tx, text, parameters)
        self._armed = False
        if self._happens:
            self._inner(tx, text, parameters)
        tx._cursor.connection.close()
        raise psycopg.OperationalError("the connection was lost")


@pytest.mark.parametrize("happens", [True, False])
def test_what_is_one_statement_is_done_once_when_its_answer_is_lost(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch, happens: bool
) -> None:
    """It commits by itself, and has no number to ask about: its time in the row tells that it was done."""
    store.refill(["q"], 1.0)  # knows the window from now on
    deaf = Deafness(monkeypatch, happens=happens)
    run_id = new_id()
    deaf.next()
    (created,) = store.create_runs([NewRun(run_id, "w", "w", planned([[]]), single=True)], 1.0)
    (message,) = [each.ref for each in created.dispatches]
    deaf.next()
    claimed = store.claim(message, "w", 1.5)
    assert isinstance(claimed, Claimed)
    assert claimed.claim.claim == 1
    deaf.next()
    recorded = store.record(claimed.claim, Completed("null"), 2.0)
    assert recorded is not None
    assert recorded.ended_run is WorkflowStatus.COMPLETED
    assert isinstance(store.claim(message, "w", 1.5), Refused)
    assert store.record(claimed.claim, Completed("null"), 2.0) is None
    with pytest.raises(KeyConflict):
        store.create_runs([NewRun(run_id, "w", "w", planned([[]]), single=True)], 1.0)
    counted = Counter(types(store.events(0)))
    assert counted == {"task.submitted": 1, "task.queued": 1, "task.started": 1, "task.completed": 1}


@pytest.mark.parametrize("happens", [True, False])
def test_a_link_is_one_statement_and_done_once_when_its_answer_is_lost(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch, happens: bool
) -> None:
    run_id = new_id()
    (created,) = store.create_runs([NewRun(run_id, "w", "w", planned([[], [0], [1]]))], 1.0)
    claimed = store.claim(created.dispatches[0].ref, "w", 1.5)
    assert isinstance(claimed, Claimed)
    deaf = Deafness(monkeypatch, happens=happens)
    for at in (2.0, 2.5):  # it knows the windows
        asked = len(deaf.sent)
        deaf.next()
        recorded = store.record(claimed.claim, Completed("7"), at, Onward("w", "q", 5, frozenset({claimed.row.target})))
        assert recorded is not None
        assert len(deaf.sent) - asked == (3 if happens else 2), "again, and asked what became of it"
        ((dispatch, claimed),) = recorded.onward
        assert (dispatch.ref, claimed.started_at) == (claimed.claim.ref, at)
    assert [each.claims for each in store.steps(run_id)] == [1, 1, 1]
    assert Counter(types(store.events(0)))["task.completed"] == 2


def test_a_single_task_is_three_statements(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.refill(["q"], 1.0)  # knows the window from now on
    sent = Deafness(monkeypatch, happens=True).sent
    (created,) = store.create_runs([NewRun(new_id(), "w", "w", planned([[]]), single=True)], 1.0)
    claimed = store.claim(created.dispatches[0].ref, "w", 1.5)
    assert isinstance(claimed, Claimed)
    assert store.record(claimed.claim, Completed("null"), 2.0) is not None
    assert len(sent) == 3, sent


def test_steps_that_are_copied_are_what_steps_that_are_inserted_are(store: SqlStore) -> None:
    odd = ["tab\t", "line\n", "back\\slash", "\\N", "'quoted'", '"', "ä – 🎻"]
    few, many = (
        store.create_runs([NewRun(new_id(), "w", "w", planned([[]] * len(odd) * times, names=odd * times))], 1.0)
        for times in (1, 10)
    )
    inserted, copied = (store.steps(created.run_id)[: len(odd)] for (created,) in (few, many))
    assert [replace(each, ref=inserted[0].ref) for each in copied] == [
        replace(each, ref=inserted[0].ref) for each in inserted
    ]
    assert [each.name for each in copied] == odd


def test_a_restart_of_the_server_is_waited_for() -> None:
    with PrivatePostgres() as server:
        store = SqlStore(server.url)
        run_id, messages = create(store, layered(3, 5))
        work(store, messages[:2])
        server.kill()
        starting = threading.Timer(1.0, server.start)
        starting.start()
        messages += [MessageRef(each.ref, each.generation) for each in store.steps(run_id, TaskStatus.QUEUED)]
        work(store, messages)
        starting.join()
        assert store.counts(run_id) == {TaskStatus.COMPLETED: 15}
        store.close()


def test_a_server_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = database.PATIENCE_S
    monkeypatch.setattr(database, "PATIENCE_S", 0.5)
    with PrivatePostgres() as server:
        store = SqlStore(server.url)
        server.kill()
        begun = time.monotonic()
        with pytest.raises(StoreUnavailable):
            store.emit("custom", {}, 1.0)
        assert time.monotonic() - begun < usual
        store.close()


def test_a_store_that_cannot_be_reached_says_so_without_the_password(postgres_url: str) -> None:
    host = postgres_url.rpartition("/")[0]
    for url, expected in (
        (f"{host.replace('postgresql://', 'postgresql://nobody_such:s3cret@').rpartition('@')[0]}", ""),
        (f"{host}/no_such_database", "no_such_database"),
        ("postgresql://u:s3cret@127.0.0.1:1/x", "refused"),
        ("postgresql://u:s3cret@no-such-host.invalid/x?connect_timeout=2", ""),
    ):
        with pytest.raises(StoreUnavailable) as raised:
            SqlStore(url)
        assert "s3cret" not in str(raised.value)
        assert expected in str(raised.value)


def test_a_closed_store_says_so_and_closing_twice_is_fine(postgres_store_url: str) -> None:
    store = SqlStore(postgres_store_url)
    store.close()
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.depth()


def test_several_processes_may_open_an_empty_database_at_the_same_time(postgres_store_url: str) -> None:
    stores = together(6, lambda _at: SqlStore(postgres_store_url))
    for at, each in enumerate(stores):
        each.emit("custom", {"n": at}, 1.0)
    assert len(types(stores[0].events(0))) == 6
    for each in stores:
        each.close()


def test_a_user_who_may_not_make_the_schema_hears_what_its_owner_has_to_run(postgres_url: str) -> None:
    role = f"orchestra_test_{new_id().replace('-', '_')}"  # the server's, which other test runs use at the same time
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f'CREATE ROLE "{role}" LOGIN')
        try:
            small = f"postgresql://{role}@" + postgres_url.partition("@")[2]
            with pytest.raises(SettingsError, match="CREATE SCHEMA"):
                SqlStore(f"{small}?schema=not_there")
        finally:
            admin.execute(f'DROP ROLE "{role}"')


def test_idle_transactions_are_seen_to_end(store: SqlStore) -> None:
    """A worker that is frozen in a transaction gives its locks back: the server ends it."""
    shown = store._database.read(lambda tx: tx.execute("SHOW idle_in_transaction_session_timeout").fetchone())
    assert shown == ("10s",)
