"""Events on an embedded orchestrator: handlers, patterns, custom events, the log."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from orchestra import Orchestrator, RetryPolicy, Task, TaskStatus, Workflow, WorkflowRun, WorkflowStatus
from orchestra.errors import InvalidOption, UnserialisableInput
from orchestra.model.event import Event
from tests.processes import wait_until

LONG_S = 30


@pytest.fixture
def orch() -> Iterator[Orchestrator]:
    with Orchestrator(concurrency=4) as orchestrator:
        yield orchestrator


def echo(value: Any = None) -> Any:
    return value


def fail(_value: object = None) -> None:
    raise ValueError("no good")


def settle(orch: Orchestrator) -> None:
    """Wait until all handlers have heard everything that was committed so far."""
    heard = threading.Event()
    orch.on("test.settled", lambda _event: heard.set())
    orch.emit("test.settled")
    assert heard.wait(LONG_S)


# Handlers


def test_a_decorated_handler_gets_the_task_and_stays_a_function(orch: Orchestrator) -> None:
    heard: list[Task] = []

    @orch.on("task.completed")
    def handle_completion(task: Task) -> str:
        heard.append(task)
        return "still a function"

    done = orch.submit(echo, 3, name="three", metadata={"a": 1}).wait(LONG_S)
    settle(orch)
    assert [(each.id, each.name, each.output, each.metadata) for each in heard] == [(done.id, "three", 3, {"a": 1})]
    assert handle_completion(done) == "still a function"


def test_a_handler_of_workflow_events_gets_the_run(orch: Orchestrator) -> None:
    heard: list[tuple[str, WorkflowRun]] = []

    @orch.on("workflow.*")
    def handle(run: WorkflowRun, event: Event) -> None:
        heard.append((event.type, run))

    good = orch.submit_workflow(Workflow("good", [Task("a", echo, 1)])).wait(LONG_S)
    bad = orch.submit_workflow(Workflow("bad", [Task("a", fail)])).wait(LONG_S)
    settle(orch)
    assert [(kind, run.id, run.name) for kind, run in heard] == [
        ("workflow.started", good.id, "good"), ("workflow.completed", good.id, "good"),
        ("workflow.started", bad.id, "bad"), ("workflow.failed", bad.id, "bad"),
    ]  # fmt: skip
    assert (heard[1][1].output, heard[3][1].status) == (1, WorkflowStatus.FAILED)


def test_a_handler_may_ask_for_the_event_instead_or_beside(orch: Orchestrator) -> None:
    events: list[Event] = []
    both: list[tuple[Task, Event]] = []
    orch.on("task.completed", lambda event: events.append(event))

    @orch.on("task.completed")
    def with_both(task: Task, event: Event) -> None:
        both.append((task, event))

    done = orch.submit(echo, 3, name="three").wait(LONG_S)
    settle(orch)
    ((task, event),) = both
    assert events == [event]
    assert (event.type, event.run_id, event.task_id, event.job_id) == ("task.completed", done.id, done.id, None)
    assert (event.data["name"], event.data["attempt"], task.id) == ("three", 1, done.id)
    assert event.time.tzinfo is not None


def test_patterns_cover_families_of_events(orch: Orchestrator) -> None:
    heard: dict[str, list[str]] = {pattern: [] for pattern in ("*", "task.*", "*.completed", "order.*")}
    for pattern, types in heard.items():
        orch.on(pattern, lambda event, types=types: types.append(event.type))
    orch.submit_workflow(Workflow("w", [Task("a", echo)])).wait(LONG_S)
    orch.emit("order.shipped")
    settle(orch)
    assert {"workflow.started", "task.submitted", "task.completed", "order.shipped"} <= set(heard["*"])
    assert set(heard["task.*"]) >= {"task.submitted", "task.queued", "task.completed"}
    assert not [each for each in heard["task.*"] if not each.startswith("task.")]
    assert heard["*.completed"] == ["task.completed", "workflow.completed"]
    assert heard["order.*"] == ["order.shipped"]


def test_a_handler_that_raises_is_logged_and_the_others_hear_everything(
    orch: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[object] = []

    @orch.on("task.completed")
    def bad(_task: Task) -> None:
        raise RuntimeError("bad handler")

    orch.on("task.completed", lambda task: heard.append(task.output))
    orch.wait_all([orch.submit(echo, n) for n in range(3)], timeout=LONG_S)
    settle(orch)
    assert sorted(heard) == [0, 1, 2]  # type: ignore[type-var]
    assert caplog.text.count("RuntimeError: bad handler") == 3


def test_a_handler_may_be_async_and_may_submit_emit_and_listen(orch: Orchestrator) -> None:
    heard: list[object] = []

    @orch.on("order.placed")
    async def place(event: Event) -> None:
        orch.on("order.done", lambda event: heard.append(event.data))
        task = orch.submit(echo, event.data["item"]).wait(LONG_S)
        orch.emit("order.done", {"item": task.output})

    orch.emit("order.placed", {"item": "book"})
    wait_until(lambda: heard)
    assert heard == [{"item": "book"}]


def test_every_end_of_a_task_is_heard_once(orch: Orchestrator) -> None:
    heard: list[tuple[str, str]] = []
    orch.on("task.*", lambda task, event: heard.append((task.name, event.type.removeprefix("task."))))
    hold = threading.Event()
    kept = orch.submit(hold.wait, LONG_S, name="cancelled")
    run = orch.submit_workflow(
        Workflow("w", [Task("done", echo), Task("bad", fail, retry=RetryPolicy(2, delay=0)), Task("skipped", echo)],
                 {"bad": ["done"], "skipped": ["bad"]})
    )  # fmt: skip
    run.wait(LONG_S)
    orch.cancel(kept.id)
    hold.set()
    orch.wait_all([orch.submit(echo, name="other") for _ in range(20)], timeout=LONG_S)
    settle(orch)
    ends = sorted(each for each in heard if each[1] in ("completed", "failed", "cancelled", "skipped", "retrying"))
    assert [each for each in ends if each[0] != "other"] == [
        ("bad", "failed"), ("bad", "retrying"), ("cancelled", "cancelled"), ("done", "completed"),
        ("skipped", "skipped"),
    ]  # fmt: skip
    assert ends.count(("other", "completed")) == 20


def test_a_handler_hears_of_thousands_of_tasks_each_once(orch: Orchestrator) -> None:
    heard: list[str] = []
    orch.on("task.completed", lambda event: heard.append(event.task_id))
    tasks = orch.wait_all([orch.submit(echo, n) for n in range(3000)], timeout=60)
    settle(orch)
    assert sorted(heard) == sorted(each.id for each in tasks)


@pytest.mark.parametrize("pattern", ["task.complete", "workflow.skipped", "task.done*", "", "two words", "job.*.x"])
def test_an_event_that_never_happens_is_refused(orch: Orchestrator, pattern: str) -> None:
    with pytest.raises(InvalidOption, match="event="):
        orch.on(pattern, print)


def test_a_handler_that_could_not_be_called_is_refused(orch: Orchestrator) -> None:
    wrong: list[Any] = [lambda: None, lambda task, run: None, lambda task, *, other: None, 3]
    for handler in wrong:
        with pytest.raises(InvalidOption, match="handler="):
            orch.on("task.completed", handler)


# Custom events


def test_a_custom_event_carries_its_data(orch: Orchestrator) -> None:
    heard: list[Event] = []
    orch.on("custom.event", heard.append)
    orch.emit("custom.event", data={"key": "value", "nested": {"$ref": [1, None]}, "when": (1, 2)})
    orch.emit("custom.event")
    settle(orch)
    assert [each.data for each in heard] == [{"key": "value", "nested": {"$ref": [1, None]}, "when": [1, 2]}, {}]
    assert (heard[0].run_id, heard[0].task_id) == (None, None)


def test_an_event_of_ours_cannot_be_emitted_nor_data_that_json_cannot_hold(orch: Orchestrator) -> None:
    for name in ("task.completed", "workflow.mine", "worker.x", "", "a b", "a.*"):
        with pytest.raises(InvalidOption, match="event="):
            orch.emit(name)
    with pytest.raises(UnserialisableInput, match=r"data\['x'\]"):
        orch.emit("custom.event", {"x": object()})
    with pytest.raises(InvalidOption, match="data="):
        orch.emit("custom.event", [1])  # type: ignore[arg-type]
    assert orch.history(type="custom.event") == []


# The log


def test_the_log_of_a_run_tells_its_story_in_order(orch: Orchestrator) -> None:
    run = orch.submit_workflow(Workflow("w", [Task("a", echo), Task("b", fail), Task("c", echo)],
                                        {"b": ["a"], "c": ["b"]})).wait(LONG_S)  # fmt: skip
    orch.submit(echo).wait(LONG_S)
    log = orch.history(run=run.id)
    assert {each.run_id for each in log} == {run.id}
    assert (log[0].type, log[-1].type) == ("workflow.started", "workflow.failed")
    of = {name: orch.get_task(run.id, name).ref for name in "abc"}
    story = [(each.type, each.task_id) for each in log]
    for name, end in (("a", "completed"), ("b", "failed"), ("c", "skipped")):
        assert story.count((f"task.{end}", str(of[name]))) == 1
        assert story.count(("task.submitted", str(of[name]))) == 1
    assert story.index(("task.completed", str(of["a"]))) < story.index(("task.failed", str(of["b"])))


def test_the_log_can_be_read_in_pages_of_any_size(orch: Orchestrator) -> None:
    for n in range(5):
        orch.submit_workflow(Workflow(f"w{n}", [Task("a", echo), Task("b", echo), Task("c", echo)])).wait(LONG_S)
    whole = [each.id for each in orch.history(limit=10_000)]
    assert len(set(whole)) == len(whole) > 40
    for size in (1, 2, 7, 1000):
        read = orch.history(after="0-0", limit=size)
        while page := orch.history(after=read[-1].id, limit=size):
            assert len(page) <= size
            read += page
        assert [each.id for each in read] == whole
    assert [each.id for each in orch.history(limit=3)] == whole[-3:]
    assert [each.id for each in orch.history()] == whole


def test_the_newest_events_of_a_type_or_run_are_found_however_far_back_they_are(orch: Orchestrator) -> None:
    orch.emit("order.placed", {"n": 1})
    orch.emit("order.placed", {"n": 2})
    run = orch.submit_workflow(Workflow("w", [Task(f"t{n}", echo) for n in range(30)])).wait(LONG_S)
    orch.wait_all([orch.submit(echo, n) for n in range(1200)], timeout=60)
    assert [each.data for each in orch.history(type="order.*")] == [{"n": 1}, {"n": 2}]
    assert [each.data for each in orch.history(type="order.placed", limit=1)] == [{"n": 2}]
    assert [each.type for each in orch.history(run=run.id, limit=1)] == ["workflow.completed"]
    assert len(orch.history(run=run.id, type="task.completed")) == 30
    assert len(orch.history(run=run.id, type="task.completed", limit=10)) == 10


def test_what_events_say_is_cut_to_a_size_for_those_who_read_of_them(orch: Orchestrator) -> None:
    heard: list[Event] = []
    orch.on("big.*", lambda event: heard.append(event))
    orch.emit("big.one", {"text": "x" * 50_000})
    wait_until(lambda: heard, 30, "the event")
    assert len(str(heard[0].data["text"])) == 50_000
    (shown,) = orch.history(type="big.*")
    assert 9_000 < len(str(shown.data["text"])) <= 10_001
    (shorter,) = orch.history(type="big.*", data_limit=100)
    assert len(str(shorter.data["text"])) <= 101


def test_heartbeats_are_no_events_that_could_push_out_others(orch: Orchestrator) -> None:
    orch.submit(len, "abc").wait(LONG_S)
    store = orch.parts.store
    (lease,) = store.leases()
    last = store.last_event()
    for n in range(50):
        store.renew(replace(lease, renewed_at=float(n)))
    assert store.last_event() == last


def test_questions_to_the_log_that_make_no_sense_are_refused(orch: Orchestrator) -> None:
    wrong: list[dict[str, Any]] = [{"after": "yesterday"}, {"limit": 0}, {"type": "task.done"}]
    for question in wrong:
        with pytest.raises(InvalidOption):
            orch.history(**question)


def test_what_a_handler_looks_at_later_is_still_there(orch: Orchestrator) -> None:
    heard: list[Task] = []
    orch.on("task.submitted", heard.append)
    done = orch.submit(echo, {"a": 1}).wait(LONG_S)
    settle(orch)
    assert (heard[0].wait(LONG_S).status, heard[0].output) == (TaskStatus.COMPLETED, {"a": 1})
    assert heard[0].id == done.id
