"""Steering runs through an embedded orchestrator: pause, resume, retry, fork, dead letters, progress, logs."""

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from orchestra import Orchestrator, Task, TaskStatus, Workflow, WorkflowStatus, current, task, workflow
from orchestra.errors import InvalidOption, UnknownId
from tests.processes import wait_until


@pytest.fixture
def orch() -> Iterator[Orchestrator]:
    with Orchestrator() as orch:
        yield orch


def test_a_paused_run_waits_and_a_resumed_one_goes_to_its_end(orch: Orchestrator) -> None:
    going, ran = threading.Event(), list[str]()
    first = Task("First", lambda: going.wait(30))
    second = Task("Second", lambda _before: ran.append("second"))
    run = orch.submit_workflow(Workflow("W", [first, second], dependencies={"Second": ["First"]}))
    wait_until(lambda: first.status is TaskStatus.RUNNING)
    assert orch.pause(run.id)
    assert run.status is WorkflowStatus.PAUSED
    going.set()
    wait_until(lambda: first.status is TaskStatus.COMPLETED)
    # A run that is not paused overtakes it.
    assert orch.submit(len, "abc").wait(30).output == 3
    assert (second.status, ran) == (TaskStatus.QUEUED, [])
    assert orch.resume(run.id)
    assert run.wait(30).status is WorkflowStatus.COMPLETED
    assert (ran, orch.resume(run.id), orch.pause(run.id)) == (["second"], False, False)


def test_a_pause_holds_over_a_restart(tmp_path: Path) -> None:
    with Orchestrator(state_file=tmp_path / "s.db") as orch:
        hold = threading.Event()
        blocking = [orch.submit(hold.wait, 30) for _ in range(8)]
        waiting = orch.submit(len, "abc", key="k")
        assert orch.pause(waiting.id)
        hold.set()
        orch.wait_all(blocking, timeout=30)
    with Orchestrator(state_file=tmp_path / "s.db") as orch:
        assert orch.submit(len, "ab").wait(30).output == 2
        assert orch.get_run(waiting.id).status is WorkflowStatus.PAUSED
        assert orch.resume(waiting.id)
        assert orch.get_task(waiting.id).wait(30).output == 3


def test_a_retry_runs_what_failed_and_what_it_kept_from_running(orch: Orchestrator) -> None:
    ran: list[str] = []
    broken = [True]

    @task
    def good() -> str:
        ran.append("good")
        return "good"

    @task
    def flaky(before: str) -> str:
        ran.append("flaky")
        if broken[0]:
            raise ConnectionError("down")
        return before + " flaky"

    @task
    def last(before: str) -> str:
        ran.append("last")
        return before + " last"

    @workflow
    def flow() -> object:
        return last(flaky(good()))

    run = orch.submit_workflow(flow).wait(30)
    assert run.status is WorkflowStatus.FAILED
    broken[0] = False
    assert orch.retry(run.id)
    assert run.wait(30).output == "good flaky last"
    assert ran == ["good", "flaky", "flaky", "last"]
    assert not orch.retry(run.id)
    with pytest.raises(UnknownId):
        orch.retry("nowhere")


def test_a_cancelled_task_runs_again_in_the_same_worker(orch: Orchestrator) -> None:
    hold = threading.Event()

    def body() -> str:
        return "done" if hold.is_set() else str(hold.wait(30))

    sent = orch.submit(body)
    wait_until(lambda: sent.status is TaskStatus.RUNNING)
    orch.cancel(sent.id)
    assert sent.wait(30).status is TaskStatus.CANCELLED
    hold.set()
    assert orch.retry(sent.id)
    assert sent.wait(30).output == "done"


def test_a_cancelled_coroutine_is_stopped_and_frees_its_slot() -> None:
    begun, ended = threading.Event(), list[float]()

    async def body() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(time.monotonic())

    with Orchestrator(concurrency=1) as orch:
        sent = orch.submit(body)
        assert begun.wait(30)
        at = time.monotonic()
        orch.cancel(sent.id)
        assert orch.submit(len, "abc").wait(30).output == 3
        wait_until(lambda: ended, 30, "the end of the coroutine")
        print(f"embedded coroutine: stopped after {ended[0] - at:.2f} s")


