"""Errors a user meets: each names the thing and says what to do, and nothing is stored afterwards."""

import logging
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from orchestra import ExecutionPattern, Orchestrator, RetryPolicy, Task, Workflow, errors, workflow
from tests.processes import wait_until

LONG_S = 30
NOWHERE = "redis://:s3cret@127.0.0.1:1/0"


def echo(value: Any = None) -> Any:
    return value


@pytest.fixture
def orch() -> Iterator[Orchestrator]:
    with Orchestrator() as orchestrator:
        yield orchestrator


@pytest.fixture
def distributed(tmp_path: Path) -> Iterator[Orchestrator]:
    with Orchestrator(broker=NOWHERE, store=f"sqlite:///{tmp_path}/state.db") as orchestrator:
        yield orchestrator


def refused(orch: Orchestrator, kind: type[Exception], submit: Callable[[], object], *said: str) -> None:
    """Check that a submit is refused with all of these words, and that no trace of it is left."""
    before = [run.id for run in orch.runs()], orch.history()
    with pytest.raises(kind) as raised:
        submit()
    for each in said:
        assert each in str(raised.value)
    assert ([run.id for run in orch.runs()], orch.history()) == before


# Workflows


def test_a_cycle_is_shown(orch: Orchestrator) -> None:
    def flow(after: dict[str, list[str]]) -> Workflow:
        return Workflow("flow", [Task(name, echo) for name in "abc"], after)

    refused(orch, errors.CyclicDependency, lambda: orch.submit_workflow(flow({"a": ["b"], "b": ["c"], "c": ["a"]})),
            " → ", "remove one of these edges")  # fmt: skip
    refused(orch, errors.CyclicDependency, lambda: flow({"b": ["b"]}), "b → b")

    first = Task("first", echo)
    second = Task("second", echo, lambda: f"{first.output}")
    crossed = Workflow("crossed", [first, second], {"first": ["second"]})
    refused(orch, errors.CyclicDependency, lambda: orch.submit_workflow(crossed), "first", "second")


def test_an_unknown_dependency_is_named_with_who_wants_it_and_what_there_is(orch: Orchestrator) -> None:
    tasks = [Task("Gather", echo), Task("Write", echo)]
    refused(orch, errors.UnknownDependency, lambda: Workflow("w", tasks, {"Write": ["Gathr"]}),
            "'Write' depends on 'Gathr'", "its tasks are 'Gather', 'Write'")  # fmt: skip
    refused(orch, errors.UnknownDependency, lambda: Workflow("w", tasks, {"Wrte": ["Gather"]}), "'Wrte'")


def test_a_name_that_two_tasks_have_is_named(orch: Orchestrator) -> None:
    refused(orch, errors.DuplicateName, lambda: Workflow("flow", [Task("a", echo), Task("a", echo)]),
            "'flow'", "'a'", "its own name or id")  # fmt: skip
    refused(orch, errors.DuplicateName, lambda: Workflow("flow", [Task("a", echo), Task("b", echo, id="a")]), "'a'")
    same = Task("same", echo)
    assert orch.submit_workflow(Workflow("flow", [same, Task("x", echo, id="y")])).wait(LONG_S).error is None


def test_an_order_against_the_dependencies_names_both_tasks(orch: Orchestrator) -> None:
    flow = Workflow("flow", [Task("first", echo), Task("second", echo)], {"first": ["second"]})
    refused(orch, errors.ContradictoryOrder,
            lambda: orch.submit_workflow(flow, pattern=ExecutionPattern.SEQUENTIAL),
            "'first' stands before 'second'", "reorder")  # fmt: skip


def test_a_workflow_without_steps_or_tasks_is_refused(orch: Orchestrator) -> None:
    @workflow
    def empty() -> None: ...

    refused(orch, errors.DefinitionError, lambda: orch.submit_workflow(empty), "'empty' has no steps", "@task")
    refused(orch, errors.InvalidOption, lambda: Workflow("w", []), "at least one Task")
    refused(orch, errors.InvalidOption, lambda: orch.submit_workflow(echo), "@workflow")  # type: ignore[arg-type]
    refused(orch, errors.InvalidOption, lambda: orch.submit_workflow(Workflow("w", [Task("a", echo)]), kwargs={"a": 1}),
            "kwargs", "input=")  # fmt: skip


