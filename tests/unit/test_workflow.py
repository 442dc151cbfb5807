"""Workflow: tasks and what depends on what, lowered to a graph."""

from typing import Any

import pytest

from orchestra import ExecutionPattern, Task, Workflow
from orchestra.errors import (
    ContradictoryOrder,
    CyclicDependency,
    DuplicateName,
    InvalidOption,
    UnknownDependency,
    UnserialisableInput,
    UntraceableInput,
)

SEQUENTIAL = ExecutionPattern.SEQUENTIAL


def body(value: Any = None) -> Any:
    return value


def nothing() -> None: ...


def edges(flow: Workflow, *options: Any) -> dict[str, list[str]]:
    steps = flow.graph(*options).steps
    return {step.name: [steps[before].name for before in sorted(step.after)] for step in steps}


def inputs(flow: Workflow, *options: Any) -> dict[str, list[object]]:
    return {step.name: list(step.args) for step in flow.graph(*options).steps}


def test_dependencies_name_tasks_by_name_or_id() -> None:
    flow = Workflow("w", [Task("A", body, id="a1"), Task("B", body, id="b1")], {"b1": ["A"], "B": ["a1"]})
    assert edges(flow) == {"A": [], "B": ["A"]}


def test_inputs_that_read_outputs_are_dependencies_too() -> None:
    first, second = Task("first", body), Task("second", body)
    lazy, handed = Task("lazy", body, lambda: f"{first.output}{second.output}"), Task("handed", body, [{"x": second}])
    named = Task("named", body, kwargs={"value": first})
    flow = Workflow("w", [lazy, handed, named, first, second], {"lazy": ["named"]})
    assert edges(flow) == {
        "lazy": ["named", "first", "second"], "handed": ["second"], "named": ["first"], "first": [], "second": [],
    }  # fmt: skip


def test_names_and_ids_are_what_was_given_or_made_up() -> None:
    flow = Workflow(None, [Task(None, body)], id="workflow-001")
    assert (flow.id, flow.name, flow.tasks[0].name) == ("workflow-001", "workflow-001", "body")
    made_up = Workflow("named", [Task("a", body)])
    assert (made_up.name, len(made_up.id)) == ("named", 36)
    assert made_up.graph().steps[0].key == made_up.tasks[0].id


def test_the_input_of_the_run_goes_to_who_has_neither_input_nor_predecessor_nor_is_without_parameters() -> None:
    tasks = [Task("free", body), Task("own", body, 1), Task("after", body), Task("none", nothing),
             Task("named", body, kwargs={"value": 2})]  # fmt: skip
    flow = Workflow("w", tasks, {"after": ["free"]})
    assert inputs(flow, ExecutionPattern.PARALLEL, "given") == {
        "free": ["given"], "own": [1], "after": [], "none": [], "named": [],
    }  # fmt: skip


def test_in_sequence_only_the_first_task_gets_the_input_of_the_run() -> None:
    flow = Workflow("w", [Task(name, body) for name in "abc"])
    assert inputs(flow, SEQUENTIAL, "given") == {"a": ["given"], "b": [], "c": []}
    assert edges(flow, SEQUENTIAL) == {"a": [], "b": ["a"], "c": ["b"]}
    assert all(step.from_predecessors for step in flow.graph(SEQUENTIAL, "given").steps[1:])


def test_in_sequence_earlier_outputs_may_still_be_read() -> None:
    first = Task("first", body)
    flow = Workflow("w", [first, Task("second", body), Task("third", body, lambda: f"{first.output}")])
    assert edges(flow, SEQUENTIAL)["third"] == ["first", "second"]


def test_a_sequence_against_the_dependencies_is_refused_also_when_an_input_says_so() -> None:
    last = Task("last", body)
    for flow in (
        Workflow("w", [Task("first", body), last], {"first": ["last"]}),
        Workflow("w", [Task("first", body, lambda: f"{last.output}"), last]),
    ):
        with pytest.raises(ContradictoryOrder) as raised:
            flow.graph(SEQUENTIAL)
        assert (raised.value.task, raised.value.predecessor) == ("first", "last")
        assert edges(flow) == {"first": ["last"], "last": []}


