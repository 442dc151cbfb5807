"""Retention: what ended long ago is deleted with all that belongs to it, on every store, and nothing else is."""

import threading
from collections.abc import Iterator, Sequence

import pytest

from orchestra import Orchestrator
from orchestra.engine.outcome import Completed
from orchestra.model.event import Event
from orchestra.model.ids import StepRef, new_id
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.store.contract import Claimed, NewRun, RunFilter, Store
from orchestra.store.sql import retention
from orchestra.store.sql.store import SqlStore
from tests.graphs import create, layered, planned, work
from tests.processes import wait_until
from tests.stores import KINDS, open_url, store_url

LONG_AGO = 1_000.0
"""What ``create`` and ``work`` do is done before this time."""


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    store = open_url(store_url(request.param, request))
    yield store
    store.close()


def ended(store: Store, after: Sequence[Sequence[int]] = ((), (0,)), key: str | None = None) -> str:
    """Create a run and work it off; returns its id."""
    (created,) = store.create_runs([NewRun(new_id(), "w", "w", planned(after), key=key, fingerprint="f")], 1.0)
    work(store, [each.ref for each in created.dispatches])
    return created.run_id


def prune_all(store: Store, before: float = LONG_AGO, limit: int = 100) -> int:
    total = 0
    while deleted := store.prune(before, limit):
        assert deleted <= limit
        total += deleted
    return total


def of_runs(events: Sequence[Event]) -> set[str | None]:
    return {event.run_id for event in events}


def test_a_run_that_ended_before_the_time_is_gone_with_its_steps_outputs_and_events(store: Store) -> None:
    run_id = ended(store, layered(3, 4))
    other, _messages = create(store, [[]])
    assert store.prunable(LONG_AGO) == 1
    assert prune_all(store) == 1
    assert store.prunable(LONG_AGO) == 0
    assert store.run(run_id) is None
    assert store.steps(run_id) == []
    assert store.counts(run_id) == {}
    assert store.step(StepRef(run_id, 0)) is None
    assert store.outputs(run_id, [0, 1]) == {}
    assert store.events(0, run_id=run_id)[0] == []
    assert of_runs(store.events(0)[0]) == {other}
    assert [run.id for run in store.runs(RunFilter())] == [other]


def test_a_run_that_has_not_ended_is_not_touched_however_old(store: Store) -> None:
    run_id, messages = create(store, [[], [0]])
    before = store.run(run_id), store.steps(run_id), store.events(0)
    assert prune_all(store, before=1e12) == 0
    assert (store.run(run_id), store.steps(run_id), store.events(0)) == before
    assert work(store, messages) == 2


def test_a_run_that_began_long_ago_and_ended_lately_is_kept(store: Store) -> None:
    run_id, (message,) = create(store, [[]])
    claimed = store.claim(message, "w", 5_000.0)
    assert isinstance(claimed, Claimed)
    store.record(claimed.claim, Completed("1"), 5_000.0)
    assert prune_all(store) == 0
    assert store.outputs(run_id, [0]) == {0: "1"}
    assert prune_all(store, before=5_000.0) == 0
    assert prune_all(store, before=5_000.1) == 1


def test_cancelled_and_failed_runs_go_as_well(store: Store) -> None:
    run_id, _messages = create(store, [[], []])
    store.cancel(run_id, None, 3.0)
    assert store.runs(RunFilter(status=WorkflowStatus.CANCELLED)) != []
    assert prune_all(store) == 1
    assert store.runs(RunFilter(status=WorkflowStatus.CANCELLED)) == []


def test_the_key_of_a_deleted_run_is_free_again(store: Store) -> None:
    first = ended(store, key="order-1")
    assert ended(store, key="order-1") == first
    prune_all(store)
    second = ended(store, key="order-1")
    assert second != first
    run = store.run(second)
    assert run is not None
    assert run.key == "order-1"


def test_the_id_of_a_deleted_run_can_be_used_again(store: Store) -> None:
    new = NewRun("mine", "w", "w", planned([[]]))
    for _ in range(2):
        (created,) = store.create_runs([new], 1.0)
        assert work(store, [each.ref for each in created.dispatches]) == 1
        assert prune_all(store) == 1


def test_no_more_runs_than_the_limit_go_at_once_and_the_oldest_first(store: Store) -> None:
    ids = []
    for at in range(5):
        (created,) = store.create_runs([NewRun(f"run-{at}", "w", "w", planned([[]]))], 1.0 + at / 10)
        work(store, [each.ref for each in created.dispatches])
        ids.append(created.run_id)
    assert store.prune(LONG_AGO, 2) == 2
    assert sorted(run.id for run in store.runs(RunFilter())) == ids[2:]


def test_old_runs_that_are_open_do_not_hide_later_ones_that_ended(store: Store) -> None:
    for _ in range(230):
        create(store, [[]], queue="unserved")
    assert store.prunable(LONG_AGO) == 0
    run_id = ended(store)
    assert store.prunable(LONG_AGO) == 1
    assert prune_all(store, limit=1) == 1
    assert store.run(run_id) is None


def test_events_that_belong_to_no_run_go_by_the_same_time(store: Store) -> None:
    for at in range(3):
        store.emit(f"old.{at}", {}, 10.0 + at)
    store.emit("new", {}, 2_000.0)
    prune_all(store)
    assert [event.type for event in store.events(0)[0]] == ["new"]


