"""Rows: a plan as stores keep it, and what a step adds to its run."""

import json

import pytest

from orchestra.engine.plan import StepInput
from orchestra.engine.rows import JoinRow, StepRow, is_last, of_elements, of_plan, rows
from orchestra.model import template
from orchestra.model.graph import StepOptions
from orchestra.model.retry import RetryPolicy
from orchestra.model.status import TaskStatus
from orchestra.testing.contract.desk import WITH_FALLBACK, a_map, compiled, graph


def parent(**fields: object) -> StepRow:
    row = {
        "n": 3, "key": "p", "name": "p", "task": "task", "target": "m:p", "status": TaskStatus.QUEUED, "priority": 5,
        "queue": "q", "rank": 1, "input": {}, "round": 2,
    }  # fmt: skip
    return StepRow(**{**row, **fields})  # type: ignore[arg-type]


def test_steps_without_predecessors_are_queued_and_the_others_pending() -> None:
    steps, joins = rows(compiled(graph([], [], [0, 1], [2])))
    assert [step.status for step in steps] == ["QUEUED", "QUEUED", "PENDING", "PENDING"]
    assert joins == [JoinRow(0, [0, 1]), JoinRow(1, [2])]
    assert [step.waits_for for step in steps] == [None, None, 0, 1]


def test_what_a_step_feeds_says_all_that_its_end_needs_to_know() -> None:
    steps, _joins = rows(compiled(graph([], [], [0, 1], [0, 1], [0, 1], s4={"any": True})))
    assert steps[0].feeds == [[0, 2, 2, 0], [1, 2, 1, 1]]
    assert steps[4].feeds is None


def test_every_row_is_json() -> None:
    options = StepOptions(1, "other", RetryPolicy(3, give_up_on="ValueError"), 5.0, "instead", 7)
    shape = graph([], [0], s1={"options": options, "metadata": {"a": 1}, "whens": {0: "output"}, **a_map(2)})
    for step in rows(compiled(shape))[0]:
        for value in (step.input, step.retry, step.metadata, step.feeds, step.chain, step.whens, step.fallback):
            assert json.loads(json.dumps(value)) == value


@pytest.mark.parametrize(("feeds", "last"), [
    (None, True),
    ([], True),
    ([[0, 2, 1, 1]], True),
    ([[0, 2, 1, 0]], False),
    ([[0, 2, 1, 1], [1, 1, 1, 0]], False),
])  # fmt: skip
def test_a_step_that_only_joins_of_any_wait_for_is_waited_for_by_its_run(
    feeds: list[list[int]] | None, last: bool
) -> None:
    assert is_last(feeds) is last


def test_parts_of_a_map_are_like_it_with_inputs_of_their_own() -> None:
    feeds, retry, fallback = [[0, 1, 1, 0]], {"max_attempts": 3}, ["t", "x", "y"]
    like = parent(is_map=True, max_parallel=2, feeds=feeds, retry=retry, fallback=fallback)
    expansion = of_elements(like, [StepInput([n]) for n in range(3)], 10)
    assert [(each.n, each.key, each.status) for each in expansion.steps] == [
        (10, "p[0]", "QUEUED"), (11, "p[1]", "QUEUED"), (12, "p[2]", "PENDING"),
    ]  # fmt: skip
    for each in expansion.steps:
        assert (each.parent, each.is_map, each.feeds, each.max_parallel) == (3, False, None, None)
        assert (each.retry, each.fallback, each.round) == (like.retry, like.fallback, 2)
    assert (expansion.parts, expansion.collects) == (3, None)


def test_a_map_over_nothing_has_no_parts() -> None:
    assert of_elements(parent(is_map=True), [], 10).parts == 0


def test_the_numbers_of_a_sub_workflow_are_moved_up_everywhere() -> None:
    shape = graph([], [0], [1], s1={"args": [template.reference_to(0), {"deep": template.reference_to(0)}]})
    expansion = of_plan(compiled(shape, gathered=True), parent(), 10, 5)
    first, second, third = expansion.steps
    assert (first.n, second.n, third.n) == (10, 11, 12)
    assert second.input["args"] == [{"$ref": 10}, {"deep": {"$ref": 10}}]
    assert (first.feeds, second.waits_for) == ([[5, 1, 1, 0]], 5)
    assert [link[0] for link in first.chain or ()] == [11, 12]
    assert expansion.joins == [JoinRow(5, [10]), JoinRow(6, [11])]
    assert {each.parent for each in expansion.steps} == {3}
    assert {each.round for each in expansion.steps} == {3}
    assert (expansion.collects, expansion.parts) == (12, 1)


def test_a_sub_workflow_waits_for_all_of_its_last_steps() -> None:
    expansion = of_plan(compiled(graph([], [], result={"$ref": 1}), gathered=True), parent(), 10, 5)
    assert (expansion.parts, expansion.collects) == (2, 11)


def test_conditions_on_what_becomes_a_workflow_move_to_its_only_last_step() -> None:
    whens = {"0": "output > 1"}
    for shape in (graph([], []), graph([]), graph([], [0], s1={"whens": {0: "output"}}), graph([], s0=a_map())):
        expansion = of_plan(compiled(shape, gathered=True, alone=True), parent(whens=whens), 10, 5)
        assert expansion.parts == 1
        guarded = [each.n for each in expansion.steps if each.whens == whens]
        assert guarded == [expansion.collects]
        assert not expansion.steps[guarded[0] - 10].is_map


def test_the_result_of_a_workflow_with_conditions_is_made_also_when_no_way_is_taken() -> None:
    expansion = of_plan(
        compiled(graph([], [0], [0], s1={"whens": {0: "output"}}, s2={"whens": {0: "output"}}), gathered=True),
        parent(), 10, 5,
    )  # fmt: skip
    begun = next(each for each in expansion.steps if each.name.endswith("(begun)"))
    gather = next(each for each in expansion.steps if each.name.endswith("(result)"))
    join = next(each for each in expansion.joins if each.number == gather.waits_for)
    assert begun.n in join.parts
    assert begun.feeds == [[join.number, 3, 1, 0]]


def test_a_fallback_is_named_after_its_step() -> None:
    (step,) = rows(compiled(graph([], s0={"options": WITH_FALLBACK})))[0]
    assert step.fallback == ["task", "m:other", "s0 (fallback)"]


def test_a_condition_on_a_map_is_one_on_a_step_behind_it() -> None:
    shape = graph([], [0], s0=a_map(), s1={"whens": {0: "len(output) > 1"}, "args": [template.reference_to(0)]})
    mapped, gate, guarded = rows(compiled(shape))[0]
    assert (mapped.whens, gate.whens) == (None, {"1": "len(output) > 1"})
    # The only way into the step is the guarded one, though it takes the output of the map.
    assert guarded.waits_for == 1
    assert mapped.feeds == [[0, 1, 1, 0]]
    assert guarded.input == {"args": [{"$ref": gate.n}]}
