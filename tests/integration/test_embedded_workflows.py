"""Workflows on an embedded orchestrator: inputs, patterns, joins, maps, failures, cancelling."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import pytest
from pydantic import BaseModel

from orchestra import (
    ExecutionPattern,
    Orchestrator,
    RetryPolicy,
    Task,
    TaskStatus,
    Workflow,
    WorkflowRun,
    WorkflowStatus,
    task,
    workflow,
)
from orchestra.errors import (
    ContradictoryOrder,
    CyclicDependency,
    InvalidOption,
    UnknownDependency,
    UnserialisableInput,
    UntraceableInput,
)
from tests.processes import wait_until

LONG_S = 30
SEQUENTIAL = ExecutionPattern.SEQUENTIAL


@pytest.fixture
def orch() -> Iterator[Orchestrator]:
    with Orchestrator(concurrency=4) as orchestrator:
        yield orchestrator


def echo(value: Any = "nothing") -> Any:
    return value


def fail(_value: object = None) -> None:
    raise ValueError("no good")


def constant(value: Any) -> Callable[[], Any]:
    return lambda: value


def run_of(orch: Orchestrator, *tasks: Task, after: dict[str, list[str]] | None = None, **options: Any) -> WorkflowRun:
    return orch.submit_workflow(Workflow("flow", list(tasks), after), **options).wait(LONG_S)


def outputs(run: WorkflowRun) -> dict[str, object]:
    return {each.name: each.output for each in run.tasks}


def statuses(run: WorkflowRun) -> dict[str, str]:
    return {each.name: each.status.value for each in run.tasks}


# Inputs


def test_an_input_is_built_from_earlier_outputs_when_they_are_there(orch: Orchestrator) -> None:
    gather = Task("Gather Sources", constant(["a", 1]))
    count = Task("count", constant(2))
    write = Task("write", echo, lambda: f"{count.output} sources: {gather.output}, {{braces}} stay")
    run = run_of(orch, gather, count, write)
    assert outputs(run)["write"] == "2 sources: ['a', 1], {braces} stay"
    assert write.output == outputs(run)["write"]


def test_outputs_keep_their_types_inside_lists_dicts_and_as_a_whole(orch: Orchestrator) -> None:
    first = Task("first", constant({"n": [1, None, True]}))
    whole = Task("whole", echo, lambda: first.output)
    inside = Task("inside", echo, lambda: {"list": [first.output, 2], "text": f"<{first.output}>"})
    handed = Task("handed", echo, [first, {"again": first}])
    named = Task("named", echo, kwargs={"value": first})
    seen = outputs(run_of(orch, first, whole, inside, handed, named))
    value = {"n": [1, None, True]}
    assert seen["whole"] == seen["named"] == value
    assert seen["inside"] == {"list": [value, 2], "text": f"<{value}>"}
    assert seen["handed"] == [value, {"again": value}]


def test_a_task_without_input_gets_what_it_depends_on(orch: Orchestrator) -> None:
    run = run_of(
        orch,
        Task("a", constant(1)), Task("b", constant(None)), Task("one", echo), Task("several", echo),
        after={"one": ["a"], "several": ["a", "b", "one"]},
    )  # fmt: skip
    assert outputs(run)["one"] == 1
    assert outputs(run)["several"] == {"a": 1, "b": None, "one": 1}


def test_a_function_without_parameters_gets_neither_predecessors_nor_the_input_of_the_run(orch: Orchestrator) -> None:
    run = run_of(orch, Task("first", constant(1)), Task("second", constant(2)), Task("third", echo),
                 after={"second": ["first"]}, input="given")  # fmt: skip
    assert outputs(run) == {"first": 1, "second": 2, "third": "given"}


def test_a_default_stands_where_there_is_no_input(orch: Orchestrator) -> None:
    assert orch.submit(echo).wait(LONG_S).output == "nothing"
    assert orch.submit(echo, None).wait(LONG_S).output is None


def test_the_input_of_the_run_goes_to_tasks_with_neither_input_nor_predecessors(orch: Orchestrator) -> None:
    run = run_of(orch, Task("a", echo), Task("b", echo, "own"), Task("c", echo), after={"c": ["a"]}, input={"k": 1})
    assert outputs(run) == {"a": {"k": 1}, "b": "own", "c": {"k": 1}}


def test_outputs_of_runs_that_are_over_are_ordinary_values(orch: Orchestrator) -> None:
    earlier = orch.submit(constant("done before")).wait(LONG_S)
    assert orch.submit(echo, lambda: f"<{earlier.output}>").wait(LONG_S).output == "<done before>"


def test_an_input_that_reads_a_task_outside_the_workflow_is_refused_by_name(orch: Orchestrator) -> None:
    outside, inputs = Task("outside", echo), list[Any]()
    inputs += [lambda: f"{outside.output}", [outside]]
    for given in inputs:
        with pytest.raises(UnknownDependency, match="'reader' depends on 'outside'"):
            orch.submit_workflow(Workflow("flow", [Task("reader", echo, given)]))
    assert orch.runs() == []


def test_dollars_braces_and_unicode_travel_as_they_are(orch: Orchestrator) -> None:
    given = {"$ref": 1, "$literal": {"$item": True}, "größe": "🎉 {x} \u2028\x00", "": [""], "__type__": "uuid"}
    run = run_of(orch, Task("Über-Schritt 🎉", echo, given), Task("zwei", echo), after={"zwei": ["Über-Schritt 🎉"]})
    assert outputs(run) == {"Über-Schritt 🎉": given, "zwei": given}


def test_data_that_looks_like_one_of_celerys_types_stays_what_it_is(orch: Orchestrator) -> None:
    for data in (
        {"__type__": "datetime", "__value__": "2026-01-01"},
        {"__type__": "?", "__value__": 1},
        ['"__type__"'],
    ):
        first = Task("first", constant(data))
        run = run_of(orch, first, Task("second", echo), after={"second": ["first"]})
        assert run.output == data


def test_an_input_of_eight_million_characters_arrives(orch: Orchestrator) -> None:
    text = "äb" * 4_000_000
    assert orch.submit(len, text).wait(LONG_S).output == 8_000_000
    assert orch.submit(echo, text).wait(LONG_S).output == text


def test_lists_may_be_nested_a_hundred_deep(orch: Orchestrator) -> None:
    nested: list[Any] = []
    for _ in range(100):
        nested = [nested]
    run = run_of(orch, Task("first", echo, nested), Task("second", echo), after={"second": ["first"]})
    assert run.output == nested


# Bodies


def test_async_functions_are_awaited(orch: Orchestrator) -> None:
    async def slowly(value: int) -> int:
        await asyncio.sleep(0.001)
        return value + 1

    run = run_of(orch, Task("a", slowly, 1), Task("b", slowly), after={"b": ["a"]})
    assert run.output == 3


def test_what_a_generator_yields_becomes_a_list_and_what_it_raises_is_its_own_error(orch: Orchestrator) -> None:
    def counts() -> Iterator[int]:
        yield from (1, 2)

    async def counts_slowly() -> Any:
        yield 1
        await asyncio.sleep(0)
        yield 2

    def breaks() -> Iterator[int]:
        yield 1
        raise KeyError("in the middle")

    assert orch.submit(counts).wait(LONG_S).output == orch.submit(counts_slowly).wait(LONG_S).output == [1, 2]
    error = orch.submit(breaks).wait(LONG_S).error
    assert error
    assert (error.type, error.message) == ("KeyError", "'in the middle'")


class Person(BaseModel):
    name: str
    age: int = 0


@dataclass
class Point:
    x: float
    y: float


def test_models_and_dataclasses_are_arguments_and_results(orch: Orchestrator) -> None:
    def older(person: Person) -> Person:
        return person.model_copy(update={"age": person.age + 1})

    def mirrored(points: list[Point]) -> dict[str, Point]:
        return {"first": Point(points[0].y, points[0].x)}

    run = run_of(orch, Task("a", older, Person(name="Ada", age=36)), Task("b", older), after={"b": ["a"]})
    assert run.output == {"name": "Ada", "age": 38}
    assert orch.submit(mirrored, [Point(1, 2)]).wait(LONG_S).output == {"first": {"x": 2.0, "y": 1.0}}


def test_wrong_types_fail_and_say_which_function_and_what_it_got(orch: Orchestrator) -> None:
    def older(person: Person) -> int:
        return person.age + 1

    def lies() -> int:
        return "text"  # type: ignore[return-value]

    wrong = orch.submit(older, {"name": "Ada", "age": "many"}).wait(LONG_S)
    assert wrong.error
    assert wrong.error.type == "ValidationError"
    assert "older" in str(wrong.error)
    assert "'many'" in str(wrong.error)
    assert "'text'" in str(orch.submit(lies).wait(LONG_S).error)


def test_a_function_whose_annotations_mean_nothing_here_is_called_as_python_would(orch: Orchestrator) -> None:
    def strange(value: "missing.Type", other: "threading.Missing | None" = None) -> "Nowhere":  # type: ignore[name-defined]  # noqa: F821
        return value

    assert orch.submit(strange, 3).wait(LONG_S).output == 3


def test_anything_that_can_be_called_is_an_agent(orch: Orchestrator) -> None:
    import functools

    @dataclass
    class Unhashable:
        number: int

        def __call__(self, other: int) -> int:
            return self.number + other

    assert orch.submit(len, [1, 2]).wait(LONG_S).output == 2
    assert orch.submit(functools.partial(pow, 2), 5).wait(LONG_S).output == 32
    assert orch.submit(Unhashable(3), 4).wait(LONG_S).output == 7
    assert orch.submit("x".join, ["a", "b"]).wait(LONG_S).output == "axb"
    assert orch.submit(Point, kwargs={"x": 1, "y": 2}).wait(LONG_S).output == {"x": 1, "y": 2}
    assert orch.submit(functools.cache(echo), 3).wait(LONG_S).output == 3


# Errors of bodies


class BadText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Unpicklable(ValueError):
    def __init__(self, one: object, two: object) -> None:
        self.lock = threading.Lock()
        super().__init__(f"{one} and {two}")


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("half a pair: \udcff"), "ValueError", "half a pair: \\udcff"),
        (ValueError("x" * 1_000_000), "ValueError", "x" * 8000 + "…"),
        (ValueError(), "ValueError", ""),
        (BadText(), "BadText", "<its text cannot be shown: RuntimeError>"),
        (Unpicklable(1, 2), "Unpicklable", "1 and 2"),
        (SystemExit(3), "EndedWithoutOutcome", "'raises' raised SystemExit(3), which is no outcome"),
        (KeyboardInterrupt(), "EndedWithoutOutcome", "'raises' raised KeyboardInterrupt()"),
        (asyncio.CancelledError("x"), "EndedWithoutOutcome", "'raises' raised CancelledError('x')"),
        (StopIteration(1), "StopIteration", "1"),
        (MemoryError("m"), "MemoryError", "m"),
        (ExceptionGroup("two", [ValueError("a"), KeyError("b")]), "ExceptionGroup", "two (2 sub-exceptions)"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)  # fmt: skip
def test_whatever_a_body_raises_is_recorded_as_it_was_after_one_attempt(
    orch: Orchestrator, error: BaseException, kind: str, message: str
) -> None:
    def raises() -> None:
        raise error

    failed = orch.submit(raises).wait(LONG_S)
    assert failed.error is not None
    assert (failed.status, failed.error.type, failed.attempts, failed.crashes) == (TaskStatus.FAILED, kind, 1, 0)
    assert failed.error.message.startswith(message)
    assert len(failed.error.traceback) < 10_000
    assert orch.submit(echo, 1).wait(LONG_S).output == 1


def test_endless_recursion_is_an_ordinary_failure(orch: Orchestrator) -> None:
    def endless() -> Any:
        return endless()

    failed = orch.submit(endless).wait(LONG_S)
    assert failed.error
    assert failed.error.type == "RecursionError"
    assert orch.submit(echo, 1).wait(LONG_S).output == 1


@pytest.mark.parametrize("output", [object(), b"\xff", threading.Lock(), "\udcff", lambda: 1, {"a": [object()]}])
def test_an_output_that_json_cannot_hold_fails_and_says_so(orch: Orchestrator, output: object) -> None:
    failed = orch.submit(constant(output), name="maker").wait(LONG_S)
    assert failed.error
    assert failed.error.type == "UnserialisableOutput"
    assert "'maker' returned a" in str(failed.error)
    assert "dataclasses or pydantic models" in str(failed.error)


# Patterns


def test_in_parallel_a_step_starts_when_its_own_predecessors_are_done(orch: Orchestrator) -> None:
    hold = threading.Event()
    run = orch.submit_workflow(
        Workflow("flow", [Task("slow", lambda: hold.wait(2 * LONG_S)), Task("quick", echo), Task("after quick", echo)],
                 {"after quick": ["quick"]})
    )  # fmt: skip
    ahead = {"quick": "COMPLETED", "after quick": "COMPLETED", "slow": "RUNNING"}
    wait_until(lambda: statuses(run) == ahead)
    hold.set()
    assert run.wait(LONG_S).output == {"slow": True, "after quick": "nothing"}


def test_in_sequence_each_gets_the_output_of_the_one_before_and_the_first_the_input(orch: Orchestrator) -> None:
    order: list[str] = []

    def step(label: str) -> Callable[[Any], list[Any]]:
        def body(value: Any) -> list[Any]:
            order.append(label)
            return [label, value]

        return body

    tasks = [Task(each, step(each)) for each in "abcd"]
    run = run_of(orch, *tasks, pattern=SEQUENTIAL, input="start")
    assert run.output == ["d", ["c", ["b", ["a", "start"]]]]
    assert order == list("abcd")


def test_in_sequence_an_input_of_its_own_stays(orch: Orchestrator) -> None:
    first = Task("first", constant(1))
    run = run_of(orch, first, Task("second", echo, "own"), Task("third", echo, lambda: f"{first.output}"),
                 Task("fourth", echo), pattern="SEQUENTIAL")  # fmt: skip
    assert outputs(run) == {"first": 1, "second": "own", "third": "1", "fourth": "1"}


def test_a_sequence_may_repeat_dependencies_that_it_already_has(orch: Orchestrator) -> None:
    run = run_of(orch, Task("a", constant(1)), Task("b", echo), Task("c", echo),
                 after={"c": ["a"], "b": ["a"]}, pattern=SEQUENTIAL)  # fmt: skip
    assert outputs(run)["c"] == 1


def test_a_sequence_against_the_dependencies_is_refused(orch: Orchestrator) -> None:
    flow = Workflow("flow", [Task("a", echo), Task("b", echo)], {"a": ["b"]})
    with pytest.raises(ContradictoryOrder, match="'a' stands before 'b'"):
        orch.submit_workflow(flow, pattern=SEQUENTIAL)
    assert orch.submit_workflow(flow).wait(LONG_S).status is WorkflowStatus.COMPLETED


def test_an_unknown_pattern_is_refused(orch: Orchestrator) -> None:
    with pytest.raises(InvalidOption, match=r"pattern='ZIGZAG'.*SEQUENTIAL, PARALLEL"):
        orch.submit_workflow(Workflow("flow", [Task("a", echo)]), pattern="ZIGZAG")  # type: ignore[arg-type]


# Joins


def test_overlapping_joins_wait_for_exactly_their_own_predecessors(orch: Orchestrator) -> None:
    def body(name: str) -> Callable[[Any], dict[str, Any]]:
        return lambda value=None: {name: value}

    after = {"C": ["A"], "D": ["A", "B"], "E": ["C"], "F": ["E"], "G": ["A", "B", "E"]}
    flow = Workflow("overlapping", [Task(name, body(name)) for name in "GFEDCBA"], after)
    a, b = {"A": None}, {"B": None}
    e = {"E": {"C": a}}
    expected = {"A": a, "B": b, "C": {"C": a}, "D": {"D": {"A": a, "B": b}}, "E": e, "F": {"F": e},
                "G": {"G": {"A": a, "B": b, "E": e}}}  # fmt: skip
    runs = orch.wait_all([orch.submit_workflow(flow, input=None) for _ in range(20)], timeout=LONG_S)
    for run in runs:
        assert outputs(run) == expected
        assert run.output == {name: expected[name] for name in "DFG"}
        assert all(each.attempts == each.claims == 1 for each in run.tasks)


def test_layers_of_forty_tasks_that_all_depend_on_each_other_are_run_once_each(orch: Orchestrator) -> None:
    layers = [[Task(f"{layer}.{n}", lambda given=None: len(given or ())) for n in range(40)] for layer in range(5)]
    after = {
        each.name: [before.name for before in layers[at - 1]] for at, layer in enumerate(layers) if at for each in layer
    }
    run = run_of(orch, *[each for layer in layers for each in layer], after=after)
    assert run.status is WorkflowStatus.COMPLETED
    assert [each.output for each in run.tasks] == [0] * 40 + [40] * 160
    assert sum(each.attempts for each in run.tasks) == 200


def test_a_chain_of_five_hundred_steps_hands_on(orch: Orchestrator) -> None:
    tasks = [Task(f"step {n}", lambda value: value + 1) for n in range(500)]
    assert run_of(orch, *tasks, pattern=SEQUENTIAL, input=0).output == 500


def test_a_workflow_may_be_submitted_any_number_of_times_and_its_tasks_read_the_last_run(orch: Orchestrator) -> None:
    numbers = iter(range(10))
    first = Task("first", lambda: next(numbers), id="task1")
    flow = Workflow("twice", [first, Task("second", echo)], {"second": ["task1"]}, id="workflow-001")
    one, two = orch.submit_workflow(flow).wait(LONG_S), orch.submit_workflow(flow).wait(LONG_S)
    assert one.id != two.id
    assert (one.output, two.output, first.output) == (0, 1, 1)
    assert orch.get_task("task1").run_id == two.id
    assert orch.get_task(one.id, "task1").output == 0
    assert [each.run_id for each in (orch.get_task(one.id, "second"), orch.get_task(two.id, "second"))] == [
        one.id,
        two.id,
    ]


def test_a_workflow_with_a_key_runs_once(orch: Orchestrator) -> None:
    ran: list[int] = []
    flow = Workflow("keyed", [Task("only", ran.append, 1)])
    one, two = orch.submit_workflow(flow, key="k"), orch.submit_workflow(flow, key="k")
    assert one.id == two.id
    orch.wait_all(one, two, timeout=LONG_S)
    assert ran == [1]


def test_priorities_and_metadata_of_a_run_reach_its_steps_and_its_listing(orch: Orchestrator) -> None:
    run = run_of(orch, Task("usual", echo), Task("own", echo, priority=9, metadata={"of": "task"}),
                 priority=2, metadata={"customer": "c-17"})  # fmt: skip
    assert {each.name: each.priority for each in run.tasks} == {"usual": 2, "own": 9}
    assert orch.get_task(run.id, "own").metadata == {"of": "task"}
    assert run.metadata == {"customer": "c-17"}
    assert [each.id for each in orch.runs(metadata={"customer": "c-17"})] == [run.id]


def test_a_run_shows_when_it_was_made_started_and_done(orch: Orchestrator) -> None:
    run = run_of(orch, Task("a", echo))
    assert run.created_at
    assert run.started_at
    assert run.completed_at
    assert run.created_at <= run.started_at <= run.completed_at
    assert (run.name, run.status, run.error, run.job_id, run.scheduled_for) == ("flow", "COMPLETED", None, None, None)


def test_callbacks_of_steps_are_called_in_each_run_for_every_kind_of_end(orch: Orchestrator) -> None:
    heard: list[tuple[str, str]] = []

    def on_end(ended: Task) -> None:
        heard.append((ended.id, ended.status.value))

    flow = Workflow("flow", [Task("a", echo, id="a", callback=on_end), Task("b", fail, id="b", callback=on_end),
                             Task("c", echo, id="c", callback=on_end)], {"b": ["a"], "c": ["b"]})  # fmt: skip
    orch.wait_all(orch.submit_workflow(flow), orch.submit_workflow(flow), timeout=LONG_S)
    wait_until(lambda: len(heard) >= 6)
    assert sorted(heard) == [("a", "COMPLETED")] * 2 + [("b", "FAILED")] * 2 + [("c", "SKIPPED")] * 2


# Failures


def test_a_failure_skips_what_has_not_started_and_writes_the_reason_on_it(orch: Orchestrator) -> None:
    run = run_of(
        orch, Task("bad", fail), Task("next", echo), Task("last", echo), after={"next": ["bad"], "last": ["next"]}
    )
    assert (run.status, run.output) == (WorkflowStatus.FAILED, None)
    assert statuses(run) == {"bad": "FAILED", "next": "SKIPPED", "last": "SKIPPED"}
    assert run.error
    assert (run.error.type, run.error.message) == ("ValueError", "'bad': no good")
    for skipped in ("next", "last"):
        reason = str(orch.get_task(run.id, skipped).error)
        assert "'bad'" in reason
        assert "no good" in reason


def test_what_is_running_when_another_fails_runs_to_its_end_before_the_run_ends(orch: Orchestrator) -> None:
    running, hold = threading.Event(), threading.Event()

    def held() -> str:
        running.set()
        hold.wait(2 * LONG_S)
        return "kept"

    run = orch.submit_workflow(
        Workflow("flow", [Task("held", held), Task("bad", lambda: (running.wait(LONG_S), fail())), Task("then", echo)],
                 {"then": ["held"]})
    )  # fmt: skip
    wait_until(lambda: statuses(run)["bad"] == "FAILED")
    assert run.status is WorkflowStatus.RUNNING
    hold.set()
    assert run.wait(LONG_S).status is WorkflowStatus.FAILED
    assert (outputs(run)["held"], statuses(run)["then"]) == ("kept", "SKIPPED")


def test_a_step_that_is_retried_until_it_succeeds_does_not_fail_its_run(orch: Orchestrator) -> None:
    attempts: list[int] = []

    def unsteady(value: int) -> int:
        attempts.append(value)
        if len(attempts) < 3:
            raise ConnectionError("again")
        return value * 2

    run = run_of(orch, Task("a", constant(4)), Task("b", unsteady, retry=RetryPolicy(5, delay=0)), Task("c", echo),
                 after={"b": ["a"], "c": ["b"]})  # fmt: skip
    assert (run.status, run.output, attempts) == (WorkflowStatus.COMPLETED, 8, [4, 4, 4])


# Cancelling


def test_cancelling_a_run_ends_everything_in_it_at_once(orch: Orchestrator) -> None:
    running, hold = threading.Event(), threading.Event()

    def held() -> None:
        running.set()
        hold.wait(2 * LONG_S)

    ran: list[object] = []
    run = orch.submit_workflow(Workflow("flow", [Task("done", echo), Task("held", held), Task("next", ran.append)],
                                        {"held": ["done"], "next": ["held"]}))  # fmt: skip
    assert running.wait(LONG_S)
    assert orch.cancel(run.id) is True
    assert run.wait(LONG_S).status is WorkflowStatus.CANCELLED
    assert statuses(run) == {"done": "COMPLETED", "held": "CANCELLED", "next": "CANCELLED"}
    assert orch.cancel(run.id) is False
    hold.set()
    orch.wait_all([orch.submit(echo, n) for n in range(20)], timeout=LONG_S)
    assert (statuses(run)["held"], ran) == ("CANCELLED", [])


def test_cancelling_a_step_ends_its_run_as_cancelled_and_skips_what_follows(orch: Orchestrator) -> None:
    running, hold = threading.Event(), threading.Event()

    def held() -> None:
        running.set()
        hold.wait(2 * LONG_S)

    step = Task("held", held, id="held-1")
    run = orch.submit_workflow(Workflow("flow", [step, Task("next", echo)], {"next": ["held"]}))
    assert running.wait(LONG_S)
    assert orch.cancel("held-1") is True
    assert run.wait(LONG_S).status is WorkflowStatus.CANCELLED
    assert statuses(run) == {"held": "CANCELLED", "next": "SKIPPED"}
    hold.set()


# Workflows as functions


@task
def numbers(count: int) -> list[int]:
    return list(range(count))


@task
def double(number: int) -> int:
    return number * 2


@task
def total(values: list[int]) -> int:
    return sum(values)


@workflow
def doubled(count: int) -> Any:
    return total(double.map(numbers(count)))


@pytest.mark.parametrize("count", [0, 1, 2, 300])
def test_a_map_runs_one_step_for_each_element_in_order(orch: Orchestrator, count: int) -> None:
    @workflow
    def mapped() -> Any:
        return double.map(numbers(count))

    run = orch.submit_workflow(mapped).wait(LONG_S)
    assert run.output == [number * 2 for number in range(count)]
    parts = [each for each in run.tasks if each.name.startswith("double[")]
    assert [each.name for each in parts] == [f"double[{n}]" for n in range(count)]
    assert orch.submit_workflow(doubled, count).wait(LONG_S).output == sum(range(count)) * 2


def test_a_map_runs_no_more_parts_at_a_time_than_it_may() -> None:
    running, most, lock = 0, 0, threading.Lock()
    all_at_once = threading.Barrier(1)

    @task
    def counted(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        all_at_once.wait(LONG_S)
        time.sleep(0.005)
        with lock:
            running -= 1
        return number

    @workflow
    def limited(at_once: int) -> Any:
        return counted.map(list(range(24)), max_parallel=at_once)

    with Orchestrator(concurrency=8) as orch:
        for at_once in (1, 3):
            most, all_at_once = 0, threading.Barrier(at_once)
            assert orch.submit_workflow(limited, at_once).wait(LONG_S).output == list(range(24))
            assert most == at_once


def test_a_map_hands_further_arguments_to_every_part(orch: Orchestrator) -> None:
    @task
    def joined(item: str, prefix: str, suffix: str = "") -> str:
        return prefix + item + suffix

    @task
    def prefix() -> str:
        return "<"

    @workflow
    def flow() -> Any:
        return joined.map(["a", "$ref", {"$ref": 1}.__repr__()], prefix=prefix(), suffix=">")

    assert orch.submit_workflow(flow).wait(LONG_S).output == ["<a>", "<$ref>", "<{'$ref': 1}>"]


def test_elements_of_a_map_may_be_anything_that_json_holds(orch: Orchestrator) -> None:
    values = [None, {"$ref": 3}, {"$item": True}, [], "", 0, {"__type__": "uuid", "__value__": "x"}]

    @task
    def same(value: Any) -> Any:
        return value

    @task
    def made() -> list[Any]:
        return values

    @workflow
    def flow() -> Any:
        return same.map(same.map(made()))

    assert orch.submit_workflow(flow).wait(LONG_S).output == values


@pytest.mark.parametrize("value", ["text", {"a": 1}, 5, True])
def test_a_map_over_something_that_is_no_list_fails_and_says_what_it_was(orch: Orchestrator, value: Any) -> None:
    @task
    def made() -> Any:
        return value

    @workflow
    def flow() -> Any:
        return double.map(made())

    run = orch.submit_workflow(flow).wait(LONG_S)
    assert run.status is WorkflowStatus.FAILED
    assert f"'double' maps over a {type(value).__name__}; the step before it must return a list" in str(run.error)


def test_a_part_that_fails_fails_the_run_and_is_named(orch: Orchestrator) -> None:
    @task
    def picky(number: int) -> int:
        if number == 7:
            raise ValueError("not seven")
        return number

    @workflow
    def flow() -> Any:
        return total(picky.map(numbers(10), max_parallel=1))

    run = orch.submit_workflow(flow).wait(LONG_S)
    assert (run.status, str(run.error)) == (WorkflowStatus.FAILED, "'picky[7]': not seven")
    ended = statuses(run)
    assert (ended["picky[7]"], ended["picky[9]"], ended["picky"], ended["total"]) == (
        "FAILED",
        "SKIPPED",
        "FAILED",
        "SKIPPED",
    )


def test_steps_are_arguments_alone_and_inside_lists_and_dicts_and_make_the_result(orch: Orchestrator) -> None:
    @task
    def same(value: Any) -> Any:
        return value

    @workflow
    def flow(topic: str, *, times: int = 1) -> Any:
        first = same(topic)
        second = same([first, {"deep": [first] * times}])
        return {"first": first, "both": [first, second], "plain": topic}

    run = orch.submit_workflow(flow, "t", kwargs={"times": 2}).wait(LONG_S)
    assert run.output == {"first": "t", "both": ["t", ["t", {"deep": ["t", "t"]}]], "plain": "t"}
    assert [each.name for each in run.tasks] == ["same", "same-2"]


def test_after_orders_steps_that_take_nothing_from_each_other(orch: Orchestrator) -> None:
    order: list[str] = []

    @task
    def note(label: str) -> None:
        order.append(label)

    @workflow
    def flow() -> None:
        first, second, third = (cast(Any, note(label)) for label in ("first", "second", "third"))
        second.after(first)
        third.after(second)

    orch.submit_workflow(flow).wait(LONG_S)
    assert order == ["first", "second", "third"]

    @workflow
    def backwards() -> None:
        first, second = (cast(Any, note(label)) for label in ("first", "second"))
        first.after(second)

    with pytest.raises(InvalidOption, match="steps called before 'note'"):
        orch.submit_workflow(backwards)


def test_a_workflow_function_called_outside_runs_like_any_function() -> None:
    assert doubled(4) == 12


LOOKED_AT: list[Callable[[Any], object]] = [
    lambda step: step == 1, lambda step: step != 1, lambda step: step > 1, lambda step: bool(step), len, list, str,
    lambda step: f"{step}", lambda step: step[0], lambda step: step + 1, lambda step: 2 * step, lambda step: step / 2,
    lambda step: step.upper(), lambda step: step.items, lambda step: 1 in step, lambda step: -step,
]  # fmt: skip


@pytest.mark.parametrize("look", LOOKED_AT)
def test_looking_at_an_output_while_the_workflow_is_built_is_refused(
    orch: Orchestrator, look: Callable[[Any], object]
) -> None:
    @workflow
    def flow() -> Any:
        step = numbers(3)
        look(step)
        return step

    with pytest.raises(UntraceableInput, match="'numbers'"):
        orch.submit_workflow(flow)
    assert orch.runs() == []


def test_the_errors_of_a_workflow_leave_nothing_behind(orch: Orchestrator) -> None:
    a = Task("a", echo)
    wrong: list[tuple[type[Exception], Callable[[], object]]] = [
        (CyclicDependency, lambda: Workflow("w", [a, Task("b", echo)], {"a": ["b"], "b": ["a"]})),
        (UnknownDependency, lambda: Workflow("w", [a], {"a": ["zz"]})),
        (UnserialisableInput, lambda: Workflow("w", [Task("b", echo, {1, 2})])),
        (UntraceableInput, lambda: Workflow("w", [a, Task("b", echo, lambda: str(a.output).upper())])),
    ]
    for kind, make in wrong:
        with pytest.raises(kind):
            orch.submit_workflow(make())  # type: ignore[arg-type]
    assert orch.runs() == []
    assert [each.type for each in orch.history()] in ([], ["worker.online"])
