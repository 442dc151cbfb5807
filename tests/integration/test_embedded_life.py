"""The life of embedded orchestrators: opening, closing, several of them in one process, and how fast they are."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from celery import Celery, _state
from celery.contrib.testing.worker import start_worker

from orchestra import Orchestrator, Task, TaskStatus, Workflow, WorkflowStatus, default, task
from orchestra.errors import Closed
from tests.processes import least, wait_until

LONG_S = 30


def noop() -> None:
    return None


def run_program(source: str, folder: Path, root: Path) -> subprocess.CompletedProcess[str]:
    """Run a program as a user would, with nothing set up."""
    path = folder / "program.py"
    path.write_text(source)
    return subprocess.run(
        [sys.executable, str(path)], cwd=folder, env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


# Opening and closing


@pytest.mark.alone
def test_opening_starts_no_thread_and_submitting_does() -> None:
    before = set(threading.enumerate())  # some of which may be about to end
    with Orchestrator(concurrency=3) as orch:
        assert set(threading.enumerate()) <= before
        assert orch.runs() == []
        assert set(threading.enumerate()) <= before
        orch.submit(noop).wait(LONG_S)
        assert set(threading.enumerate()) - before
    wait_until(lambda: set(threading.enumerate()) <= before)


@pytest.mark.alone
def test_closing_an_idle_orchestrator_takes_no_time_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())

    def closed() -> float:
        orch = Orchestrator(concurrency=8)
        orch.on("task.completed", lambda _task: None)
        orch.submit(noop, callback=lambda _task: None).wait(LONG_S)
        begun = time.perf_counter()
        orch.close()
        took = time.perf_counter() - begun
        wait_until(lambda: set(threading.enumerate()) <= before)
        return took

    took = least(closed, 0.5)
    print(f"closed in {took * 1e3:.1f} ms")
    assert took < 0.5


@pytest.mark.alone
def test_closing_does_not_wait_for_bodies() -> None:
    def closed() -> float:
        entered, release = threading.Barrier(5), threading.Event()

        def body() -> None:
            entered.wait(LONG_S)
            release.wait(LONG_S)

        orch = Orchestrator(concurrency=4)
        for _ in range(8):
            orch.submit(body)
        entered.wait(LONG_S)
        begun = time.perf_counter()
        orch.close()
        took = time.perf_counter() - begun
        release.set()
        return took

    took = least(closed, 0.5)
    print(f"closed with four running bodies in {took * 1e3:.1f} ms")
    assert took < 0.5


@pytest.mark.alone
def test_threads_of_bodies_that_were_left_behind_end_with_them(caplog: pytest.LogCaptureFixture) -> None:
    before = set(threading.enumerate())
    entered, release = threading.Barrier(5), threading.Event()

    def body() -> None:
        entered.wait(LONG_S)
        release.wait(LONG_S)

    with Orchestrator(concurrency=4) as orch:
        for _ in range(4):
            orch.submit(body)
        entered.wait(LONG_S)
    caplog.clear()
    release.set()
    wait_until(lambda: set(threading.enumerate()) <= before, timeout=30)
    assert caplog.text == ""


def test_an_orchestrator_may_be_closed_twice_by_a_callback_or_by_a_step() -> None:
    closed = threading.Event()
    orch = Orchestrator()

    def close(_task: Task) -> None:
        orch.close()
        closed.set()

    orch.submit(noop, callback=close)
    assert closed.wait(LONG_S)
    orch.close()

    other = Orchestrator()
    other.submit(lambda: (other.close(), closed.clear()))
    wait_until(lambda: not closed.is_set())


def test_how_a_task_and_a_run_failed_can_be_read_after_the_orchestrator_was_closed() -> None:
    with Orchestrator() as orch:
        task = orch.submit(lambda: 1 / 0).wait(LONG_S)
        run = orch.submit_workflow(Workflow("flow", [Task("only", lambda: 1 / 0)])).wait(LONG_S)
    assert (task.status, str(task.error)) == (TaskStatus.FAILED, "division by zero")
    assert run.status is WorkflowStatus.FAILED
    assert "division by zero" in str(run.error)


def test_everything_that_is_asked_of_a_closed_orchestrator_is_refused_and_says_so() -> None:
    with Orchestrator() as orch:
        done = orch.submit(noop).wait(LONG_S)
        unseen = orch.get_run(orch.submit(noop).wait(LONG_S).id)
        hold = threading.Event()
        running = orch.submit(hold.wait, LONG_S)
    asks: list[Any] = [
        lambda: orch.submit(noop), lambda: orch.submit_workflow(Workflow("w", [Task("a", noop)])),
        lambda: orch.status(done.id), lambda: orch.get_task(done.id), lambda: orch.get_run(done.id), orch.runs,
        lambda: orch.cancel(done.id), lambda: orch.emit("a.b"), lambda: orch.on("a.b", print), orch.history,
        lambda: running.status, lambda: running.wait(), lambda: unseen.tasks,
    ]  # fmt: skip
    for ask in asks:
        with pytest.raises(Closed, match="was closed; make a new one"):
            ask()
    assert (done.status, done.output) == (TaskStatus.COMPLETED, None)  # what was seen stays
    assert "closed" in repr(orch)
    hold.set()


def test_who_waits_when_it_is_closed_is_told() -> None:
    hold, told = threading.Event(), SimpleQueue[BaseException]()
    orch = Orchestrator()
    running = orch.submit(hold.wait, LONG_S)

    def wait() -> None:
        try:
            running.wait()
        except Closed as error:
            told.put(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    wait_until(lambda: running.status is TaskStatus.RUNNING)
    orch.close()
    assert "was closed" in str(told.get(timeout=LONG_S))
    waiting.join(LONG_S)
    hold.set()


def test_the_default_orchestrator_is_one_until_it_is_closed_and_then_a_new_one() -> None:
    with default() as first:
        assert default() is first
        assert not first.closed
    assert first.closed
    with default() as second:
        assert second is not first
        assert second.submit(lambda: 1).wait(LONG_S).output == 1


def test_fifty_orchestrators_in_a_row_leave_no_thread() -> None:
    before = set(threading.enumerate())
    for n in range(50):
        with Orchestrator(concurrency=2) as orch:
            assert orch.submit(lambda n=n: n).wait(LONG_S).output == n
    wait_until(lambda: set(threading.enumerate()) <= before)


ENDS = {
    "closed": "orch.submit(work).wait(30); orch.close()",
    "left open": "orch.submit(work).wait(30)",
    "left while a body runs": "orch.submit(time.sleep, 30); wait_until_running()",
    "left with work": "[orch.submit(work) for _ in range(500)]",
    "left by an error of the program": "orch.submit(work).wait(30); sys.exit(3)",
    "never used": "",
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_program_prints_nothing_of_ours_and_ends_at_once(tmp_path: Path, root: Path, end: str) -> None:
    source = f"""
