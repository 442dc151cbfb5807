"""Single tasks on an embedded orchestrator: submitting, waiting, looking, cancelling, keys, retries, limits of time."""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestra import Orchestrator, RetryPolicy, Task, TaskStatus, WorkflowStatus, task
from orchestra.errors import InvalidOption, KeyConflict, TaskFailed, UnknownId, WouldDeadlock
from orchestra.model.status import FOLLOWS
from tests.processes import wait_until

LONG_S = 30


@pytest.fixture
def orch() -> Iterator[Orchestrator]:
    with Orchestrator(concurrency=4) as orchestrator:
        yield orchestrator


class Gate:
    """A body that runs until it is opened."""

    def __init__(self) -> None:
        self.entered, self._open = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.entered.set()
        assert self._open.wait(2 * LONG_S)
        return "passed"

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


def double(number: int) -> int:
    return number * 2


def fail() -> None:
    raise ValueError("no good")


def settle(orch: Orchestrator) -> None:
    """Wait until all handlers have heard everything that was committed so far."""
    heard = threading.Event()
    orch.on("test.settled", lambda _event: heard.set())
    orch.emit("test.settled")
    assert heard.wait(LONG_S)


# What a task shows


def test_a_submitted_task_is_run_and_shows_what_became_of_it(orch: Orchestrator) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    submitted = orch.submit(double, 21, name="Double it", priority=2, metadata={"customer": "c-17"})
    assert submitted.wait(LONG_S) is submitted
    assert (submitted.status, submitted.output, submitted.error) == (TaskStatus.COMPLETED, 42, None)
    assert (submitted.name, submitted.priority, submitted.metadata) == ("Double it", 2, {"customer": "c-17"})
    assert (submitted.attempts, submitted.claims, submitted.crashes) == (1, 1, 0)
    assert submitted.created_at
    assert submitted.started_at
    assert submitted.completed_at
    assert before <= submitted.created_at <= submitted.started_at <= submitted.completed_at <= datetime.now(UTC)
    assert submitted.run_id == submitted.id


def test_a_task_that_raises_shows_type_message_and_traceback_and_wait_does_not_raise(orch: Orchestrator) -> None:
    failed = orch.submit(fail).wait(LONG_S)
    assert (failed.status, failed.output, failed.attempts) == (TaskStatus.FAILED, None, 1)
    assert failed.error is not None
    assert (failed.error.type, failed.error.message, str(failed.error)) == ("ValueError", "no good", "no good")
    assert 'raise ValueError("no good")' in failed.error.traceback
    with pytest.raises(TaskFailed, match=r"'fail' ended FAILED: no good"):
        failed.raise_for_status()


def test_a_task_found_by_its_id_is_the_same_task(orch: Orchestrator) -> None:
    submitted = orch.submit(double, 4, name="four", priority=7, metadata={"k": [1]}).wait(LONG_S)
    for found in (
        orch.get_task(submitted.id),
        orch.get_task(submitted.id, submitted.id),
        orch.get_task(submitted.id, "four"),
    ):
        assert (found.id, found.run_id, found.name) == (submitted.id, submitted.id, "four")
        assert (found.status, found.output, found.priority) == (TaskStatus.COMPLETED, 8, 7)
        assert found.metadata == {"k": [1]}
        assert found.started_at == submitted.started_at
    assert orch.status(submitted.id) is TaskStatus.COMPLETED


def test_a_single_task_is_a_run_with_one_task(orch: Orchestrator) -> None:
    submitted = orch.submit(double, 4, name="four").wait(LONG_S)
    run = orch.get_run(submitted.id)
    assert (run.id, run.name, run.status, run.output) == (submitted.id, "four", WorkflowStatus.COMPLETED, 8)
    assert [each.id for each in run.tasks] == [submitted.id]


