"""Plans: graphs compiled to numbered steps, chains and joins."""

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra import Task, Workflow, task, workflow
from orchestra.engine.plan import SEGMENT, Plan, StepInput, plan
from orchestra.engine.ranks import UNIT
from orchestra.errors import CyclicDependency
from orchestra.runtime.registry import Registry


def body(value: Any = None) -> Any:
    return value


def nothing() -> None: ...


def compiled(after: Mapping[str, Sequence[str]], names: Sequence[str], **options: Any) -> Plan:
    flow = Workflow(
        "flow", [Task(name, body) for name in names], {each: list(before) for each, before in after.items()}
    )
    return plan(flow.graph(), Registry(travels=False).bind, queue="q", **options)


def joins(compiled: Plan) -> dict[str, str]:
    """Return for each set of predecessors who waits for it."""
    name = {step.n: step.name for step in compiled.steps}
    return {"".join(sorted(name[n] for n in join.parts)): "".join(sorted(name[n] for n in join.bodies))
            for join in compiled.joins}  # fmt: skip


def chains(compiled: Plan) -> list[str]:
    name = {step.n: step.name for step in compiled.steps}
    return [step.name + "".join(name[n] for n in step.chain) for step in compiled.steps if step.chain]


def test_steps_with_the_same_predecessors_share_one_join() -> None:
    diamond = compiled({"b": "a", "c": "a", "d": ["b", "c"], "e": ["c", "b"]}, "abcde")
    assert joins(diamond) == {"a": "bc", "bc": "de"}
    assert {step.name: len(step.feeds) for step in diamond.steps} == {"a": 1, "b": 1, "c": 1, "d": 0, "e": 0}


def test_overlapping_joins_are_counted_apart() -> None:
    overlapping = compiled({"C": "A", "D": "AB", "E": "C", "F": "E", "G": "ABE"}, "ABCDEFG")
    assert joins(overlapping) == {"A": "C", "AB": "D", "C": "E", "E": "F", "ABE": "G"}
    assert {step.name: len(step.feeds) for step in overlapping.steps} == {
        "A": 3, "B": 2, "C": 1, "D": 0, "E": 2, "F": 0, "G": 0,
    }  # fmt: skip


def test_a_linear_run_is_a_chain_until_it_branches_or_joins() -> None:
    assert chains(compiled({"b": "a", "c": "b", "d": "c"}, "abcd")) == ["abcd"]
    assert chains(compiled({"b": "a", "c": "b", "d": "b", "e": "cd", "f": "e"}, "abcdef")) == ["ab", "ef"]
    assert chains(compiled({"b": "a", "c": "a"}, "abc")) == []


def test_a_long_chain_travels_in_segments() -> None:
    names = [f"t{n}" for n in range(2 * SEGMENT + 1)]
    long = compiled({after: [before] for before, after in itertools.pairwise(names)}, names)
    assert [len(step.chain) for step in long.steps if step.chain] == [SEGMENT - 1, SEGMENT - 1]
    assert [step.n for step in long.steps if step.chain] == [0, SEGMENT]


def test_a_full_graph_of_ten_layers_of_two_hundred_is_nine_joins_and_quickly_compiled() -> None:
    layers = [[f"{layer}.{n}" for n in range(200)] for layer in range(10)]
    after = {name: layers[at - 1] for at, layer in enumerate(layers) if at for name in layer}
    tasks = [Task(name, body) for layer in layers for name in layer]
    flow = Workflow("full", tasks, after)
    started = time.perf_counter()
    full = plan(flow.graph(), Registry(travels=False).bind, queue="q")
    print(f"10 × 200 compiled in {time.perf_counter() - started:.2f} s")
    assert len(full.joins) == 9
    assert all(len(join.parts) == len(join.bodies) == 200 for join in full.joins)
    assert [full.steps[n].rank for n in (0, 200, 1999)] == [10 * UNIT, 9 * UNIT, UNIT]


def test_numbers_keep_the_order_as_written_among_those_that_are_ready() -> None:
    assert [step.name for step in compiled({"a": "c"}, "abcd").steps] == ["b", "c", "d", "a"]


def test_a_cycle_is_named_whole_and_nothing_beside_it() -> None:
    with pytest.raises(CyclicDependency) as raised:
        compiled({"a": "c", "b": "a", "c": "b", "x": "a"}, "xabc")
    assert sorted(raised.value.cycle) == ["a", "b", "c"]