# Inputs and outputs

UNTRACEABLE: dict[str, Callable[[Task], Any]] = {
    "len()": lambda task: lambda: len(task.output),  # type: ignore[arg-type]
    ".upper": lambda task: lambda: task.output.upper(),  # type: ignore[attr-defined]
    "indexed or sliced": lambda task: lambda: task.output[:3],  # type: ignore[index]
    "`in`": lambda task: lambda: "yes" if "x" in task.output else "no",  # type: ignore[operator]
    "compared": lambda task: lambda: "yes" if task.output == "x" else "no",
    "a condition": lambda task: lambda: "yes" if task.output else "no",
    "arithmetic": lambda task: lambda: task.output * 2,  # type: ignore[operator]
    "two runs": lambda task: lambda: f"{task.output}".strip() + "!",
    "must need no arguments": lambda _task: lambda _argument: "x",
}


@pytest.mark.parametrize("seen", UNTRACEABLE)
def test_a_lambda_that_cannot_be_traced_says_what_was_seen_and_what_to_do(orch: Orchestrator, seen: str) -> None:
    first = Task("first", echo, 1)
    flow = Workflow("flow", [first, Task("second", echo, UNTRACEABLE[seen](first))])
    words = ("a step of its own", "@task") if seen == "must need no arguments" else ("'first'", "a step of its own")
    with pytest.raises(errors.UntraceableInput) as raised:
        orch.submit_workflow(flow)
    assert all(each in str(raised.value) for each in words)
    assert seen in str(raised.value) or seen == "two runs"
    assert orch.runs() == []


def test_a_lambda_that_raises_says_what_it_raised(orch: Orchestrator) -> None:
    flow = Workflow("flow", [Task("only", echo, lambda: {}["missing"])])  # type: ignore[misc]
    refused(orch, errors.UntraceableInput, lambda: orch.submit_workflow(flow), "KeyError", "missing")


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({1, 2}, "sorted"), (object(), "object"), ([1, {"deep": [threading.Lock()]}], "input[1]['deep'][0]"),
        (iter([1]), "list("), (float("nan"), "nan"), (b"\xff", "bytes"), ("\ud800", "surrogate"), (LOOP, "itself"),
        ({(1, 2): 3}, "key"), ({"a": 1, 1: 2, "1": 3}, "'1'"), (Celery, "type"), (Task("other", echo), "Task"),
    ],
    ids=["set", "object", "lock", "iterator", "nan", "bytes", "surrogate", "loop", "key", "same keys", "class", "task"],
)  # fmt: skip
def test_an_input_that_json_cannot_hold_is_refused_where_it_is(orch: Orchestrator, given: Any, said: str) -> None:
    refused(orch, errors.UnserialisableInput, lambda: orch.submit(echo, given), "input", said)
    refused(orch, errors.UnserialisableInput, lambda: orch.submit(echo, kwargs={"value": given}), "kwargs['value']")


def test_metadata_that_json_cannot_hold_is_refused(orch: Orchestrator) -> None:
    flow = Workflow("flow", [Task("a", echo)])
    bad: Any = {"when": {1, 2}}
    refused(orch, errors.UnserialisableInput, lambda: orch.submit(echo, metadata=bad), "metadata['when']")
    refused(orch, errors.UnserialisableInput, lambda: orch.submit_workflow(flow, metadata=bad), "metadata['when']")
    for wrong in ([1], {1: 2}):
        refused(
            orch, errors.InvalidOption, lambda wrong=wrong: orch.submit(echo, metadata=wrong), "metadata", "text keys"
        )


# Options


OPTIONS: list[tuple[str, Any]] = [
    ("priority", 0), ("priority", 11), ("priority", "1"), ("priority", True), ("priority", 2.5),
    ("timeout", 0), ("timeout", -1), ("timeout", "5"), ("timeout", float("nan")), ("timeout", float("inf")),
    ("timeout", True), ("queue", ""), ("queue", "a,b"), ("queue", 5), ("retry", True), ("retry", "3"),
    ("name", ""), ("name", 5), ("name", "two\nlines"), ("name", "x" * 201), ("name", "\ud800"),
    ("key", ""), ("key", 5), ("callback", 5),
]  # fmt: skip


