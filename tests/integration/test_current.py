"""What a body asks about itself, embedded: ``orchestra.current()``."""

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from orchestra import Orchestrator, RetryPolicy, Task, Workflow, current
from orchestra.errors import NotInStep, Superseded
from tests.processes import wait_until


@pytest.fixture
def orch() -> Iterator[Orchestrator]:
    with Orchestrator() as orch:
        yield orch


def test_a_body_knows_its_step_and_its_run(orch: Orchestrator) -> None:
    def body() -> dict[str, object]:
        step = current()
        assert current() is step
        return {
            "run": step.run_id, "step": step.step_id, "n": step.n, "name": step.name, "claim": step.claim,
            "attempt": step.attempt, "key": step.idempotency_key, "run_name": step.run_name, "job": step.job_id,
            "metadata": dict(step.metadata), "scheduled_for": step.scheduled_for, "stop": step.stop_requested,
        }  # fmt: skip

    workflow = Workflow("W", tasks=[Task("A", body, metadata={"own": 1, "both": 2})])
    run = orch.submit_workflow(workflow, metadata={"both": 1, "of_run": 3}).wait(30)
    assert run.output == {
        "run": run.id, "step": f"{run.id}.0", "n": 0, "name": "A", "claim": 1, "attempt": 1, "key": f"{run.id}.0",
        "run_name": "W", "job": None, "metadata": {"own": 1, "both": 2, "of_run": 3}, "scheduled_for": None,
        "stop": False,
    }  # fmt: skip


def test_the_deadline_is_the_end_of_the_time_limit(orch: Orchestrator) -> None:
    def body() -> object:
        return current().deadline

    before = datetime.now(UTC)
    assert orch.submit(body).wait(30).output is None
    deadline = datetime.fromisoformat(str(orch.submit(body, timeout=30).wait(30).output))
    assert before + timedelta(seconds=30) <= deadline <= datetime.now(UTC) + timedelta(seconds=30)


def test_a_coroutine_and_a_thread_of_the_body_ask_as_well(orch: Orchestrator) -> None:
    async def body() -> list[str]:
        step = current()
        await asyncio.sleep(0)
        in_thread = await asyncio.to_thread(lambda: current().step_id)
        found: list[str] = []
        thread = threading.Thread(target=lambda: found.append(step.step_id))
        thread.start()
        thread.join()
        return [current().step_id, in_thread, *found]

    task = orch.submit(body).wait(30)
    assert task.output == [f"{task.id}.0"] * 3


def test_outside_of_a_body_there_is_no_step() -> None:
    with pytest.raises(NotInStep, match="no step runs here"):
        current()


def test_a_checkpoint_is_there_in_the_next_attempt_and_the_key_stays(orch: Orchestrator) -> None:
    def body() -> object:
        step = current()
        done = step.checkpoint.load([])
        assert isinstance(done, list)
        done.append([step.attempt, step.claim, step.idempotency_key])
        step.checkpoint.save(done)
        step.checkpoint.save({"at": datetime(2030, 1, 1, tzinfo=UTC)}, key="when")
        if step.attempt < 3:
            raise ValueError(step.attempt)
        return [done, step.checkpoint.load(key="when"), step.checkpoint.keys(), step.checkpoint.load(7, key="none")]

    task = orch.submit(body, retry=RetryPolicy(3, delay=0.01)).wait(30)
    key = f"{task.id}.0"
    assert task.output == [
        [[1, 1, key], [2, 2, key], [3, 3, key]], {"at": "2030-01-01T00:00:00Z"}, ["default", "when"], 7
    ]  # fmt: skip


def test_a_cancelled_body_is_asked_to_stop_and_saves_nothing(orch: Orchestrator) -> None:
    seen: list[object] = []

    def body() -> None:
        step = current()
        seen.append("started")
        while not step.stop_requested:
            time.sleep(0.01)
        try:
            step.checkpoint.save(1)
        except Superseded as error:
            seen.append(error)

    task = orch.submit(body)
    wait_until(lambda: seen == ["started"])
    orch.cancel(task.id)
    wait_until(lambda: len(seen) == 2)
    assert isinstance(seen[1], Superseded)


def test_a_body_that_ran_out_of_time_is_asked_to_stop(orch: Orchestrator) -> None:
    stopped = threading.Event()

    def body() -> None:
        step = current()
        while not step.stop_requested:
            time.sleep(0.01)
        stopped.set()

    error = orch.submit(body, timeout=0.2).wait(30).error
    assert error is not None
    assert error.type == "TaskTimedOut"
    assert stopped.wait(30)