def test_ids_that_nobody_has_are_unknown_and_the_error_names_them(orch: Orchestrator) -> None:
    asks: list[Callable[[str], object]] = [orch.status, orch.get_task, orch.get_run, orch.cancel]
    for ask in asks:
        with pytest.raises(UnknownId, match="'nobody'"):
            ask("nobody")
    known = orch.submit(double, 1)
    with pytest.raises(UnknownId, match="'nobody'"):
        orch.get_task(known.id, "nobody")


def test_a_task_that_was_not_submitted_is_pending_and_cannot_be_waited_for() -> None:
    unsubmitted = Task("later", double, 1)
    assert (unsubmitted.status, unsubmitted.output, unsubmitted.run_id) == (TaskStatus.PENDING, None, None)
    with pytest.raises(InvalidOption, match="'later'"):
        unsubmitted.wait()


def test_a_ready_task_is_submitted_as_it_is(orch: Orchestrator) -> None:
    ready = Task("ready", double, 5, id="my-id", priority=3, metadata={"a": 1})
    assert orch.submit(ready) is ready
    assert ready.wait(LONG_S).output == 10
    assert orch.get_task("my-id").output == 10
    with pytest.raises(InvalidOption, match="put the options on the Task"):
        orch.submit(Task("other", double, 5), priority=1)


def test_a_task_marked_function_brings_its_options_and_submit_may_change_them(orch: Orchestrator) -> None:
    @task(name="marked", priority=2, retry=3, queue="slow")
    def marked() -> int:
        return 1

    plain, changed = orch.submit(marked).wait(LONG_S), orch.submit(marked, name="renamed", priority=9).wait(LONG_S)
    assert (plain.name, plain.priority, plain.queue) == ("marked", 2, "slow")
    assert (changed.name, changed.priority, changed.queue) == ("renamed", 9, "slow")
    assert marked() == 1


def test_kwargs_reach_the_function_beside_or_instead_of_the_input(orch: Orchestrator) -> None:
    def joined(first: str, second: str = "b", *, third: str = "c") -> str:
        return first + second + third

    assert orch.submit(joined, kwargs={"first": "x", "third": "z"}).wait(LONG_S).output == "xbz"
    assert orch.submit(joined, "x", kwargs={"second": "y"}).wait(LONG_S).output == "xyc"


def test_an_agent_may_be_given_by_name_once_a_function_of_that_name_was_submitted(orch: Orchestrator) -> None:
    @task
    def squared(number: int) -> int:
        return number * number

    with pytest.raises(InvalidOption, match="'squared'"):
        orch.submit("squared", 3)
    orch.submit(squared, 2)
    orch.submit(double, 2)
    assert orch.submit("squared", 3).wait(LONG_S).output == 9
    assert orch.submit("double", 3).wait(LONG_S).output == 6


def test_a_name_that_two_functions_have_is_refused_as_an_agent(orch: Orchestrator) -> None:
    def made(number: int) -> Any:
        @task(name="same")
        def body() -> int:
            return number

        return body

    assert [orch.submit(made(n)).wait(LONG_S).output for n in (1, 2)] == [1, 2]
    with pytest.raises(InvalidOption, match="'same'"):
        orch.submit("same")


# Waiting


def test_waiting_too_short_raises_and_the_task_goes_on(orch: Orchestrator, gate: Gate) -> None:
    slow = orch.submit(gate)
    with pytest.raises(TimeoutError, match=r"had not ended after 0\.05 s; it goes on"):
        slow.wait(timedelta(milliseconds=50))
    with pytest.raises(TimeoutError):
        slow.wait(0)
    gate.open()
    assert slow.wait(LONG_S).output == "passed"


def test_many_threads_may_wait_for_the_same_task(orch: Orchestrator, gate: Gate) -> None:
    slow = orch.submit(gate)
    seen: list[object] = []
    threads = [threading.Thread(target=lambda: seen.append(slow.wait(LONG_S).output)) for _ in range(8)]
    for thread in threads:
        thread.start()
    gate.open()
    for thread in threads:
        thread.join(LONG_S)
    assert seen == ["passed"] * 8