def test_cursors_stay_good_when_everything_before_them_is_deleted(store: Store) -> None:
    store.emit("old", {}, 1.0)
    ended(store)
    _events, cursor = store.events(0)
    prune_all(store)
    assert store.events(0)[0] == []
    assert store.events(cursor) == ([], cursor)
    assert store.last_event() <= cursor
    store.emit("new", {}, 2_000.0)
    assert [event.type for event in store.events(cursor)[0]] == ["new"]
    assert [event.type for event in store.events(0)[0]] == ["new"]


def test_a_step_is_found_by_its_key_in_the_newest_run_that_is_left(store: Store) -> None:
    ended(store, [[]])
    (created,) = store.create_runs([NewRun(new_id(), "w", "w", planned([[]]))], 2.0)
    prune_all(store)
    found = store.find_step("s0")
    assert found is not None
    assert found.ref.run_id == created.run_id
    work(store, [each.ref for each in created.dispatches])
    prune_all(store)
    assert store.find_step("s0") is None


def test_a_run_of_many_steps_and_events_goes_as_well(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BITE", 7)
    run_id = ended(store, layered(4, 10))
    small = ended(store)
    assert prune_all(store) == 2
    assert store.events(0) == ([], 0)
    assert store.run(run_id) is store.run(small) is None


def test_a_census_counts_what_is_there(store: Store) -> None:
    ended(store)
    run_id, _messages = create(store, [[]])
    create(store, [[], []])
    store.cancel(run_id, None, 3.0)
    census = store.census()
    assert dict(census.runs) == {
        WorkflowStatus.COMPLETED: 1,
        WorkflowStatus.CANCELLED: 1,
        WorkflowStatus.RUNNING: 1,
    }
    assert census.steps == 5
    assert census.events > 5
    assert census.size is None or census.size > 0
    assert store.counts(run_id) == {TaskStatus.CANCELLED: 1}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_nothing_of_deleted_runs_is_left_in_any_table(kind: str, request: pytest.FixtureRequest) -> None:
    store = SqlStore(store_url(kind, request), result_limit=1)
    ended(store, layered(2, 70))
    prune_all(store)
    tables = ("runs", "steps", "joins", "shards", "results", "events")
    left = {
        table: store._database.read(lambda tx, table=table: tx.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
        for table in tables
    }
    assert left == dict.fromkeys(tables, 0)
    store.close()


def test_eight_who_prune_at_once_delete_every_run_once(postgres_store_url: str) -> None:
    store = SqlStore(postgres_store_url)
    for _ in range(60):
        ended(store, [[]])
    wide = ended(store, layered(3, 20))
    kept, _messages = create(store, [[]])
    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(prune_all(store, limit=5))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) + prune_all(store) == 61
    assert store.run(wide) is None
    assert [run.id for run in store.runs(RunFilter())] == [kept]
    store.close()


def fill_log(store: SqlStore, run_id: str, count: int) -> None:
    text = (
        "INSERT INTO events (time, run_id, single, entries)"
        f" SELECT 2.0, '{run_id}', 0, '[]' FROM generate_series(1, {count})"
    )
    store._database.write(lambda tx: tx.execute(text) and None)


def test_readers_of_the_log_do_not_stall_while_much_is_deleted(postgres_store_url: str) -> None:
    """Whoever deletes from the log looks like a writer to its readers; none of them may wait for long."""
    store = SqlStore(postgres_store_url)
    for _ in range(4):
        wide, _messages = create(store, layered(2, 1000))
        store.cancel(wide, None, 3.0)
        fill_log(store, wide, 10_000)
    for _ in range(60):
        store.cancel(create(store, [[]])[0], None, 3.0)
    heard: list[str] = []
    cursor = store.last_event()
    done = threading.Event()

    def tell() -> None:
        at = 0
        while not done.wait(0.01):
            store.emit(f"news.{at}", {}, 2_000.0)
            at += 1
        store.emit("last", {}, 2_000.0)

    def read() -> None:
        nonlocal cursor
        while "last" not in heard:
            events, cursor = store.events(cursor, 50)
            heard.extend(event.type for event in events)

    talker, reader = threading.Thread(target=tell), threading.Thread(target=read)
    talker.start()
    reader.start()
    beside: list[bool] = []
    while store.prune(LONG_AGO, 10):
        # One who begins at the beginning, where the holes are, gets further than the first of them.
        beside.append(bool(store.events(0, 10, newest=True)[0]))
    done.set()
    talker.join()
    reader.join(60)
    assert not reader.is_alive()
    assert [each for each in heard if each.startswith("news.")] == [f"news.{at}" for at in range(len(heard) - 1)]
    assert beside
    assert all(beside)
    store.close()


def test_a_worker_deletes_what_need_not_be_kept_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestra.runtime.retention.LOOK_S", 0.1)
    monkeypatch.setenv("ORCHESTRA_KEEP_FOR", "5s")  # longer than who waits may stall before it reads what it waited for
    with Orchestrator() as orch:
        task = orch.submit(len, "abc", key="once").wait(30)
        assert task.output == 3
        wait_until(lambda: orch.runs() == [], 30, "the run to be deleted")
        assert orch.submit(len, "abcd", key="once").wait(30).output == 4