import sys, time
from orchestra import Orchestrator

def work(): return 1
def fails(): raise ValueError("a failed task is no output")

def wait_until_running():
    while not any(each.status == "RUNNING" for run in orch.runs() for each in run.tasks): time.sleep(0.01)

orch = Orchestrator()
orch.on("task.*", lambda task: None)
orch.submit(fails).wait(30)
with open("last words", "w") as file: file.write(str(time.monotonic()))
{end}
"""
    ended = run_program(source, tmp_path, root)
    took = time.monotonic() - float((tmp_path / "last words").read_text())
    assert (ended.stdout, ended.stderr, ended.returncode) == ("", "", 3 if "sys.exit" in end else 0)
    assert took < 15


# Several in one process


@contextmanager
def users_worker(app: Celery) -> Iterator[None]:
    """Celery's own test worker, which sets up more than it takes down."""
    finalizers, default, current = set(_state._on_app_finalizers), _state.default_app, _state._tls.current_app
    try:
        with start_worker(app, pool="solo", perform_ping_check=False, loglevel="critical"):
            yield
    finally:
        _state._on_app_finalizers.intersection_update(finalizers)
        _state.default_app, _state._tls.current_app = default, current


@pytest.mark.usefixtures("untouched_process")
def test_two_orchestrators_and_a_celery_application_do_not_disturb_each_other() -> None:
    ran: SimpleQueue[str] = SimpleQueue()

    def made(label: str) -> Any:
        @task(name="work")
        def work(number: int) -> str:
            ran.put(label)
            return f"{label} {number}"

        return work

    users = Celery("users", broker="memory://", backend="cache+memory://", set_as_current=False)
    users.conf.update(broker_connection_retry_on_startup=True, broker_transport_options={"polling_interval": 0.01})

    @users.task(name="work")
    def work(number: int) -> str:
        ran.put("users")
        return f"users {number}"

    with Orchestrator(queue="celery") as one, Orchestrator(queue="celery") as two, users_worker(users):
        mine, yours = made("one"), made("two")
        tasks = [(one.submit(mine, n), two.submit(yours, n), work.delay(n)) for n in range(20)]
        for n, (first, second, third) in enumerate(tasks):
            assert first.wait(LONG_S).output == f"one {n}"
            assert second.wait(LONG_S).output == f"two {n}"
            assert third.get(timeout=LONG_S) == f"users {n}"
        assert sorted(ran.get() for _ in range(60)) == ["one"] * 20 + ["two"] * 20 + ["users"] * 20
        assert ran.empty()
        assert (len(one.runs()), len(two.runs())) == (20, 20)
        two.close()
        assert one.submit(mine, 1).wait(LONG_S).output == "one 1"
    # The stop of that worker set flags of the whole process.
    with Orchestrator() as three:
        assert three.submit(made("three"), 1).wait(LONG_S).output == "three 1"