@pytest.mark.parametrize(("option", "value"), OPTIONS, ids=str)
def test_an_option_that_is_not_possible_is_refused_by_name(orch: Orchestrator, option: str, value: Any) -> None:
    refused(orch, errors.InvalidOption, lambda: orch.submit(echo, 1, **{option: value}), f"{option}=", "expected")


def test_options_of_tasks_and_runs_are_refused_too(orch: Orchestrator) -> None:
    refused(orch, errors.InvalidOption, lambda: Task("a", echo, priority=0), "priority=0")
    refused(orch, errors.InvalidOption, lambda: Task("a", echo, id=" "), "id=")
    refused(orch, errors.InvalidOption, lambda: Workflow("w", [Task("a", echo)], {"a": "b"}), "dependencies['a']")
    refused(orch, errors.InvalidOption, lambda: orch.submit_workflow(Workflow("w", [Task("a", echo)]), priority=11),
            "priority=11")  # fmt: skip
    refused(orch, errors.InvalidOption, lambda: orch.submit_workflow(Workflow("w", [Task("a", echo)]), key=""), "key=")
    for agent in (None, 3, "nobody knows it"):
        refused(orch, errors.InvalidOption, lambda agent=agent: orch.submit(agent), f"agent={agent!r}")
    for policy in ({"max_attempts": 0}, {"backoff": 0.5}, {"jitter": 2}, {"delay": -1}, {"retry_on": [3]}):
        with pytest.raises(errors.InvalidOption, match=next(iter(policy))):
            RetryPolicy(**policy)  # type: ignore[arg-type]


# Functions that cannot travel


def inner() -> Callable[[], None]:
    def local() -> None: ...

    return local


@pytest.mark.parametrize(
    ("agent", "said"),
    [(lambda: 1, "a lambda has no name"), (inner(), "inside a function"), ("x".join, "belongs to an object"),
     (Celery("other", set_as_current=False).task(name="elsewhere", shared=False)(echo), "another Celery application")],
    ids=["lambda", "local", "method", "celery task"],
)  # fmt: skip
def test_a_function_that_workers_could_not_find_is_refused(distributed: Orchestrator, agent: Any, said: str) -> None:
    refused(distributed, errors.CannotTravel, lambda: distributed.submit(agent), said, "top level of a module")
    flow = Workflow("flow", [Task("a", agent)])
    refused(distributed, errors.CannotTravel, lambda: distributed.submit_workflow(flow), said)


# Settings and servers


def test_a_broker_needs_a_store_that_is_shared(tmp_path: Path) -> None:
    for store in (None, "sqlite://", "sqlite:///:memory:"):
        with pytest.raises(errors.SettingsError, match=r"needs a store.*ORCHESTRA_STORE"):
            Orchestrator(broker=NOWHERE, store=store)
    with pytest.raises(errors.SettingsError, match="needs a store"):
        Orchestrator(app=Celery("mine", set_as_current=False))
    with pytest.raises(errors.SettingsError, match=r"state_file=.*store="):
        Orchestrator(broker=NOWHERE, state_file=tmp_path / "state.db")
    with pytest.raises(errors.SettingsError, match="no Celery application"):
        Orchestrator(app="app", store=f"sqlite:///{tmp_path}/state.db")


@pytest.mark.parametrize("broker", ["kafka://localhost", "localhost:6379", ""])
def test_a_broker_of_an_unknown_kind_is_refused(broker: str, tmp_path: Path) -> None:
    with pytest.raises(errors.SettingsError, match=r"broker=.*redis://"):
        Orchestrator(broker=broker, store=f"sqlite:///{tmp_path}/state.db")


@pytest.mark.parametrize("store", ["mongodb://localhost/x", "state.db", "sqlite//x", ""])
def test_a_store_of_an_unknown_kind_is_refused_and_says_what_is_possible(store: str) -> None:
    with pytest.raises(errors.SettingsError, match=r"store=.*sqlite:///"):
        Orchestrator(broker=NOWHERE, store=store)