def test_the_name_of_one_task_may_not_be_the_id_of_another() -> None:
    for tasks in ([Task("a", body), Task("a", body)], [Task("a", body, id="x"), Task("x", body)],
                  [Task("a", body, id="x"), Task("b", body, id="x")]):  # fmt: skip
        with pytest.raises(DuplicateName):
            Workflow("w", tasks)
    same = Task("a", body, id="a")
    assert Workflow("w", [same, Task("b", body)]).tasks[0] is same
    with pytest.raises(DuplicateName):
        Workflow("w", [Task("b", body, id="c"), Task("c", body, id="b")])


def test_a_task_that_reads_its_own_output_is_a_cycle() -> None:
    own = Task("own", body)
    own.input = lambda: f"{own.output}"
    for flow in (Workflow("w", [own]),):
        with pytest.raises(CyclicDependency, match="own → own"):
            flow.graph()
    with pytest.raises(CyclicDependency, match="b → b"):
        Workflow("w", [Task("b", body)], {"b": ["b"]})


def test_what_is_not_in_the_workflow_is_unknown() -> None:
    outside = Task("outside", body)
    with pytest.raises(UnknownDependency):
        Workflow("w", [Task("a", body)], {"a": ["outside"]})
    flow = Workflow("w", [Task("a", body, lambda: f"{outside.output}")])
    with pytest.raises(UnknownDependency, match="'a' depends on 'outside'"):
        flow.graph()


@pytest.mark.parametrize("dependencies", [{"a": "b"}, {"a": 3}, {"a": None}])
def test_dependencies_that_are_no_lists_are_refused(dependencies: Any) -> None:
    with pytest.raises(InvalidOption, match=r"dependencies\['a'\]"):
        Workflow("w", [Task("a", body), Task("b", body)], dependencies)


def test_tasks_that_are_no_tasks_are_refused() -> None:
    for tasks in ([], [body]):
        with pytest.raises(InvalidOption, match="tasks="):
            Workflow("w", tasks)  # type: ignore[arg-type]


class Callable:
    def __call__(self) -> str:
        return "called"


def test_only_functions_are_traced_and_other_objects_are_data() -> None:
    from dataclasses import dataclass

    @dataclass
    class Both:
        value: int

        def __call__(self) -> str:
            return "called"

    assert inputs(Workflow("w", [Task("a", body, Both(1))]))["a"] == [{"value": 1}]
    for given in (Callable(), Callable, Task):
        with pytest.raises(UnserialisableInput):
            Workflow("w", [Task("a", body, given)]).graph()

    class Making:
        def text(self) -> str:
            return "made"

    assert inputs(Workflow("w", [Task("a", body, Making().text)]))["a"] == ["made"]


def test_a_function_that_raises_while_it_is_traced_is_refused_with_what_it_raised() -> None:
    def broken() -> object:
        raise LookupError("nothing there")

    with pytest.raises(UntraceableInput, match="LookupError: nothing there"):
        Workflow("w", [Task("a", body, broken)]).graph()


def test_a_workflow_can_be_drawn() -> None:
    flow = Workflow("w", [Task('say "hi"', body), Task("b", body)], {"b": ['say "hi"']})
    assert flow.to_mermaid().splitlines() == [
        "flowchart LR", '    s0["say &quot;hi&quot;"]', '    s1["b"]', "    s0 --> s1",
    ]  # fmt: skip


def test_tasks_and_workflows_show_what_they_are() -> None:
    task = Task("Gather", body, id="g1")
    assert (repr(task), repr(Workflow("W", [task]))) == ("<Task 'Gather' g1>", "<Workflow 'W' of 1 tasks>")
