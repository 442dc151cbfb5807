"""Outputs of any size come back as they went, from every reader; SQL keeps large ones out of its rows."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from orchestra.engine.outcome import Completed, Expanded, Failed, Reopened
from orchestra.engine.plan import StepInput, Target, plan
from orchestra.engine.rows import of_elements
from orchestra.model import template
from orchestra.model.graph import Graph, GraphStep, Mapped, identity
from orchestra.model.ids import MessageRef, StepRef, new_id
from orchestra.model.record import ErrorInfo
from orchestra.model.status import TaskStatus
from orchestra.store.contract import Claimed, NewRun, Store
from orchestra.store.sql import results
from orchestra.store.sql.store import SqlStore
from tests.graphs import create
from tests.stores import KINDS, open_url, store_url

LARGE = json.dumps([{"n": n, "text": "größer " * 5} for n in range(1000)])
assert len(LARGE) > results.LIMIT


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    store = open_url(store_url(request.param, request))
    yield store
    store.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def sql(request: pytest.FixtureRequest) -> Iterator[SqlStore]:
    store = SqlStore(store_url(request.param, request), result_limit=100)
    yield store
    store.close()


def claim(store: Store, message: MessageRef) -> Claimed:
    claimed = store.claim(message, "w", 2.0)
    assert isinstance(claimed, Claimed)
    return claimed


def submitted(store: Store, *steps: GraphStep) -> tuple[str, list[MessageRef]]:
    compiled = plan(Graph("w", "w", steps), lambda _agent: Target("t", "p"), queue="q")
    (created,) = store.create_runs([NewRun(new_id(), "w", "w", compiled)], 1.0)
    return created.run_id, [each.ref for each in created.dispatches]


def complete(store: Store, message: MessageRef, output: str) -> list[MessageRef]:
    recorded = store.record(claim(store, message).claim, Completed(output), 3.0)
    assert recorded is not None
    return [each.ref for each in recorded.dispatches]


def rows(sql: SqlStore, text: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in sql._database.read(lambda tx: tx.execute(text).fetchall())]


def test_a_large_output_is_read_back_whole_as_a_step_by_key_and_by_number(store: Store) -> None:
    run_id, messages = create(store, [[], []])
    complete(store, messages[0], LARGE)
    complete(store, messages[1], "1")
    for found in (store.step(StepRef(run_id, 0)), store.find_step("s0")):
        assert found is not None
        assert found.output == LARGE
    assert store.outputs(run_id, [0, 1, 2]) == {0: LARGE, 1: "1"}
    assert [each.output for each in store.steps(run_id)] == [None, None]


def test_a_large_output_is_the_input_of_what_names_it(store: Store) -> None:
    reader = GraphStep("b", "b", identity, [template.reference_to(0)], {}, frozenset([0]))
    _run, (message,) = submitted(store, GraphStep("a", "a", identity, [], {}, frozenset()), reader)
    (following,) = complete(store, message, LARGE)
    assert claim(store, following).outputs == {0: LARGE}


def test_large_outputs_of_predecessors_are_the_input_of_what_takes_them_all(store: Store) -> None:
    heads = [GraphStep(f"s{n}", f"s{n}", identity, [], {}, frozenset()) for n in range(3)]
    last = GraphStep("last", "last", identity, [], {}, frozenset(range(3)), from_predecessors=True)
    _run, messages = submitted(store, *heads, last)
    outputs = [LARGE, "1", LARGE.upper()]
    following = [each for n, message in enumerate(messages) for each in complete(store, message, outputs[n])]
    claimed = claim(store, following[0])
    assert claimed.predecessors == {0: "s0", 1: "s1", 2: "s2"}
    assert claimed.outputs == dict(enumerate(outputs))


def test_the_list_of_a_map_has_the_large_outputs_of_its_parts(store: Store) -> None:
    run_id, (message,) = submitted(
        store, GraphStep("m", "m", identity, [], {}, frozenset(), mapped=Mapped([1, 2, 3], None))
    )
    claimed = claim(store, message)
    first, _join = store.reserve(run_id, 3, 0)
    parts = of_elements(claimed.row, [StepInput([n]) for n in range(3)], first)
    recorded = store.record(claimed.claim, Expanded(parts), 3.0)
    assert recorded is not None
    for each, output in zip(recorded.dispatches, [LARGE, "2", LARGE], strict=True):
        complete(store, each.ref, output)
    assert store.outputs(run_id, [message.step.n]) == {message.step.n: f"[{LARGE},2,{LARGE}]"}


def test_what_is_longer_than_the_limit_leaves_a_marker_in_its_row_that_no_json_text_can_be(sql: SqlStore) -> None:
    run_id, messages = create(sql, [[], []])
    complete(sql, messages[0], f'"{"x" * 99}"')
    complete(sql, messages[1], f'"{"x" * 98}"')
    assert rows(sql, "SELECT n, output FROM steps ORDER BY n") == [(0, results.MARKER), (1, f'"{"x" * 98}"')]
    ((n, body),) = rows(sql, "SELECT n, body FROM results")
    assert n == 0
    assert len(body) < 30
    assert sql.outputs(run_id, [0]) == {0: f'"{"x" * 99}"'}
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(results.MARKER)


def test_half_of_a_surrogate_pair_in_a_large_output_comes_back(sql: SqlStore) -> None:
    run_id, (message,) = create(sql, [[]])
    output = '"' + "\ud83d" * 200 + '"'
    complete(sql, message, output)
    assert sql.outputs(run_id, [0]) == {0: output}


def test_a_superseded_record_keeps_no_result(sql: SqlStore) -> None:
    run_id, (message,) = create(sql, [[]])
    old = claim(sql, message)
    sql.record(old.claim, Reopened("its worker died"), 3.0)
    assert sql.record(old.claim, Completed(LARGE), 4.0) is None
    assert rows(sql, "SELECT count(*) FROM results") == [(0,)]
    complete(sql, message, LARGE)
    assert sql.outputs(run_id, [0]) == {0: LARGE}


def test_a_large_output_is_compressed_once_however_often_its_transaction_is_tried(
    sql: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    compressed: list[int] = []
    real = results.zlib.compress
    monkeypatch.setattr(results.zlib, "compress", lambda *args: compressed.append(1) or real(*args))
    packing = results.Packing(100)
    assert packing.body(LARGE) == packing.body(LARGE)
    assert len(compressed) == 1
    assert packing.body("null") is None
    assert packing.body(None) is None


def test_a_failed_step_has_no_result(sql: SqlStore) -> None:
    run_id, (message,) = create(sql, [[]])
    sql.record(claim(sql, message).claim, Failed(ErrorInfo("ValueError", "no")), 3.0)
    assert sql.outputs(run_id, [0]) == {}
    step = sql.step(StepRef(run_id, 0))
    assert step is not None
    assert (step.status, step.output) == (TaskStatus.FAILED, None)
