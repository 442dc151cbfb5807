"""Real processes on Redis, killed for real: every step is recorded once, none is lost, and it takes seconds."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestra import Task, TaskStatus, Workflow, WorkflowStatus
from tests import bodies
from tests.chaos.crashes import Morgue, Supervisor, each_once, many_short_steps, report, stopped
from tests.cluster import DIES, ROOT, Cluster
from tests.processes import Process, wait_until
from tests.servers import PrivateRedis

pytestmark = pytest.mark.alone

PRODUCER = """
from orchestra import Orchestrator
from tests import bodies

orch = Orchestrator(modules=["tests"])
while True:
    orch.submit_workflow(bodies.overlapping)
    bodies.note("submitted")
"""


@pytest.fixture
def server(private_redis: Callable[..., PrivateRedis]) -> PrivateRedis:
    return private_redis()


@pytest.fixture
def cluster(server: PrivateRedis, tmp_path: Path) -> Iterator[Cluster]:
    """A Redis and a store without workers."""
    with Cluster(tmp_path, server.url) as made:
        yield made


# Workers


def kill_again_and_again(cluster: Cluster, times: int, chains: int, links: int) -> None:
    orch = cluster.orchestrator()
    workers = [cluster.worker("--concurrency", "2") for _ in range(2)]
    morgue = Morgue(cluster, orch)
    run = orch.submit_workflow(many_short_steps(chains, links))
    for at in range(times):
        steps = at * 2 * chains * links // (times + 1)
        wait_until(lambda steps=steps: len(cluster.notes()) >= steps, 120, f"{steps} notes")
        morgue.kill(workers[at % 2])
        workers[at % 2] = cluster.worker("--concurrency", "2")  # returns when it is ready
    run.wait(120)
    assert run.status is WorkflowStatus.COMPLETED, run.error
    each_once(orch, run)
    delays = morgue.delays()
    report(f"{times} workers killed", delays)
    assert delays[-1] <= 10


def test_workers_are_killed_during_a_run_of_short_steps(cluster: Cluster) -> None:
    kill_again_and_again(cluster, times=3, chains=25, links=8)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_thirty_workers_are_killed_during_a_run_of_short_steps(cluster: Cluster) -> None:
    kill_again_and_again(cluster, times=30, chains=60, links=50)


def test_the_only_worker_is_killed_and_the_next_one_goes_on_at_once(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    worker = cluster.worker("--concurrency", "2")
    tasks = [orch.submit(bodies.hold, f"held {n}") for n in range(4)]
    cluster.wait_for_note("held", 2)
    worker.kill9()
    for n in range(4):
        cluster.release(f"held {n}")
    begun = time.monotonic()
    cluster.worker("--concurrency", "2")
    orch.wait_all(tasks, timeout=20)
    print(f"finished {time.monotonic() - begun:.2f} s after the next worker was started")
    assert sorted(task.claims for task in tasks) == [1, 1, 2, 2]
    assert sorted(task.crashes for task in tasks) == [0, 0, 1, 1]


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_worker_of_another_pool_is_killed(cluster: Cluster, pool: str) -> None:
    orch = cluster.orchestrator()
    worker = cluster.worker("--pool", pool, "--concurrency", "2")
    task = orch.submit(bodies.hold, "held")
    first = cluster.wait_for_note("held begins")
    cluster.worker("--pool", pool, "--concurrency", "2")
    killed_at = time.time()
    worker.kill9()
    second = cluster.wait_for_note("held begins", 2)
    cluster.release("held")
    assert task.wait(10).output == second.pid != first.pid
    print(f"{pool}: claimed again after {second.time - killed_at:.2f} s")
    assert second.time - killed_at < 5


def test_a_killed_pool_child_is_noticed_within_a_second(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    cluster.worker("--concurrency", "2")
    delays: list[float] = []
    for at in range(6):
        task = orch.submit(bodies.hold, f"held {at}")
        first = cluster.wait_for_note(f"held {at} begins")
        killed_at = time.time()
        os.kill(first.pid, signal.SIGKILL)
        second = cluster.wait_for_note(f"held {at} begins", 2)
        cluster.release(f"held {at}")
        task.wait(10)
        assert (task.status, task.output, task.claims) == (TaskStatus.COMPLETED, second.pid, 2)
        assert (task.attempts, task.crashes) == (1, 1)
        delays.append(second.time - killed_at)
    report("pool children killed", delays)
    assert max(delays) < 1


def test_a_frozen_worker_is_superseded_and_its_late_record_refused(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    lease = {"ORCHESTRA_LEASE_S": "1"}
    frozen = cluster.worker("--concurrency", "1", env=lease)
    task = orch.submit(bodies.hold, "held")
    first = cluster.wait_for_note("held begins")
    cluster.worker("--concurrency", "1", env=lease)
    stopped(frozen, signal.SIGSTOP)
    second = cluster.wait_for_note("held begins", 2)
    cluster.release("held")
    assert task.wait(10).output == second.pid
    stopped(frozen, signal.SIGCONT)
    wait_until(
        lambda: len([each for each in cluster.notes("held ends") if each.pid == first.pid]) == 1, 10, "the late end"
    )
    wait_until(lambda: "superseded" in frozen.output, 10, "the late record to be refused")
    again = orch.get_task(task.id)
    assert (again.output, again.claims, again.attempts, again.crashes) == (second.pid, 2, 1, 1)
    # It is a worker like any other again.
    tasks = [orch.submit(bodies.nap_of, kwargs={"name": f"after {n}", "seconds": 0.2}) for n in range(6)]
    orch.wait_all(tasks, timeout=10)
    assert first.pid in {each.pid for each in cluster.notes("after")}


def test_a_worker_dies_between_its_commit_and_the_messages(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    for _ in range(2):
        cluster.worker("--concurrency", "1", env={DIES: "third"})
    tasks = [Task(name, bodies.echo, 1) for name in ("first", "second", "third", "fourth")]
    run = orch.submit_workflow(
        Workflow("chain", tasks, {"second": ["first"], "third": ["second"], "fourth": ["third"]})
    )
    cluster.wait_for_note("died")
    begun = time.monotonic()
    assert run.wait(20).status is WorkflowStatus.COMPLETED
    print(f"went on {time.monotonic() - begun:.2f} s after the worker died before it published")
    assert [(task.claims, task.attempts, task.crashes) for task in run.tasks] == [(1, 1, 0)] * 4


def test_a_producer_is_killed_while_it_submits(cluster: Cluster) -> None:
    cluster.worker("--concurrency", "2")
    program = cluster.folder / "producer.py"
    program.write_text(PRODUCER)
    env = {**cluster.env, "PYTHONPATH": str(ROOT)}
    for number in range(3):
        producer = Process([sys.executable, program], log=cluster.folder / f"p{number}.log", cwd=ROOT, env=env).start()
        cluster.wait_for_note("submitted", 5 * (number + 1))
        producer.kill9()
    orch = cluster.orchestrator()
    runs = orch.runs(limit=10_000)
    assert len(runs) >= 15
    orch.wait_all(runs, timeout=60)
    for run in runs:
        each_once(orch, run)


# Poison


def test_a_step_that_kills_its_pool_child_fails_after_five_crashes_and_its_neighbours_do_not(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    worker = cluster.worker("--concurrency", "2")
    poison = orch.submit(bodies.kill_child, kwargs={"name": "poison", "times": 100})
    innocent = [orch.submit(bodies.short, kwargs={"name": f"innocent-{n}"}) for n in range(100)]
    orch.wait_all([poison, *innocent], timeout=60)
    assert (poison.status, poison.crashes, poison.attempts) == (TaskStatus.FAILED, 5, 0)
    assert poison.error is not None
    assert poison.error.type == "WorkerCrashed"
    assert cluster.noted("poison")["poison kills"] == 5
    assert {task.status for task in innocent} == {TaskStatus.COMPLETED}
    assert {task.crashes for task in innocent} == {0}
    assert worker.alive


def test_a_step_that_kills_its_child_less_often_completes(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    cluster.worker("--concurrency", "1")
    task = orch.submit(bodies.kill_child, kwargs={"name": "sick", "times": 4}).wait(30)
    assert (task.status, task.output, task.crashes, task.attempts) == (TaskStatus.COMPLETED, "sick", 4, 1)


@pytest.mark.parametrize("pool", ["prefork", pytest.param("threads", marks=pytest.mark.soak)])
def test_a_step_that_takes_the_whole_worker_down_fails_after_five_crashes(cluster: Cluster, pool: str) -> None:
    orch = cluster.orchestrator()
    innocent = [orch.submit(bodies.short, kwargs={"name": f"innocent-{n}"}) for n in range(40)]
    poison = orch.submit(bodies.kill_worker, "poison", priority=1)
    with Supervisor(cluster, 2, "--pool", pool, "--concurrency", "2") as supervisor:
        orch.wait_all([poison, *innocent], timeout=90)
        blamed = [task.crashes for task in innocent if task.crashes]
        print(f"{pool}: {supervisor.starts} starts; crashes of innocents: {blamed}")
    assert (poison.status, poison.crashes, poison.attempts) == (TaskStatus.FAILED, 5, 0)
    assert poison.error is not None
    assert poison.error.type == "WorkerCrashed"
    assert {task.status for task in innocent} == {TaskStatus.COMPLETED}


# The broker


def test_the_broker_is_flushed_in_the_middle(cluster: Cluster, server: PrivateRedis) -> None:
    orch = cluster.orchestrator()
    workers = [cluster.worker("--concurrency", "2") for _ in range(2)]
    run = orch.submit_workflow(many_short_steps(15, 10))
    for notes in (60, 200):
        wait_until(lambda notes=notes: len(cluster.notes()) >= notes, 60, f"{notes} notes")
        server.flush()
    assert run.wait(60).status is WorkflowStatus.COMPLETED
    each_once(orch, run)
    assert {task.crashes for task in run.tasks} == {0}
    assert all(worker.alive for worker in workers)


def test_the_broker_is_killed_and_comes_back_empty(cluster: Cluster, server: PrivateRedis) -> None:
    orch = cluster.orchestrator()
    workers = [cluster.worker("--concurrency", "2") for _ in range(2)]
    run = orch.submit_workflow(many_short_steps(15, 10))
    wait_until(lambda: len(cluster.notes()) >= 100, 60, "100 notes")
    server.kill()
    time.sleep(0.5)
    server.restart()
    back_at = time.monotonic()
    assert run.wait(60).status is WorkflowStatus.COMPLETED
    print(f"finished {time.monotonic() - back_at:.1f} s after the broker was back")
    each_once(orch, run)
    assert {task.crashes for task in run.tasks} == {0}
    assert all(worker.alive for worker in workers)