def test_a_store_that_cannot_be_opened_is_named_and_nothing_is_created(tmp_path: Path) -> None:
    with pytest.raises(errors.StoreUnavailable, match="missing"):
        Orchestrator(broker=NOWHERE, store=f"sqlite:///{tmp_path}/missing/state.db")
    assert list(tmp_path.iterdir()) == []


def test_without_a_broker_a_submit_is_refused_and_nothing_is_stored(distributed: Orchestrator) -> None:
    with pytest.raises(errors.BrokerUnavailable, match=r"no broker at redis://.*127\.0\.0\.1:1") as raised:
        distributed.submit(echo, 1)
    assert "s3cret" not in str(raised.value) + repr(distributed)
    assert distributed.runs() == []


def test_while_the_broker_is_away_a_submit_is_kept_and_a_warning_names_the_url_without_its_password(
    distributed: Orchestrator, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed.parts.cycle.publisher, "check", lambda: None)  # it answered once
    with caplog.at_level(logging.WARNING):
        kept = distributed.submit(echo, 1)
    assert distributed.get_task(kept.id).status == "QUEUED"
    assert "no broker at redis://" in caplog.text
    assert "127.0.0.1:1" in caplog.text
    assert "will be sent again" in caplog.text
    assert "s3cret" not in caplog.text


def test_without_a_worker_who_waits_gets_a_hint_once(
    distributed: Orchestrator, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestra.waiting.HINT_AFTER_S", 0.05)
    monkeypatch.setattr(distributed.parts.cycle.publisher, "check", lambda: None)
    waiting = distributed.submit(echo, 1, queue="reports")

    def hints() -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.WARNING), pytest.raises(TimeoutError):
            waiting.wait(0.5)
        return [record.getMessage() for record in caplog.records if record.name == "orchestra.waiting"]

    (hint,) = wait_until(hints, what="a wait that had time for its hint")
    assert "1 tasks are ready on queue 'reports' and no worker serves it" in hint
    assert "orchestra worker --app MODULE:ATTRIBUTE --queues reports" in hint


def test_an_embedded_orchestrator_serves_every_queue_and_gives_no_hint(
    orch: Orchestrator, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestra.waiting.HINT_AFTER_S", 0.05)
    hold = threading.Event()
    running = [orch.submit(hold.wait, LONG_S) for _ in range(8)]
    queued = orch.submit(echo, queue="reports")
    with caplog.at_level(logging.WARNING), pytest.raises(TimeoutError):
        queued.wait(0.5)
    assert not [record for record in caplog.records if record.name == "orchestra.waiting"]
    hold.set()
    orch.wait_all(running, queued, timeout=LONG_S)


# The errors themselves


def every_error() -> list[errors.OrchestraError]:
    facts: dict[str, Any] = {
        "cycle": ["a", "b"], "known": ["a"], "crashes": 3, "timeout_s": 1.5, "step": "s", "max_rounds": 3,
        "retry_after_s": 1.5, "allowed": 3.0, "used": 3.5, "reasons": ["a"], "problems": [("ERROR", "field", "text")],
    }  # fmt: skip
    made: list[errors.OrchestraError] = []
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.OrchestraError):
            code = kind.__init__.__code__ if hasattr(kind.__init__, "__code__") else None
            names = code.co_varnames[1 : code.co_argcount] if code else ()
            made.append(kind(*[facts.get(name, f"the {name}") for name in names]))
    return made


@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
def test_every_error_survives_pickle_with_its_facts_and_text(error: errors.OrchestraError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), vars(again), str(again)) == (type(error), vars(error), str(error))
    assert type(error).__name__ in (errors.__doc__ or "")


def test_errors_can_be_caught_as_what_they_are_in_python() -> None:
    for kind, builtin in (
        (errors.DefinitionError, ValueError), (errors.UnknownId, LookupError), (errors.WouldDeadlock, RuntimeError),
        (errors.Closed, RuntimeError),
        (errors.StoreUnavailable, ConnectionError), (errors.SettingsError, ValueError),
    ):  # fmt: skip
        assert issubclass(kind, builtin)
        assert issubclass(kind, errors.OrchestraError)
