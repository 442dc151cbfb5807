"""Trouble on Redis that is no crash: revoked ids, cold stops, lost connections, a full broker, producers that fork."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from billiard.exceptions import TimeLimitExceeded
from celery import Celery

from orchestra import Orchestrator, RetryPolicy, Task, TaskStatus, Workflow, WorkflowStatus
from orchestra.model.ids import MessageRef
from orchestra.store.contract import Claimed
from tests import bodies
from tests.cluster import BREAKS, CANCELS_ON_LOSS, Cluster
from tests.processes import least, wait_until
from tests.servers import PrivateRedis


@pytest.fixture
def server(private_redis: Callable[..., PrivateRedis]) -> PrivateRedis:
    return private_redis()


@pytest.fixture
def cluster(server: PrivateRedis, tmp_path: Path) -> Iterator[Cluster]:
    """A Redis and a store without workers."""
    with Cluster(tmp_path, server.url) as made:
        yield made


# Revoked, by Flower or by hand


def test_a_running_step_that_celery_is_told_to_terminate_is_cancelled_and_reported_as_faults_are(
    cluster: Cluster,
) -> None:
    orch = cluster.orchestrator()
    worker = cluster.worker("--concurrency", "1", env={BREAKS: "broken"})
    first, second = Task("first", bodies.hold, "held"), Task("second", bodies.noop)
    run = orch.submit_workflow(Workflow("two", [first, second], {"second": ["first"]}))
    cluster.wait_for_note("held begins")
    orch.app.control.revoke(f"{run.id}.0.0", terminate=True, signal="SIGKILL")
    assert run.wait(30).status is WorkflowStatus.CANCELLED
    assert [task.status for task in run.tasks] == [TaskStatus.CANCELLED, TaskStatus.SKIPPED]
    assert orch.submit(bodies.echo, "after").wait(30).output == "after", worker.tail()
    assert cluster.noted("held") == {"held begins": 1}
    wait_until(lambda: orch.history(type="worker.task_revoked"), 30, "the report")
    event, *_more = orch.history(type="worker.task_revoked")
    assert event.data == {"task": "first", "run_id": run.id, "step_id": f"{run.id}.0", "terminated": True}
    broken = orch.submit(bodies.echo, "broken")
    wait_until(lambda: orch.history(type="worker.internal_error"), 30, "the report")
    event, *_more = orch.history(type="worker.internal_error")
    about = {"task": "echo", "run_id": broken.id, "step_id": f"{broken.id}.0"}
    assert event.data == {**about, "error": "LookupError: a fault of the engine"}
    assert orch.history(type="worker.process_crashed") == []


def test_a_queued_step_whose_id_was_revoked_is_cancelled(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    cluster.worker("--concurrency", "1")
    task = orch.submit(bodies.echo, "never", queue="later")
    told = partial(orch.app.control.broadcast, reply=True, timeout=5, limit=1)
    # What is told before a worker listens is lost.
    wait_until(lambda: told("revoke", arguments={"task_id": f"{task.id}.0.0"}), 60, "the worker to hear of it")
    wait_until(lambda: told("add_consumer", arguments={"queue": "later"}), 60, "the worker to serve the queue")
    assert task.wait(30).status is TaskStatus.CANCELLED
    assert cluster.noted("echo never") == {}


# Reported twice


def test_a_time_limit_that_celery_reports_twice_ends_one_claim_only(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    task = orch.submit(bodies.noop, timeout=1, retry=RetryPolicy(3, delay=0))
    adapter, store = orch.parts.adapter, orch.parts.store
    adapter.cycle.worker = "a worker's parent"
    message = MessageRef.parse(f"{task.id}.0.0")
    assert isinstance(adapter.cycle.claim(message), Claimed)
    request = SimpleNamespace(id=message.celery_id)
    adapter.failed(request, TimeLimitExceeded(1))
    assert task.status is TaskStatus.RETRYING
    store.due(time.time() + 1)
    assert isinstance(adapter.cycle.claim(message), Claimed)  # by another child of the same parent
    adapter.failed(request, TimeLimitExceeded(1))
    assert (task.status, task.attempts, task.claims) == (TaskStatus.RUNNING, 1, 2)


# Stopped coldly


def test_a_worker_that_is_stopped_coldly_leaves_its_steps_to_others(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    worker = cluster.worker("--concurrency", "1")
    task = orch.submit(bodies.hold, "held")
    first = cluster.wait_for_note("held begins")
    other = cluster.worker("--concurrency", "1")
    os.kill(worker.pid, signal.SIGQUIT)
    second = cluster.wait_for_note("held begins", 2, timeout=60)
    cluster.release("held")
    assert task.wait(30).output == second.pid != first.pid, other.tail()
    assert (task.claims, task.crashes, task.attempts) == (2, 0, 1)


# The connection is lost


@pytest.mark.parametrize("cancels", [False, True])
def test_a_body_that_runs_while_the_broker_restarts_is_recorded_once(
    cluster: Cluster, server: PrivateRedis, cancels: bool
) -> None:
    orch = cluster.orchestrator()
    worker = cluster.worker("--concurrency", "1", env={CANCELS_ON_LOSS: "1"} if cancels else {})
    task = orch.submit(bodies.hold, "held")
    cluster.wait_for_note("held begins")
    server.restart()
    if cancels:
        # Celery terminates the body, because it can never be acknowledged; the step begins again.
        cluster.wait_for_note("held begins", 2, timeout=60)
    cluster.release("held")
    assert task.wait(60).status is TaskStatus.COMPLETED, worker.tail()
    assert (task.claims, task.attempts) == ((2, 1) if cancels else (1, 1))
    assert orch.submit(bodies.echo, "after").wait(60).output == "after", worker.tail()


def test_a_connection_that_is_cut_is_made_again_by_worker_and_producer(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    cluster.worker("--concurrency", "2")
    orch.submit(bodies.noop).wait(30)
    with cluster.redis() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    tasks = [orch.submit(bodies.echo, f"cut {n}") for n in range(10)]
    orch.wait_all(tasks, timeout=30)
    assert cluster.noted("echo") == {f"echo cut {n}": 1 for n in range(10)}


# The broker is full


def test_a_broker_that_is_full_is_said_and_costs_nothing_but_time(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    orch = cluster.orchestrator()
    worker = cluster.worker("--concurrency", "2")
    orch.submit(bodies.noop).wait(30)
    with cluster.redis() as client:
        client.config_set("maxmemory", "1")
        with caplog.at_level(logging.WARNING, "orchestra"):
            tasks = [orch.submit(bodies.echo, f"full {n}") for n in range(3)]
        assert "could not be published and will be sent again" in caplog.text
        assert "maxmemory" in caplog.text
        client.config_set("maxmemory", "0")
    orch.wait_all(tasks, timeout=30)
    assert cluster.noted("echo") == {f"echo full {n}": 1 for n in range(3)}
    assert worker.alive


def test_a_broker_that_is_full_from_the_start_is_there_all_the_same(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    with cluster.redis() as client:
        client.config_set("maxmemory", "1")
        task = orch.submit(bodies.noop)  # it answers, so there is a broker
        assert task.status is TaskStatus.QUEUED
        client.config_set("maxmemory", "0")
    cluster.worker("--concurrency", "1")
    assert task.wait(30).status is TaskStatus.COMPLETED


# Producers


def test_a_producer_that_forks_goes_on_in_parent_and_child(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    cluster.worker("--concurrency", "2")
    orch.submit(bodies.noop).wait(30)  # everything is connected
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(60)
            tasks = [orch.submit(bodies.echo, f"child {n}") for n in range(15)]
            status = 0 if [task.wait(30).output for task in tasks] == [f"child {n}" for n in range(15)] else 2
        finally:
            os._exit(status)
    tasks = [orch.submit(bodies.echo, f"parent {n}") for n in range(15)]
    orch.wait_all(tasks, timeout=30)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    expected = {f"echo {who} {n}": 1 for who in ("child", "parent") for n in range(15)}
    assert cluster.noted("echo") == expected


def test_many_threads_submit_through_one_orchestrator(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    cluster.worker("--pool", "threads", "--concurrency", "4")
    found: list[object] = []

    def produce(number: int) -> None:
        tasks = [orch.submit(bodies.echo, f"{number}-{n}") for n in range(10)]
        found.extend(task.wait(30).output for task in tasks)

    threads = [threading.Thread(target=produce, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, found)) == sorted(f"{number}-{n}" for number in range(12) for n in range(10))


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_step_may_submit_but_not_wait(cluster: Cluster, pool: str) -> None:
    orch = cluster.orchestrator()
    cluster.worker("--pool", pool, "--concurrency", "2")
    submitted = orch.submit(bodies.submits_another, "from inside").wait(30)
    assert orch.get_task(str(submitted.output)).wait(30).output == "from inside"
    refused = orch.submit(bodies.waits_for_another, "deadlock").wait(30)
    assert refused.error is not None
    assert refused.error.type == "WouldDeadlock"


def test_large_values_go_through_the_store_and_not_through_the_broker(cluster: Cluster, server: PrivateRedis) -> None:
    orch = cluster.orchestrator()
    cluster.worker("--concurrency", "2")
    make, take = Task("make", bodies.large, 3_000_000), Task("take", bodies.echo)
    run = orch.submit_workflow(Workflow("large", [make, take], {"take": ["make"]})).wait(30)
    assert run.output == "x" * 3_000_000
    with cluster.redis() as client:
        assert client.info("memory")["used_memory_peak"] < 30_000_000


# Adopted applications of other kinds


def test_an_application_that_creates_no_queues_can_be_adopted(cluster: Cluster) -> None:
    app = Celery("strict", broker=cluster.broker, set_as_current=False)
    app.conf.task_create_missing_queues = False
    with Orchestrator(app=app, store=cluster.store, queue="orchestra", modules=["tests"]) as orch:
        task = orch.submit(bodies.echo, "strict")
        cluster.worker("--concurrency", "1")
        assert task.wait(30).output == "strict"
    app.close()


def test_an_application_that_is_configured_after_it_was_adopted_has_ten_priorities(cluster: Cluster) -> None:
    app = Celery("late", set_as_current=False)
    orch = Orchestrator(app=app, store=cluster.store, modules=["tests"])
    app.conf.update(broker_url=cluster.broker, task_default_queue="orchestra")
    with orch:
        tasks = [orch.submit(bodies.echo, f"{level:02}", priority=level) for level in range(10, 0, -1)]
        wait_until(lambda: len({bytes(each["key"]) for each in cluster.messages()}) == 10, 30, "ten priorities")
        cluster.worker("--concurrency", "1")
        orch.wait_all(tasks, timeout=30)
        # What was in hand behind a body that took long, on a busy machine, goes again behind what had been sent.
        at_once = {f"echo {task.output}" for task in tasks if task.claims == 1}
    order = [note.what for note in cluster.notes("echo") if note.what in at_once]
    assert order == sorted(order)
    assert len(order) >= 5
    app.close()


def test_a_second_orchestrator_of_an_application_takes_its_tasks_over(cluster: Cluster, tmp_path: Path) -> None:
    app = Celery("twice", broker=cluster.broker, set_as_current=False)

    @app.task(name="twice.add", shared=False)
    def add(x: int) -> int:
        return x + 1

    first = Orchestrator(app=app, store=f"sqlite:///{tmp_path / 'first.db'}")
    first.close()
    with Orchestrator(app=app, store=cluster.store) as second:
        assert type(app.tasks["twice.add"]).orchestra is second.parts.adapter
        assert app.tasks["orchestra.step"].orchestra is second.parts.adapter
        names = [step.name for step in app.steps["worker"]]
        assert len(names) == len(set(names))
    app.close()


def test_an_idle_worker_costs_little(cluster: Cluster) -> None:
    import psutil

    worker = cluster.worker("--concurrency", "2")
    tree = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children()]
    time.sleep(0.5)

    def used() -> float:
        before = sum(sum(each.cpu_times()[:2]) for each in tree)
        time.sleep(2)
        return (sum(sum(each.cpu_times()[:2]) for each in tree) - before) / 2

    idle = least(used, 0.1, rounds=5)
    print(f"an idle worker uses {idle:.1%} of a CPU")
    assert idle < 0.1