def test_wait_all_takes_tasks_runs_and_lists_of_them_and_keeps_the_order(orch: Orchestrator) -> None:
    one, several = orch.submit(double, 1), [orch.submit(double, n) for n in range(2, 6)]
    assert [each.output for each in orch.wait_all(one, several, timeout=LONG_S)] == [2, 4, 6, 8, 10]
    run = orch.get_run(one.id)
    assert orch.wait_all(run) == [run]
    assert orch.wait_all([]) == []


def test_wait_all_names_what_it_was_waiting_for(orch: Orchestrator, gate: Gate) -> None:
    with pytest.raises(TimeoutError, match=r"'stuck'.* number 2 of 2, had not ended after 0\.05 s"):
        orch.wait_all(orch.submit(double, 1), orch.submit(gate, name="stuck"), timeout=0.05)


def test_waiting_inside_a_step_is_refused_and_says_what_to_do(orch: Orchestrator) -> None:
    def waits() -> object:
        return orch.submit(double, 1).wait().output

    async def waits_too() -> object:
        return orch.submit(double, 1).wait().output

    for body in (waits, waits_too):
        failed = orch.submit(body).wait(LONG_S)
        assert failed.error is not None
        assert failed.error.type == WouldDeadlock.__name__
        assert "dependency" in failed.error.message


def test_a_step_may_submit_without_waiting_and_to_any_depth(orch: Orchestrator) -> None:
    def deeper(level: int) -> str | None:
        return orch.submit(deeper, level - 1, name=f"level {level - 1}").id if level else None

    found = orch.submit(deeper, 20)
    for _ in range(20):
        found = orch.get_task(str(found.wait(LONG_S).output))
    assert found.wait(LONG_S).output is None
    assert found.name == "level 0"


# Callbacks


def test_a_callback_is_called_once_with_the_ended_task_whatever_the_end(orch: Orchestrator, gate: Gate) -> None:
    heard: list[tuple[str, str, TaskStatus, object]] = []

    def on_end(ended: Task) -> None:
        heard.append((ended.name, ended.id, ended.status, ended.output))

    completed = orch.submit(double, 1, name="completed", callback=on_end)
    failed = orch.submit(fail, name="failed", retry=RetryPolicy(2, delay=0), callback=on_end)
    cancelled = orch.submit(gate, name="cancelled", callback=on_end)
    assert gate.entered.wait(LONG_S)
    orch.cancel(cancelled.id)
    orch.wait_all(completed, failed, cancelled, timeout=LONG_S)
    settle(orch)
    assert sorted(heard) == [
        ("cancelled", cancelled.id, TaskStatus.CANCELLED, None),
        ("completed", completed.id, TaskStatus.COMPLETED, 2),
        ("failed", failed.id, TaskStatus.FAILED, None),
    ]


def test_a_callback_gets_the_task_whatever_its_argument_is_called(orch: Orchestrator) -> None:
    heard: list[object] = []

    def on_end(event: Task) -> None:
        heard.append(event)

    orch.submit(double, 1, callback=on_end)
    wait_until(lambda: heard)
    assert isinstance(heard[0], Task)


def test_a_callback_may_be_async_and_may_submit_and_wait(orch: Orchestrator) -> None:
    done = threading.Event()
    outputs: list[object] = []

    async def on_end(ended: Task) -> None:
        await asyncio.sleep(0)
        outputs.append(orch.submit(double, ended.output).wait(LONG_S).output)
        done.set()

    orch.submit(double, 1, callback=on_end)
    assert done.wait(LONG_S)
    assert outputs == [4]


