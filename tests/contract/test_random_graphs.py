"""Random graphs end, on every store, as a sequential interpreter says: the cycle alone, without Celery or threads."""

import os
from collections.abc import Iterator

import pytest

from orchestra.store.contract import Store
from orchestra.testing import check_history, check_transitions
from tests.loop import Loop, ends_of
from tests.shapes import Told, expected_status, interpret, random_graph
from tests.stores import KINDS, open_url, store_url

GRAPHS = int(os.environ.get("ORCHESTRA_GRAPHS", "40"))
"""How many graphs on each store."""
BATCH = 20


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    store = open_url(store_url(request.param, request))
    yield store
    store.close()


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, GRAPHS, BATCH))
def test_random_graphs_end_as_the_interpreter_says(store: Store, first: int) -> None:
    for seed in range(first, min(first + BATCH, GRAPHS)):
        graph, told = random_graph(seed), Told()
        interpret(graph, told)
        # Every other worker loses and doubles messages, and dies with some.
        loop = Loop(store, seed, mischief=0.05 * (seed % 2))
        run_id = loop.submit(graph)
        loop.run()
        run = store.run(run_id)
        assert run is not None
        assert (seed, ends_of(store, run_id)) == (seed, told.ends)
        assert (seed, run.status) == (seed, expected_status(told))


@pytest.mark.parametrize("first", range(0, GRAPHS // 2, BATCH))
def test_random_graphs_change_no_status_against_the_rules_and_tell_their_story(store: Store, first: int) -> None:
    watched = check_transitions(store)
    for seed in range(first, first + BATCH):
        loop = Loop(watched, seed, mischief=0.1)
        run_id = loop.submit(random_graph(seed, size=20))
        loop.run()
        assert all(step.status.ended for step in store.steps(run_id)), seed
    check_history(store)


@pytest.mark.parametrize("first", range(0, GRAPHS // 2, BATCH))
def test_random_graphs_that_fail_or_are_cancelled_end_whatever_is_on_its_way(store: Store, first: int) -> None:
    watched = check_transitions(store)
    for seed in range(first, first + BATCH):
        loop = Loop(watched, seed, mischief=0.1)
        run_id = loop.submit(random_graph(seed, size=30, may_fail=True, on_failure="fail"))
        loop.run(cancel_after=loop.chance.choice([None, None, 5, 20]), run_id=run_id)
        run = store.run(run_id)
        assert run is not None
        assert run.status.ended
        open_steps = [step for step in store.steps(run_id) if not step.status.ended]
        assert (seed, open_steps) == (seed, [])
    check_history(store)