def test_a_fork_runs_from_a_step_on_and_leaves_the_run_alone(orch: Orchestrator) -> None:
    ran: list[str] = []

    def step(name: str) -> Task:
        def body(*_before: object) -> str:
            ran.append(name)
            return f"{name}{len(ran)}"

        return Task(name, body)

    shape = Workflow("W", [step("A"), step("B"), step("C")], dependencies={"B": ["A"], "C": ["B"]})
    run = orch.submit_workflow(shape, metadata={"x": 1}).wait(30)
    forked = orch.fork(run.id, from_step="B").wait(30)
    assert ran == ["A", "B", "C", "B", "C"]
    assert [each.output for each in forked.tasks] == ["A1", "B4", "C5"]
    assert (forked.name, forked.metadata, run.output) == ("W", {"x": 1}, "C3")
    with pytest.raises(UnknownId):
        orch.fork(run.id, from_step="D")
    alone = orch.submit(len, "abc").wait(30)
    with pytest.raises(InvalidOption, match="from_step"):
        orch.fork(alone.id, from_step=alone.id)


def test_failed_runs_are_found_and_retried_together(orch: Orchestrator) -> None:
    broken = [True]

    def body(kind: str) -> str:
        if broken[0]:
            raise {"net": ConnectionRefusedError, "value": ValueError}[kind](kind)
        return kind

    for kind in ("net", "net", "value"):
        orch.submit(body, kind, name=f"call {kind}", metadata={"kind": kind}).wait(30)
    orch.submit(len, "abc").wait(30)
    assert len(orch.failed()) == 3
    assert len(orch.failed(error_type="ConnectionError")) == 2
    assert [each.name for each in orch.failed(metadata={"kind": "value"})] == ["call value"]
    assert len(orch.failed(name="call net", since=timedelta(minutes=1))) == 2
    assert orch.failed(error_type="KeyError") == []
    broken[0] = False
    again = orch.retry_all(error_type="ConnectionError")
    assert [run.wait(30).output for run in again] == ["net", "net"]
    assert [each.name for each in orch.failed()] == ["call value"]


def test_progress_and_log_lines_of_a_body_are_kept(orch: Orchestrator) -> None:
    seen = threading.Event()

    def body() -> None:
        step = current()
        step.progress(0.4, "chunk 4 of 10")
        step.logger.info("read %d rows", 7)
        step.logger.debug("not kept")
        seen.wait(30)
        step.progress(0.5)
        step.progress(1.0, "done")
        step.logger.warning("late")

    sent = orch.submit(body)
    wait_until(lambda: sent.progress is not None)
    assert sent.progress is not None
    assert (sent.progress.share, sent.progress.text) == (0.4, "chunk 4 of 10")
    wait_until(lambda: len(orch.logs(sent.id)) == 1)
    seen.set()
    sent.wait(30)
    assert sent.progress.text == "done"
    assert [(line.level, line.text, line.n) for line in orch.logs(sent.id)] == [
        ("INFO", "read 7 rows", 0), ("WARNING", "late", 0)
    ]  # fmt: skip
    with pytest.raises(UnknownId):
        orch.logs("nowhere")


def test_the_asynchronous_face_is_thin(orch: Orchestrator) -> None:
    async def program() -> list[object]:
        sent = await orch.asubmit(len, "abc", priority=2)
        run = await orch.asubmit_workflow(Workflow("W", [Task("A", len, "abcd")]))
        done = await asyncio.gather(sent.await_done(30), run.await_done(30))
        return [each.output for each in done]

    assert asyncio.run(program()) == [3, 4]


def test_the_deadline_of_a_run_ends_it_and_what_was_not_begun_in_time_expires(orch: Orchestrator) -> None:
    begun, stopped = threading.Event(), threading.Event()

    def body() -> None:
        begun.set()
        step = current()
        assert step.deadline is not None
        while not step.stop_requested:
            time.sleep(0.01)
        stopped.set()

    for _ in range(20):  # a machine that stalls may not begin it in time
        late = orch.submit(body, deadline=0.5)
        assert late.wait(30).status is TaskStatus.CANCELLED
        assert orch.get_run(late.id).status is WorkflowStatus.FAILED
        assert late.error is not None
        assert late.error.type == "DeadlineExceeded"
        if begun.is_set():
            break
    assert stopped.wait(30)

    hold = threading.Event()
    blocking = [orch.submit(hold.wait, 30) for _ in range(8)]
    wait_until(lambda: all(each.status is TaskStatus.RUNNING for each in blocking))
    expiring = orch.submit(len, "abc", expires=0.3)
    assert expiring.wait(30).status is TaskStatus.CANCELLED
    assert [each.id for each in orch.failed(error_type="Expired")] == [expiring.id]
    hold.set()
    assert orch.submit(len, "abc", expires=timedelta(minutes=1), deadline=60).wait(30).output == 3