@pytest.mark.usefixtures("untouched_process")
def test_a_step_may_use_an_eager_or_ordinary_celery_application() -> None:
    eager = Celery("eager", set_as_current=False)
    eager.conf.task_always_eager = True

    @eager.task(name="work")
    def work() -> str:
        return "eager"

    def uses() -> Any:
        return work.delay().get()

    with Orchestrator() as orch:
        # One after the other: Celery forbids results by a flag of the process while an eager task runs.
        assert [orch.submit(uses).wait(LONG_S).output for _ in range(5)] == ["eager"] * 5
        assert work.delay().get() == "eager"


def test_a_step_may_use_another_orchestrator_but_not_wait_for_it() -> None:
    with Orchestrator() as one, Orchestrator() as two:
        inner = one.submit(lambda: two.submit(lambda: "from two").id).wait(LONG_S)
        assert two.get_task(str(inner.output)).wait(LONG_S).output == "from two"
        failed = one.submit(lambda: two.submit(noop).wait()).wait(LONG_S)
        assert failed.error
        assert failed.error.type == "WouldDeadlock"


def test_many_threads_may_submit_at_a_time() -> None:
    with Orchestrator(concurrency=4) as orch:
        tasks: SimpleQueue[Task] = SimpleQueue()

        def submit() -> None:
            for n in range(50):
                tasks.put(orch.submit(abs, -n))

        threads = [threading.Thread(target=submit) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG_S)
        done = orch.wait_all([tasks.get() for _ in range(400)], timeout=LONG_S)
        assert sorted(each.output for each in done) == sorted(list(range(50)) * 8)  # type: ignore[type-var]


# Figures


@pytest.mark.alone
def test_a_no_op_takes_a_few_milliseconds_from_submit_to_done() -> None:
    with Orchestrator() as orch:
        orch.submit(noop).wait(LONG_S)

        def median() -> float:
            times: list[float] = []
            for _ in range(200):
                started = time.perf_counter()
                orch.submit(noop).wait(LONG_S)
                times.append(time.perf_counter() - started)
            times.sort()
            print(f"submit to done: p50 {times[100] * 1e3:.2f} ms, p99 {times[197] * 1e3:.2f} ms")
            return times[100]

        assert least(median, 0.015) < 0.015  # 5 ms on an idle machine


@pytest.mark.alone
def test_two_thousand_no_ops_run_at_more_than_a_thousand_a_second() -> None:
    def takes() -> float:
        with Orchestrator() as orch:
            orch.submit(noop).wait(LONG_S)
            started = time.perf_counter()
            orch.wait_all([orch.submit(noop) for _ in range(2000)], timeout=60)
            return time.perf_counter() - started

    took = least(takes, 5.0, rounds=5)
    print(f"2,000 no-ops: {2000 / took:,.0f} per second")
    assert took < 5.0  # 2 s on two idle cores


def test_importing_is_quick_and_loads_nothing_heavy(tmp_path: Path, root: Path) -> None:
    source = """
import json, sys, time
started = time.process_time()
import orchestra
took = time.process_time() - started
heavy = ["sqlalchemy", "sqlite3", "psycopg", "pydantic_ai", "openai", "anthropic", "tornado", "flower", "starlette",
         "fastapi", "flask", "aiohttp", "httpx", "celery", "kombu", "redis"]
print(json.dumps([took, [name for name in heavy if name in sys.modules]]))
"""

    def takes() -> float:
        took, heavy = json.loads(run_program(source, tmp_path, root).stdout)
        assert heavy == []
        return took

    took = least(takes, 0.4)
    print(f"import orchestra: {took * 1e3:.0f} ms")
    assert took < 0.4  # of the processor; 200 ms on an idle machine
