"""Joins of many parts are counted in shards in SQL; what they release is what it would be without."""

import threading
from collections.abc import Iterator

import pytest

from orchestra.engine.outcome import Completed, Failed
from orchestra.engine.plan import Target, plan
from orchestra.model.graph import Graph, GraphStep, identity
from orchestra.model.ids import MessageRef, new_id
from orchestra.model.record import ErrorInfo
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.store.contract import Claimed, NewRun
from orchestra.store.sql import wide
from orchestra.store.sql.store import SqlStore
from tests.graphs import create, work
from tests.stores import store_url

PARTS = 100


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> Iterator[SqlStore]:
    store = SqlStore(store_url(request.param, request), window=1000)
    yield store
    store.close()


def fan_in(store: SqlStore, *, any_way: bool = False, goes_on: bool = False) -> tuple[str, list[MessageRef]]:
    """Create a run of many steps, on the truth of whose outputs a last one depends that takes all of them."""
    parts = [GraphStep(f"s{n}", f"s{n}", identity, [], {}, frozenset()) for n in range(PARTS)]
    every = frozenset(range(PARTS))
    whens = dict.fromkeys(range(PARTS), "output")
    last = GraphStep("last", "last", identity, [], {}, every, whens=whens, any=any_way, from_predecessors=True)
    graph = Graph("w", "w", [*parts, last], on_failure="continue" if goes_on else "fail")
    compiled = plan(graph, lambda _agent: Target("t", "p"), queue="q")
    (created,) = store.create_runs([NewRun(new_id(), "w", "w", compiled)], 1.0)
    return created.run_id, [each.ref for each in created.dispatches]


def shard_rows(store: SqlStore) -> list[tuple[int, ...]]:
    text = "SELECT number, shard, remaining, live FROM shards ORDER BY number, shard"
    return [tuple(row) for row in store._database.read(lambda tx: tx.execute(text).fetchall())]


def test_a_join_of_more_than_64_parts_is_released_once_by_the_last_of_them(store: SqlStore) -> None:
    run_id, messages = create(store, [*([[]] * PARTS), list(range(PARTS))])
    assert len(shard_rows(store)) == wide.SHARDS
    barrier = threading.Barrier(8)
    done: list[int] = []

    def act(at: int) -> None:
        barrier.wait()
        done.append(work(store, messages[at::8], f"w{at}"))

    threads = [threading.Thread(target=act, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(done) == PARTS + 1
    assert store.counts(run_id) == {TaskStatus.COMPLETED: PARTS + 1}
    assert {remaining for _number, _shard, remaining, _live in shard_rows(store)} == {0}


def test_smaller_joins_and_those_that_one_way_releases_have_no_shards(store: SqlStore) -> None:
    create(store, [*([[]] * wide.WIDE), list(range(wide.WIDE))])
    run_id, messages = fan_in(store, any_way=True)
    assert shard_rows(store) == []
    assert work(store, messages[-1:]) == 2
    assert store.counts(run_id)[TaskStatus.COMPLETED] == 2


def test_parts_whose_way_was_not_taken_are_no_input_of_what_is_behind(store: SqlStore) -> None:
    run_id, messages = fan_in(store)
    released: list[MessageRef] = []
    for message in messages:
        claimed = store.claim(message, "w", 2.0)
        assert isinstance(claimed, Claimed)
        dead = frozenset(int(join) for join in claimed.row.whens or {}) if message.step.n % 10 else frozenset[int]()
        recorded = store.record(claimed.claim, Completed(str(message.step.n), dead), 3.0)
        assert recorded is not None
        released += [each.ref for each in recorded.dispatches]
    (last,) = released
    claimed = store.claim(last, "w", 4.0)
    assert isinstance(claimed, Claimed)
    assert claimed.outputs == {n: str(n) for n in range(0, PARTS, 10)}
    assert store.counts(run_id)[TaskStatus.RUNNING] == 1


def test_a_wide_join_with_a_broken_part_skips_what_is_behind_when_all_parts_have_ended(store: SqlStore) -> None:
    run_id, messages = fan_in(store, goes_on=True)
    failing = messages[17]
    done = work(
        store,
        messages,
        outcome=lambda message: Failed(ErrorInfo("ValueError", "no")) if message == failing else Completed("1"),
    )
    assert done == PARTS
    assert store.counts(run_id) == {
        TaskStatus.COMPLETED: PARTS - 1,
        TaskStatus.FAILED: 1,
        TaskStatus.SKIPPED: 1,
    }
    run = store.run(run_id)
    assert run is not None
    assert run.status is WorkflowStatus.FAILED
