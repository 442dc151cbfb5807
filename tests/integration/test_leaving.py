"""Workers are told to stop: they finish what they can, and give back the rest, which is nobody's crash."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from celery.worker import state

from orchestra import Task, TaskStatus
from orchestra.runtime.worker import Pod
from tests import bodies
from tests.cluster import Cluster
from tests.processes import Process

both_brokers = pytest.mark.parametrize("cluster", ["redis", "rabbitmq"], indirect=True)


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    broker: str = getattr(request, "param", "redis")
    with Cluster(tmp_path, request.getfixturevalue(f"{broker}_url"), queue="leaving") as made:
        yield made


def held(cluster: Cluster, pool: str, *options: str) -> tuple[Process, Task]:
    """Start a worker whose only slot is taken by a body that waits to be released."""
    worker = cluster.worker("--pool", pool, "--concurrency", "1", *options)
    task = cluster.orchestrator().submit(bodies.hold, "held")
    cluster.wait_for_note("held begins")
    return worker, task


def step(cluster: Cluster, task: Task) -> tuple[TaskStatus, int, int, int]:
    now = cluster.orchestrator().get_task(task.id)
    return now.status, now.claims, now.attempts, now.crashes


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio", "solo"])
def test_what_does_not_end_in_the_grace_period_is_given_back_and_no_crash(cluster: Cluster, pool: str) -> None:
    worker, task = held(cluster, pool, "--grace", "0.5s")
    worker.popen.terminate()
    assert worker.wait(30) == 0
    assert step(cluster, task) == (TaskStatus.QUEUED, 1, 0, 0)
    reasons = [each.data["error"] for each in cluster.orchestrator().history(run=task.id, type="task.retrying")]
    assert reasons == ["its worker was told to go"]
    assert len(cluster.orchestrator().history(type="worker.offline")) == 1


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_what_ends_in_the_grace_period_is_finished_and_nothing_new_is_begun(cluster: Cluster, pool: str) -> None:
    worker, task = held(cluster, pool)
    worker.popen.terminate()
    worker.wait_for("shutdown")
    late = cluster.orchestrator().submit(bodies.echo, "late")
    cluster.release("held")
    assert worker.wait(30) == 0
    assert step(cluster, task) == (TaskStatus.COMPLETED, 1, 1, 0)
    assert step(cluster, late) == (TaskStatus.QUEUED, 0, 0, 0)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_body_is_left_at_a_safe_point_and_goes_on_elsewhere_from_its_checkpoint(cluster: Cluster, pool: str) -> None:
    worker = cluster.worker("--pool", pool, "--concurrency", "1", "--grace", "10m")
    task = cluster.orchestrator().submit(bodies.counts_on, "count", retry=1)
    cluster.wait_for_note("count begins")
    worker.popen.terminate()
    assert worker.wait(30) == 0
    assert step(cluster, task) == (TaskStatus.QUEUED, 1, 0, 0)
    cluster.worker("--pool", pool, "--concurrency", "1")
    cluster.wait_for_note("count begins", 2)
    cluster.release("count")
    assert task.wait(30).status is TaskStatus.COMPLETED, task.error
    assert int(str(task.output)) > 0  # where it began the second time
    assert step(cluster, task) == (TaskStatus.COMPLETED, 2, 1, 0)


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_one_ctrl_c_is_patient_and_the_second_is_not(cluster: Cluster, pool: str) -> None:
    worker, task = held(cluster, pool, "--grace", "10m")
    worker.popen.send_signal(signal.SIGINT)
    worker.wait_for("finishing what runs, for 600 s at most; Ctrl-C again gives it back now")
    assert step(cluster, task) == (TaskStatus.RUNNING, 1, 0, 0)
    worker.popen.send_signal(signal.SIGINT)
    assert worker.wait(30) == 0
    assert step(cluster, task) == (TaskStatus.QUEUED, 1, 0, 0)


def test_a_second_ctrl_c_counts_while_the_first_is_being_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    pod: Any = object.__new__(Pod)
    pod.hostname, pod.leaving = "me", SimpleNamespace(grace_s=600.0, hurry=lambda: said.append("no more patience"))

    def answer(_file: int, _text: bytes) -> None:
        said.append("finishing")
        if said == ["finishing"]:
            pod._interrupted()

    with monkeypatch.context() as patch:
        patch.setattr(state, "should_stop", None)
        patch.setattr("orchestra.runtime.worker.os.write", answer)
        pod._interrupted()
    assert said == ["finishing", "no more patience"]


def test_a_body_that_was_cancelled_keeps_no_worker_beyond_its_grace_period(cluster: Cluster) -> None:
    worker, task = held(cluster, "prefork", "--grace", "0.5s")
    worker.popen.terminate()
    cluster.orchestrator().cancel(task.id)
    assert worker.wait(30) == 0
    assert step(cluster, task)[0] is TaskStatus.CANCELLED


@both_brokers
def test_a_message_whose_body_has_not_begun_goes_back_at_once(cluster: Cluster) -> None:
    worker, _task = held(cluster, "prefork", "--grace", "10m")
    others = [cluster.orchestrator().submit(bodies.echo, n) for n in range(3)]
    worker.popen.terminate()
    worker.wait_for("shutdown")
    cluster.worker("--concurrency", "1")
    for task in others:
        assert task.wait(30).status is TaskStatus.COMPLETED
    assert worker.alive


def test_a_child_that_is_about_to_begin_keeps_nobody_waiting_who_does_not_expect_it(cluster: Cluster) -> None:
    worker = cluster.worker("--pool", "prefork", "--concurrency", "1")
    (child,) = psutil.Process(worker.pid).children()
    child.suspend()
    task = cluster.orchestrator().submit(bodies.echo, "late")
    worker.wait_for("received")
    time.sleep(0.2)  # until it is on its way to the child
    worker.popen.terminate()
    worker.wait_for("shutdown")
    time.sleep(0.5)  # until it has given up what its child has not begun
    child.resume()
    assert worker.wait(30) == 0
    # Whether the child had been given it by then is chance.
    assert step(cluster, task) in ((TaskStatus.COMPLETED, 1, 1, 0), (TaskStatus.QUEUED, 0, 0, 0))
