"""What a store says of how long the steps of a workflow take."""

import pytest

from orchestra.engine.outcome import Completed
from orchestra.model.status import WorkflowStatus
from orchestra.store.contract import MOST_LEARNED
from orchestra.testing.contract.desk import Desk, a_map, graph, must


class Learning:
    """``durations``."""

    def test_it_says_what_the_steps_of_a_workflow_took_in_its_last_run_that_completed(self, desk: Desk) -> None:
        shape = graph([], [0], [0], s0={"name": "größe"}, s1={"name": "twice"}, s2={"name": "twice"})
        assert desk.store.durations("a") == {}
        for longer in (0, 10):
            run = desk.create(shape, name="a")
            for n, seconds in ((0, 1), (1, 2), (2, 4)):
                claimed = desk.claim(run, n)
                desk.clock.advance(seconds + longer)
                desk.record(claimed, Completed("null"))
        assert desk.store.durations("a") == pytest.approx({"größe": 11, "twice": 13})
        assert desk.store.durations("b") == {}
        later = desk.create(shape, name="a")
        desk.complete(later, 0)
        desk.cancel(later)
        desk.create(shape, name="a")
        assert desk.store.durations("a") == pytest.approx({"größe": 11, "twice": 13})
        desk.store.prune(desk.clock() + 1, 100)
        assert desk.store.durations("a") == {}

    def test_the_duration_of_a_map_has_its_parts_in_it_and_single_tasks_have_none(self, desk: Desk) -> None:
        run = desk.create(graph([], [0], s0=a_map()), name="a")
        for n in desk.spread(run, 0, 2):
            claimed = desk.claim(run, n)
            desk.clock.advance(2)
            desk.record(claimed, Completed("null"))
        desk.complete(run, 1)
        assert desk.store.durations("a") == pytest.approx({"s0": 4, "s1": 0})
        desk.complete(desk.single(name="alone"), 0)
        assert desk.store.durations("work") == desk.store.durations("alone") == {}

    def test_what_a_fork_kept_took_no_time(self, desk: Desk) -> None:
        run = desk.create(graph([], [0]), name="a")
        claimed = desk.claim(run, 0)
        desk.clock.advance(3)
        desk.record(claimed, Completed("null"))
        desk.complete(run, 1)
        desk.clock.advance(1)
        desk.go_on(must(desk.fork(run, 1)), 1)
        assert set(desk.store.durations("a")) == {"s1"}

    def test_of_a_large_run_only_the_first_steps_are_looked_at(self, desk: Desk) -> None:
        run = desk.create(graph(*(() for _ in range(MOST_LEARNED + 2))), name="a")
        desk.work()
        assert set(desk.store.durations("a")) == {f"s{n}" for n in range(MOST_LEARNED)}
        assert desk.ended(run) is WorkflowStatus.COMPLETED
