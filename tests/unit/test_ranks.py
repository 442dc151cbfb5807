"""Ranks: the longest path from a step to the end, by what steps took before."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.engine import blueprint
from orchestra.engine.plan import Plan, plan
from orchestra.engine.ranks import BESIDE_S, UNIT, ranks, weights
from orchestra.model.task import Task
from orchestra.model.workflow import Workflow
from orchestra.runtime.registry import Registry


@dataclass
class Join:
    """Steps that wait."""

    bodies: list[int]


def quick() -> None:
    """A body."""


def slow() -> None:
    """Another."""


def planned(durations: dict[str, float] | None = None) -> Plan:
    """Two ways into one end: over one long step, or over three short ones."""
    agents = {"long": slow, "one": quick, "two": quick, "three": quick, "end": quick}
    after = {"two": ["one"], "three": ["two"], "end": ["long", "three"]}
    flow = Workflow("two ways", [Task(name, agent) for name, agent in agents.items()], after)
    return plan(flow.graph(), Registry(travels=False).bind, queue="q", durations=durations)


def rank_of(whole: Plan) -> dict[str, int]:
    """Return ranks by the names of steps."""
    return {step.name: step.rank for step in whole.steps}


def test_without_durations_the_longest_path_is_the_one_of_most_steps() -> None:
    assert weights(["a"], ["t"], {}) is None
    assert weights(["a"], ["t"], {"b": 1.0}) is None
    expected = {"long": 2, "one": 4, "two": 3, "three": 2, "end": 1}
    assert rank_of(planned()) == {name: steps * UNIT for name, steps in expected.items()}


def test_with_durations_it_is_the_one_that_takes_longest() -> None:
    rank = rank_of(planned({"long": 9.0, "one": 1.0, "two": 1.0, "three": 1.0, "end": 1.0}))
    assert sorted(rank, key=lambda name: -rank[name]) == ["long", "one", "two", "three", "end"]
    average = (13 + 5 * BESIDE_S) / 5
    assert rank["long"] == pytest.approx(UNIT * (10 + 2 * BESIDE_S) / average, abs=2)


def test_what_is_not_known_takes_as_long_as_what_calls_the_same() -> None:
    known = weights(["a", "b", "c", "d"], ["x", "x", "y", "z"], {"a": 3.0, "c": 1.0})
    assert known is not None
    assert known[0] == known[1] > known[3] > known[2]
    assert sum(known) == pytest.approx(4 * UNIT, abs=4)


def test_bodies_that_take_next_to_nothing_are_ordered_by_their_number() -> None:
    rank = rank_of(planned({"long": 0.002, "one": 0.001, "two": 0.0, "three": 0.0, "end": 0.0}))
    assert rank["one"] > rank["long"]


def test_a_layer_that_feeds_another_costs_its_steps_and_not_its_edges() -> None:
    joins = [Join(list(range(2000 * n + 2000, 2000 * n + 4000))) for n in range(3)]
    feeds = [[n] for n in range(3) for _ in range(2000)] + [[] for _ in range(2000)]
    assert [ranks(joins, feeds)[n] for n in (0, 2000, 4000, 6000)] == [4 * UNIT, 3 * UNIT, 2 * UNIT, UNIT]


def test_a_job_is_ranked_when_it_is_due() -> None:
    data = blueprint.to_json(planned())
    durations = {"long": 9.0, "one": 1.0, "two": 1.0, "three": 1.0, "end": 1.0}
    assert rank_of(blueprint.from_json(data)) == rank_of(planned())
    assert rank_of(blueprint.from_json(data, durations)) == rank_of(planned(durations))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_every_step_counts_and_their_average_is_one_unit(seconds: list[float]) -> None:
    names = [f"s{n}" for n in range(len(seconds))]
    known = weights(names, ["t"] * len(names), dict(zip(names, seconds, strict=True)))
    assert known is not None
    assert min(known) >= 1
    assert sum(known) == pytest.approx(len(known) * UNIT, abs=len(known) + 1)