def test_a_cycle_is_told_in_the_direction_of_its_edges() -> None:
    with pytest.raises(CyclicDependency) as raised:
        compiled({"a": "c", "b": "a", "c": "b", "x": "a"}, "xabc")
    cycle = "".join(raised.value.cycle)
    assert cycle in ("abc", "bca", "cab")


def test_options_are_those_of_the_step_then_of_the_run_then_the_default() -> None:
    tasks = [Task("own", body, priority=1, queue="mine", timeout=3), Task("none", body)]
    own, none = plan(Workflow("w", tasks).graph(), Registry(travels=False).bind, priority=4, queue="usual").steps
    assert (own.priority, own.queue, own.timeout_s) == (1, "mine", 3.0)
    assert (none.priority, none.queue, none.timeout_s, none.retry) == (4, "usual", None, None)


def test_inputs_name_steps_by_number_and_defaults_come_from_predecessors() -> None:
    first = Task("first", nothing)
    tasks = [Task("reads", body, lambda: f"{first.output}"), Task("takes", body), Task("ignores", nothing), first]
    flow = Workflow("w", tasks, {"takes": ["first"], "ignores": ["first"]})
    steps = {step.name: step for step in plan(flow.graph(), Registry(travels=False).bind, queue="q").steps}
    assert steps["reads"].input.args == [{"$text": [{"$ref": steps["first"].n}]}]
    assert steps["reads"].input.needs() == [steps["first"].n]
    assert not steps["reads"].input.from_predecessors
    assert steps["takes"].input.from_predecessors
    assert not steps["ignores"].input.from_predecessors
    assert not steps["first"].input.from_predecessors


@pytest.mark.parametrize(
    "given_input",
    [
        StepInput(), StepInput([1, None, {"$ref": 2}]), StepInput(kwargs={"a": {"$text": ["x", {"$ref": 0}]}}),
        StepInput([""], {"b": False}, items={"$ref": 3}), StepInput([None], items=[0]),
    ],
)  # fmt: skip
def test_an_input_survives_json(given_input: StepInput) -> None:
    again = StepInput.from_json(given_input.to_json())
    assert (list(again.args), dict(again.kwargs)) == (list(given_input.args), dict(given_input.kwargs))
    assert again.items == (given_input.items or [])
    assert again.needs() == given_input.needs()


def test_the_result_is_the_last_output_or_those_of_all_that_are_last() -> None:
    assert compiled({"b": "a"}, "ab").result == {"$ref": 1}
    assert compiled({"b": "a", "c": "a"}, "abc").result == {"b": {"$ref": 1}, "c": {"$ref": 2}}

    @workflow
    def flow() -> Any:
        step = task(body)(1)
        return {"it": step, "twice": [step, step]}

    both = plan(flow.graph(), Registry(travels=False).bind, queue="q")
    assert both.result == {"it": {"$ref": 0}, "twice": [{"$ref": 0}, {"$ref": 0}]}


@st.composite
def graphs(draw: st.DrawFn) -> list[list[int]]:
    """For each position, the positions before it in a hidden order: any graph without cycles."""
    size = draw(st.integers(1, 12))
    order = draw(st.permutations(range(size)))
    after: list[list[int]] = [[] for _ in range(size)]
    for place, position in enumerate(order):
        if place:
            after[position] = draw(st.lists(st.sampled_from(order[:place]), unique=True, max_size=4))
    return after


@given(graphs())
def test_any_graph_without_cycles_keeps_its_edges_and_its_invariants(after: list[list[int]]) -> None:
    names = [f"t{n}" for n in range(len(after))]
    whole = compiled({names[n]: [names[each] for each in before] for n, before in enumerate(after) if before}, names)
    steps = whole.steps
    assert [step.n for step in steps] == list(range(len(after)))
    assert sorted(step.position for step in steps) == list(range(len(after)))
    for step in steps:
        parts = whole.joins[step.waits_for].parts if step.waits_for is not None else ()
        assert {steps[n].position for n in parts} == set(after[step.position])
        assert all(n < step.n for n in parts)  # rows are locked in the order of numbers
        assert all(step.n in whole.joins[j].parts for j in step.feeds)
        behind = [steps[body].rank for j in step.feeds for body in whole.joins[j].bodies]
        assert step.rank == UNIT + max(behind, default=0)
    assert len({join.parts for join in whole.joins}) == len(whole.joins)
    linked = [n for step in steps for n in step.chain]
    assert len(linked) == len(set(linked))
    for step in steps:
        for before, link in zip([step.n, *step.chain], step.chain, strict=False):
            (only,) = steps[before].feeds
            assert (whole.joins[only].parts, whole.joins[only].bodies) == ((before,), (link,))