def test_a_callback_that_raises_is_logged_and_disturbs_nobody(
    orch: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[object] = []

    def bad(_ended: Task) -> None:
        raise RuntimeError("bad callback")

    orch.submit(double, 1, callback=bad).wait(LONG_S)
    orch.submit(double, 2, callback=lambda ended: heard.append(ended.output)).wait(LONG_S)
    settle(orch)
    assert heard == [4]
    assert "bad callback" in caplog.text


def test_a_callback_that_takes_other_arguments_is_refused_and_nothing_is_submitted(orch: Orchestrator) -> None:
    def two(_a: object, _b: object) -> None: ...

    wrong: list[Any] = [two, lambda: None, 3]
    for callback in wrong:
        with pytest.raises(InvalidOption, match="callback"):
            orch.submit(double, 1, callback=callback)
    assert orch.runs() == []


# Keys and ids


def test_the_same_key_and_input_give_the_same_task(orch: Orchestrator) -> None:
    ran: list[int] = []

    def once(number: int) -> int:
        ran.append(number)
        return number

    first = orch.submit(once, 1, key="order-1").wait(LONG_S)
    second = orch.submit(once, 1, key="order-1").wait(LONG_S)
    assert (second.id, second.output, ran) == (first.id, 1, [1])
    assert [run.id for run in orch.runs()] == [first.id]


def test_a_key_with_another_input_or_function_is_refused(orch: Orchestrator) -> None:
    orch.submit(double, 1, key="order-1")
    for agent, given in ((double, 2), (str, 1)):
        with pytest.raises(KeyConflict, match="'order-1' already belongs to run"):
            orch.submit(agent, given, key="order-1")
    assert len(orch.runs()) == 1


def test_a_lambda_written_on_one_line_is_the_same_function_each_time(orch: Orchestrator) -> None:
    def submit() -> Task:
        return orch.submit(lambda number: number + 1, 1, key="k")

    assert submit().id == submit().id


def test_every_submit_with_a_key_gets_its_callback_once_also_when_the_task_has_ended(
    orch: Orchestrator, gate: Gate
) -> None:
    heard: list[str] = []

    def submit(label: str) -> Task:
        return orch.submit(gate, key="k", callback=lambda _ended: heard.append(label))

    submit("first")
    submit("while it runs")
    gate.open()
    submit("maybe ended").wait(LONG_S)
    settle(orch)
    submit("after the end")
    settle(orch)
    wait_until(lambda: len(heard) == 4)
    settle(orch)
    assert sorted(heard) == ["after the end", "first", "maybe ended", "while it runs"]


def test_the_same_task_submitted_twice_is_refused_and_its_callback_is_called_once(
    orch: Orchestrator, gate: Gate
) -> None:
    heard: list[Task] = []
    mine = Task("mine", gate, id="mine-1", callback=heard.append)
    orch.submit(mine)
    with pytest.raises(KeyConflict, match=r"'mine-1' already belongs to run 'mine-1': ids are used once"):
        orch.submit(mine)
    gate.open()
    assert mine.wait(LONG_S).output == "passed"
    settle(orch)
    assert len(heard) == 1


def test_functions_of_the_same_name_do_not_take_each_others_calls(orch: Orchestrator) -> None:
    def made(number: int) -> Callable[[], int]:
        def body() -> int:
            return number

        return body

    class Adder:
        def __init__(self, number: int) -> None:
            self.number = number

        def add(self, other: int) -> int:
            return self.number + other

        __call__ = add

    closures = [orch.submit(made(n)) for n in range(50)]
    lambdas = [orch.submit(lambda n=n: n) for n in range(50)]
    methods = [orch.submit(Adder(n).add, 1) for n in range(50)]
    objects = [orch.submit(Adder(n), 1) for n in range(50)]
    orch.wait_all(closures, lambdas, methods, objects, timeout=LONG_S)
    assert [each.output for each in closures] == [each.output for each in lambdas] == list(range(50))
    assert [each.output for each in methods] == [each.output for each in objects] == list(range(1, 51))


def test_three_thousand_lambdas_of_one_line_are_found_in_no_time(orch: Orchestrator) -> None:
    bind = orch.parts.registry.bind
    started = time.thread_time()
    paths = {bind(lambda n=n: n).path for n in range(1000, 4000)}
    took = time.thread_time() - started
    assert len(paths) == 3000
    assert took < 1  # a registry that tried one number after the other would take many times as long


# Listing


def test_runs_are_listed_newest_first_and_all_conditions_must_hold(orch: Orchestrator) -> None:
    first = orch.submit(double, 1, name="a", metadata={"customer": "c-1", "tags": ["x"]}).wait(LONG_S)
    second = orch.submit(fail, name="b", metadata={"customer": "c-1"}).wait(LONG_S)
    third = orch.submit(double, 3, name="a", metadata={"customer": "c-2"}).wait(LONG_S)

    def ids(**where: Any) -> list[str]:
        return [run.id for run in orch.runs(**where)]

    assert ids() == [third.id, second.id, first.id]
    assert ids(limit=1) == [third.id]
    assert ids(name="a") == [third.id, first.id]
    assert ids(status="FAILED") == ids(status=WorkflowStatus.FAILED) == [second.id]
    assert ids(metadata={"customer": "c-1"}) == [second.id, first.id]
    assert ids(metadata={"tags": ("x",)}) == [first.id]
    assert ids(metadata={"customer": "c-1"}, status="COMPLETED", name="a") == [first.id]
    assert ids(since=timedelta(minutes=1)) == [third.id, second.id, first.id]
    assert third.created_at is not None
    assert ids(since=third.created_at) == [third.id]
    assert ids(since=datetime.now(UTC) + timedelta(seconds=1)) == []


def test_conditions_that_make_no_sense_are_refused(orch: Orchestrator) -> None:
    wrong: list[dict[str, Any]] = [
        {"status": "done"}, {"limit": 0}, {"limit": "3"}, {"since": datetime.now()}, {"metadata": [1]},  # noqa: DTZ005
    ]  # fmt: skip
    for where in wrong:
        with pytest.raises(InvalidOption, match=next(iter(where))):
            orch.runs(**where)


# Cancelling


def test_a_queued_task_that_is_cancelled_never_runs(gate: Gate) -> None:
    ran: list[int] = []
    with Orchestrator(concurrency=1) as orch:
        blocking, queued = orch.submit(gate), orch.submit(ran.append, 1)
        assert gate.entered.wait(LONG_S)
        assert queued.status is TaskStatus.QUEUED
        assert orch.cancel(queued.id) is True
        assert queued.wait(LONG_S).status is TaskStatus.CANCELLED
        assert str(queued.error) == "cancelled by request"
        gate.open()
        blocking.wait(LONG_S)
        orch.submit(double, 1).wait(LONG_S)
        assert ran == []


def test_a_running_task_that_is_cancelled_ends_at_once_and_what_it_returns_is_discarded(
    orch: Orchestrator, gate: Gate
) -> None:
    running = orch.submit(gate)
    assert gate.entered.wait(LONG_S)
    assert running.status is TaskStatus.RUNNING
    assert orch.cancel(running.id) is True
    assert running.wait(LONG_S).status is TaskStatus.CANCELLED
    assert orch.get_run(running.id).status is WorkflowStatus.CANCELLED
    gate.open()
    orch.wait_all([orch.submit(double, n) for n in range(20)], timeout=LONG_S)
    assert (orch.get_task(running.id).status, orch.get_task(running.id).output) == (TaskStatus.CANCELLED, None)


def test_cancelling_what_has_ended_or_was_cancelled_says_false_and_changes_nothing(orch: Orchestrator) -> None:
    done = orch.submit(double, 1).wait(LONG_S)
    assert orch.cancel(done.id) is False
    assert done.status is TaskStatus.COMPLETED
    waiting = orch.submit(fail, retry=RetryPolicy(3, delay=60))
    wait_until(lambda: waiting.status is TaskStatus.RETRYING)
    assert (orch.cancel(waiting.id), orch.cancel(waiting.id)) == (True, False)
    assert waiting.status is TaskStatus.CANCELLED


# Retries


def test_a_number_of_retries_is_a_number_of_attempts(orch: Orchestrator) -> None:
    failed = orch.submit(fail, retry=RetryPolicy(3, delay=0)).wait(LONG_S)
    assert (failed.status, failed.attempts, failed.claims) == (TaskStatus.FAILED, 3, 3)
    assert Task("t", fail, retry=3).retry.max_attempts == 3


def test_an_attempt_that_succeeds_ends_the_retries_and_the_error(orch: Orchestrator) -> None:
    attempts: list[int] = []

    def unsteady() -> str:
        attempts.append(1)
        if len(attempts) < 3:
            raise ConnectionError("again")
        return "there"

    done = orch.submit(unsteady, retry=RetryPolicy(5, delay=0)).wait(LONG_S)
    assert (done.output, done.error, done.attempts, len(attempts)) == ("there", None, 3, 3)


def test_the_wait_between_attempts_is_kept_in_the_store_and_grows(orch: Orchestrator) -> None:
    times: list[float] = []

    def noted() -> None:
        times.append(time.monotonic())
        raise ValueError("again")

    waiting = orch.submit(noted, retry=RetryPolicy(3, delay=60))
    wait_until(lambda: waiting.status is TaskStatus.RETRYING)
    assert str(waiting.error) == "again"
    assert orch.cancel(waiting.id)
    times.clear()
    failed = orch.submit(noted, retry=RetryPolicy(3, delay=0.2, backoff=2, jitter=0)).wait(LONG_S)
    assert failed.attempts == 3
    told = [event.data["after_s"] for event in orch.history(run=failed.id, type="task.retrying")]
    assert told == [0.2, 0.4]
    first, second = times[1] - times[0], times[2] - times[1]
    print(f"retried after {first:.3f} s and {second:.3f} s, asked for 0.2 and 0.4")
    assert first >= 0.2
    assert second >= 0.4


def test_only_errors_that_the_policy_names_are_retried(orch: Orchestrator) -> None:
    class Passing(ConnectionError):
        def __init__(self, one: int, two: int) -> None:  # pickle cannot make it again
            super().__init__(f"{one} and {two}")

    def raises(error: str) -> None:
        raise {"passing": Passing(1, 2), "value": ValueError("x"), "key": KeyError("k")}[error]

    def attempts(error: str, **policy: Any) -> int:
        return orch.submit(raises, error, retry=RetryPolicy(2, delay=0, **policy)).wait(LONG_S).attempts

    assert attempts("passing", retry_on=ConnectionError) == 2
    assert attempts("passing", retry_on="OSError") == 2
    assert attempts("value", retry_on=[ConnectionError, KeyError]) == 1
    assert attempts("value", give_up_on=ValueError) == 1
    assert attempts("key", give_up_on=(ValueError, "LookupError")) == 1
    assert attempts("key", give_up_on=ValueError) == 2


# Limits of time


def test_a_coroutine_that_runs_too_long_is_cancelled(orch: Orchestrator) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def slow() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def ends() -> bool:
        failed = orch.submit(slow, timeout=0.1).wait(LONG_S)
        assert failed.error is not None
        said = (failed.error.type, failed.error.message)
        assert said == ("TaskTimedOut", "'slow' ran longer than its timeout of 0.1 s")
        return begun.is_set()

    wait_until(ends, what="a body that begins before its time is over")
    assert cancelled.wait(LONG_S)


def test_a_plain_function_that_runs_too_long_fails_and_what_it_returns_is_discarded(
    orch: Orchestrator, gate: Gate
) -> None:
    failed = orch.submit(gate, name="slow", timeout=timedelta(milliseconds=100)).wait(LONG_S)
    assert str(failed.error) == "'slow' ran longer than its timeout of 0.1 s"
    gate.open()
    orch.wait_all([orch.submit(double, n) for n in range(20)], timeout=LONG_S)
    assert orch.get_task(failed.id).status is TaskStatus.FAILED


def test_a_time_limit_counts_for_each_attempt(orch: Orchestrator) -> None:
    async def slow() -> None:
        await asyncio.sleep(60)

    failed = orch.submit(slow, timeout=0.05, retry=RetryPolicy(2, delay=0)).wait(LONG_S)
    assert (failed.attempts, failed.error and failed.error.type) == (2, "TaskTimedOut")


def test_a_body_within_its_limit_is_not_touched(orch: Orchestrator) -> None:
    async def quick() -> str:
        await asyncio.sleep(0.01)
        return "in time"

    assert orch.submit(quick, timeout=60).wait(LONG_S).output == "in time"
    assert orch.submit(double, 4, timeout=60).wait(LONG_S).output == 8


def test_a_timeout_error_of_the_body_is_not_taken_for_its_limit(orch: Orchestrator) -> None:
    async def calls_out() -> None:
        raise TimeoutError("the socket's")

    def calls_out_too() -> None:
        raise TimeoutError("the socket's")

    for body in (calls_out, calls_out_too):
        failed = orch.submit(body, timeout=60, retry=RetryPolicy(2, delay=0, retry_on=TimeoutError)).wait(LONG_S)
        assert failed.error is not None
        assert (failed.error.type, failed.error.message, failed.attempts) == ("TimeoutError", "the socket's", 2)


# Order


def test_urgent_tasks_start_before_all_others_that_were_submitted_earlier(gate: Gate) -> None:
    order: list[str] = []
    with Orchestrator(concurrency=1) as orch:
        orch.submit(gate)
        assert gate.entered.wait(LONG_S)
        usual = [orch.submit(order.append, f"usual {n}", priority=5) for n in range(100)]
        low = [orch.submit(order.append, f"low {n}", priority=10) for n in range(5)]
        urgent = [orch.submit(order.append, f"urgent {n}", priority=1) for n in range(100)]
        gate.open()
        orch.wait_all(usual, low, urgent, timeout=LONG_S)
    assert [each.partition(" ")[0] for each in order] == ["urgent"] * 100 + ["usual"] * 100 + ["low"] * 5
    assert order[:3] == ["urgent 0", "urgent 1", "urgent 2"]  # and the older first


def test_no_more_bodies_run_at_a_time_than_there_are_slots() -> None:
    running, most, lock = 0, 0, threading.Lock()
    three = threading.Barrier(3)

    def counted() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        three.wait(LONG_S)
        time.sleep(0.005)
        with lock:
            running -= 1

    with Orchestrator(concurrency=3) as orch:
        orch.wait_all([orch.submit(counted) for _ in range(60)], timeout=LONG_S)
    assert most == 3


def test_a_task_goes_only_through_statuses_that_may_follow_each_other(orch: Orchestrator) -> None:
    statuses: dict[str, TaskStatus] = {
        "task.queued": TaskStatus.QUEUED,
        "task.started": TaskStatus.RUNNING,
        "task.retrying": TaskStatus.RETRYING,
        "task.completed": TaskStatus.COMPLETED,
        "task.failed": TaskStatus.FAILED,
    }
    failed = orch.submit(fail, retry=RetryPolicy(2, delay=0)).wait(LONG_S)
    seen = [statuses[each.type] for each in orch.history(run=failed.id) if each.type in statuses]
    assert seen == ["QUEUED", "RUNNING", "RETRYING", "QUEUED", "RUNNING", "FAILED"]
    assert all(after in FOLLOWS[before] for before, after in itertools.pairwise(seen))
