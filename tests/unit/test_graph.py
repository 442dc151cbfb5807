"""The builder behind ``@workflow``: calls become steps, arguments that are steps become edges."""

import threading
from typing import Any, cast

import pytest

from orchestra import task, workflow
from orchestra.errors import DefinitionError, InvalidOption, UnserialisableInput, UntraceableInput
from orchestra.model.graph import Graph, StepHandle, current_builder, display_name, takes_input


@task
def make(value: Any = None) -> Any:
    return value


@task(name="Joined", priority=2, queue="q", retry=3, timeout=5)
def join(*values: Any, **named: Any) -> Any:
    return [*values, named]


def graph(build: Any, *args: Any) -> Graph:
    return workflow(build).graph(*args)


def test_calls_are_steps_in_their_order_with_names_of_their_own() -> None:
    def flow() -> None:
        make(1)
        make(2)
        join(3)
        make(4)

    assert [step.name for step in graph(flow).steps] == ["make", "make-2", "Joined", "make-3"]
    assert [step.key for step in graph(flow).steps] == ["make", "make-2", "Joined", "make-3"]


def test_arguments_that_are_steps_are_edges_wherever_they_are() -> None:
    def flow() -> Any:
        first, second = make(1), make(2)
        return join(first, [{"deep": second}], key=first)

    built = graph(flow)
    assert [sorted(step.after) for step in built.steps] == [[], [], [0, 1]]
    assert list(built.steps[2].args) == [{"$ref": 0}, [{"deep": {"$ref": 1}}]]
    assert dict(built.steps[2].kwargs) == {"key": {"$ref": 0}}
    assert built.result == {"$ref": 2}


def test_options_of_the_task_are_options_of_the_step_and_may_be_changed_for_one_call() -> None:
    def flow() -> None:
        join(1)
        join.options(priority=9, name="Other")(2)

    usual, changed = graph(flow).steps
    assert (usual.name, usual.options.priority, usual.options.queue, usual.options.timeout_s) == ("Joined", 2, "q", 5.0)
    assert (changed.name, changed.options.priority, changed.options.queue) == ("Other", 9, "q")
    assert join.step_options.priority == 2


def test_a_map_keeps_what_it_maps_over_and_how_many_at_once() -> None:
    def flow() -> Any:
        return join.map(make([1]), max_parallel=3, prefix=make("x"))

    built = graph(flow)
    step = built.steps[2]
    assert step.mapped is not None
    assert (step.mapped.items, step.mapped.max_parallel, dict(step.kwargs)) == ({"$ref": 0}, 3, {"prefix": {"$ref": 1}})
    assert step.after == {0, 1}


@pytest.mark.parametrize("limit", [0, -1, True, "3", 1.5])
def test_a_map_with_a_limit_that_is_not_possible_is_refused_inside_and_outside(limit: Any) -> None:
    with pytest.raises(InvalidOption, match="max_parallel"):
        make.map([1], max_parallel=limit)
    with pytest.raises(InvalidOption, match="max_parallel"):
        graph(lambda: make.map([1], max_parallel=limit))


@pytest.mark.parametrize("items", [None, 0, "text", {}, {"a": [1]}, 3.5])
def test_a_map_over_something_that_is_neither_list_nor_step_is_refused(items: Any) -> None:
    with pytest.raises(InvalidOption, match=r"map=.*a list, or a step whose output is one"):
        graph(lambda: make.map(items))
    assert graph(lambda: make.map((1, 2))).steps[0].mapped is not None


def test_outside_a_workflow_tasks_are_functions() -> None:
    assert make(3) == 3
    assert join(1, a=2) == [1, {"a": 2}]
    assert make.map([1, 2]) == [1, 2]
    assert current_builder() is None


def test_building_is_over_also_when_it_failed() -> None:
    def broken() -> None:
        raise LookupError("in the middle")

    with pytest.raises(LookupError):
        graph(broken)
    assert current_builder() is None
    assert make(3) == 3


def test_two_threads_build_their_own_workflows() -> None:
    barrier = threading.Barrier(2)
    built: dict[str, Graph] = {}

    def build(label: str) -> None:
        def flow() -> None:
            make(label)
            barrier.wait(30)
            make(label)

        built[label] = graph(flow)

    threads = [threading.Thread(target=build, args=(label,)) for label in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {label: [list(step.args) for step in whole.steps] for label, whole in built.items()} == {
        "a": [["a"], ["a"]], "b": [["b"], ["b"]],
    }  # fmt: skip


def test_a_step_of_another_workflow_is_refused() -> None:
    kept: list[Any] = []
    graph(lambda: kept.append(make(1)))
    with pytest.raises(InvalidOption, match="workflow that is being built"):
        graph(lambda: make(kept[0]))


def test_a_step_can_be_told_from_others_and_kept_in_a_set() -> None:
    def flow() -> None:
        first, second = make(1), make(2)
        assert first == first
        assert first != second
        assert len({first, second, first}) == 2
        assert [first, second].index(second) == 1
        assert repr(first) == "<step 'make'>"
        assert isinstance(first, StepHandle)

    graph(flow)


@pytest.mark.parametrize(
    "look",
    [lambda s: s == 3, lambda s: s != 3, lambda s: 3 == s, lambda s: s < 3, bool, str, len, iter, int, float,  # noqa: SIM300
     lambda s: s[0], lambda s: s.name2, lambda s: s(), lambda s: s * 2, lambda s: 2 - s, lambda s: f"{s:>3}",
     lambda s: s % 2],
)  # fmt: skip
def test_looking_at_a_step_is_refused_and_names_it(look: Any) -> None:
    with pytest.raises(UntraceableInput, match="'make'"):
        graph(lambda: look(make(1)))


def test_arguments_that_json_cannot_hold_and_empty_workflows_are_refused() -> None:
    with pytest.raises(UnserialisableInput):
        graph(lambda: make(object()))
    with pytest.raises(DefinitionError, match="no steps"):
        graph(lambda: 3)


def test_what_takes_no_input_is_known() -> None:
    def none() -> None: ...
    def some(*, key: int = 1) -> None: ...

    assert [takes_input(each) for each in (none, some, make, task(none), len, "by name", int, lambda: 1)] == [
        False, True, True, False, True, True, True, False,
    ]  # fmt: skip


def test_an_agent_is_called_by_its_name_or_that_of_its_kind() -> None:
    import functools

    class Agent:
        name = "Ada"

    assert [display_name(each) for each in ("module:function", make, join, len, Agent(), functools.partial(len))] == [
        "module:function", "make", "Joined", "len", "Ada", "partial",
    ]  # fmt: skip
    assert len(display_name("x" * 1000)) == 200


def test_a_task_keeps_the_face_of_its_function() -> None:
    assert (make.__name__, make.__module__, make.__wrapped__) == ("make", __name__, make.body)  # type: ignore[attr-defined]
    assert repr(join) == "<task 'Joined'>"
    assert task(name="n")(cast(Any, make.body)).name == "n"
    with pytest.raises(InvalidOption, match="name="):
        task(name="")(make.body)
    with pytest.raises(InvalidOption, match="@task"):
        task(3)  # type: ignore[call-overload]
