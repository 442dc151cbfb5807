"""The asyncio pool: for people's own Celery applications, for steps, and in the embedded worker."""

import asyncio
import importlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord
from celery.exceptions import TaskRevokedError, TimeLimitExceeded

from orchestra import Orchestrator, Task, TaskStatus, Workflow, WorkflowStatus
from tests import bodies
from tests.cluster import ROOT, Cluster
from tests.forks import Program
from tests.processes import wait_until
from tests.servers import PrivateRedis


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The module of a plain Celery application that a worker serves."""
    with PrivateRedis() as redis, pytest.MonkeyPatch.context() as patch:
        patch.setenv("COROUTINES_REDIS", redis.url)
        module = importlib.import_module("tests.coroutines")
        command = ["celery", "-A", "tests.coroutines", "worker", "-c", "200", "-l", "WARNING"]
        log = tmp_path_factory.mktemp("pool") / "worker.log"
        options = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        with Program([sys.executable, "-m", *command, *options], log=log, cwd=ROOT) as worker:
            wait_until(lambda: "queues" in worker.output, 30)
            yield module


def test_coroutine_tasks_of_plain_celery_run_beside_each_other_each_with_its_own_request(tasks: Any) -> None:
    begun = time.monotonic()
    results = [tasks.nap.delay(number) for number in range(100)]
    assert [each.get(timeout=30) for each in results] == list(range(100))
    assert time.monotonic() - begun < 15  # one after the other it would be 30


def test_plain_functions_run_on_threads_beside_each_other(tasks: Any) -> None:
    results = [tasks.plain.delay(number) for number in range(20)]
    begun = time.monotonic()
    assert [each.get(timeout=30) for each in results] == list(range(20))
    assert time.monotonic() - begun < 15  # one after the other it would be 30


def test_retries_chains_and_chords_go_on_from_coroutines(tasks: Any) -> None:
    assert tasks.third_time.delay().get(timeout=30) == 2
    assert chain(tasks.nap.s(3), tasks.plain.s()).apply_async().get(timeout=30) == 3
    assert chord([tasks.nap.s(n) for n in range(4)], tasks.total.s()).apply_async().get(timeout=30) == 6


def test_time_limits_reach_a_coroutine(tasks: Any) -> None:
    assert tasks.tidies.delay().get(timeout=30) == "tidied"
    with pytest.raises(TimeLimitExceeded):
        tasks.endless.delay().get(timeout=30)


def test_a_revoked_coroutine_is_cancelled(tasks: Any, tmp_path: Path) -> None:
    path = tmp_path / "held"
    result = tasks.held.delay(str(path))
    wait_until(path.exists)
    result.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=30)
    wait_until(lambda: path.read_text() == "cancelled")


def test_a_cancelled_step_of_an_adopted_coroutine_task_is_cancelled(tasks: Any, tmp_path: Path) -> None:
    broker, path = tasks.REDIS, tmp_path / "held"
    settings = {"COROUTINES_REDIS": broker}
    with Cluster(tmp_path, broker, app="tests.coroutine_flows:orch", queue="steps", settings=settings) as cluster:
        cluster.worker("--pool", "asyncio", env={"ORCHESTRA_BROKER": None})
        with Orchestrator(app=tasks.app, store=cluster.store, queue="steps") as orch:
            step = orch.submit(tasks.held, str(path))
            wait_until(path.exists)
            wait_until(lambda: step.status is TaskStatus.RUNNING)
            at = time.monotonic()
            assert orch.cancel(step.id)
            wait_until(lambda: path.read_text() == "cancelled")
            print(f"adopted coroutine: stopped after {time.monotonic() - at:.2f} s")


# Steps


@pytest.fixture
def cluster(private_redis: Callable[..., PrivateRedis], tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path, private_redis().url) as made:
        yield made


def test_one_process_runs_many_steps_that_wait_and_plain_ones_beside_them(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    cluster.worker("--pool", "asyncio", "--concurrency", "64")
    waiting = [Task(name=f"a{n}", agent=bodies.nap_async, input=1.0) for n in range(40)]
    plain = [Task(name=f"p{n}", agent=bodies.nap, input=0.5) for n in range(5)]
    run = orch.submit_workflow(Workflow(name="both", tasks=[*waiting, *plain])).wait(60)
    assert run.status is WorkflowStatus.COMPLETED
    notes = cluster.notes()
    assert len({note.pid for note in notes}) == 1
    assert max(note.time for note in notes) - min(note.time for note in notes) < 20  # one after the other: 42


def test_a_coroutine_that_takes_too_long_is_cancelled_and_has_failed(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    cluster.worker("--pool", "asyncio")
    late = orch.submit(bodies.nap_async, 60.0, timeout=0.5).wait(30)
    assert (late.status, late.error and late.error.type) == (TaskStatus.FAILED, "TaskTimedOut")
    assert orch.submit(bodies.echo, "next").wait(30).output == "next"


def test_a_worker_killed_in_the_middle_of_a_coroutine_is_made_good_by_another(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    first = cluster.worker("--pool", "asyncio")
    task = orch.submit(bodies.hold_async, "held")
    cluster.wait_for_note("held begins")
    first.kill9()
    cluster.release("held")
    cluster.worker("--pool", "asyncio")
    task.wait(30)
    assert (task.status, task.crashes, task.claims) == (TaskStatus.COMPLETED, 1, 2)


def test_a_body_that_holds_the_interpreter_for_longer_than_a_lease_lasts_is_left_to_its_worker(
    cluster: Cluster,
) -> None:
    orch = cluster.orchestrator()
    cluster.worker("--pool", "asyncio", "--queues", "others", env={"ORCHESTRA_LEASE_S": "2"})
    cluster.worker("--pool", "asyncio", env={"ORCHESTRA_LEASE_S": "2"})
    task = orch.submit(bodies.hold_the_interpreter, 14).wait(60)  # six times two seconds, and a look of the other
    assert (task.status, task.claims, task.crashes) == (TaskStatus.COMPLETED, 1, 0)
    assert cluster.noted() == {"holds the interpreter": 1}


# Embedded


async def which_loop() -> int:
    await asyncio.sleep(0.05)
    return id(asyncio.get_running_loop())


def test_coroutines_of_an_embedded_orchestrator_share_one_loop() -> None:
    with Orchestrator() as orch:
        tasks = orch.wait_all([orch.submit(which_loop) for _ in range(8)], timeout=30)
        assert len({task.output for task in tasks}) == 1
