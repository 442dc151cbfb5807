"""Workers are killed for real: every step is recorded once, none is lost, and it takes seconds."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from orchestra import Task, TaskStatus, Workflow, WorkflowStatus
from tests import bodies
from tests.chaos.brokers import RedisBroker
from tests.chaos.crashes import Morgue, each_once, many_short_steps, report, stopped
from tests.cluster import DIES, ROOT, Cluster
from tests.forks import Program
from tests.processes import Process, wait_until
from tests.stores import store_url

LONG_LEASE = {"ORCHESTRA_LEASE_S": "60"}
"""What is noticed long before it ends was not noticed by that."""

PRODUCER = """
import threading
from orchestra import Orchestrator
from tests import bodies

orch = Orchestrator(modules=["tests"])
for _ in range(30):
    orch.submit_workflow(bodies.overlapping)
    bodies.note("submitted")
threading.Event().wait()  # who is slow to kill it shall not find more than can be done
"""


def kill_again_and_again(cluster: Cluster, what: str, times: int, chains: int, links: int) -> None:
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
    report(f"{what}: {times} workers killed", delays)
    assert delays[-1] <= 10


@pytest.mark.alone
def test_workers_are_killed_during_a_run_of_short_steps(cluster: Cluster) -> None:
    kill_again_and_again(cluster, cluster.broker.partition(":")[0], times=3, chains=25, links=8)


@pytest.mark.alone
@pytest.mark.soak
@pytest.mark.timeout(900)
def test_thirty_workers_are_killed_during_a_run_of_short_steps(cluster: Cluster) -> None:
    kill_again_and_again(cluster, cluster.broker.partition(":")[0], times=30, chains=60, links=50)


@pytest.mark.alone
@pytest.mark.parametrize("kind", ["postgresql", "redis"])
def test_workers_are_killed_over_each_store(
    redis_broker: RedisBroker, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    with Cluster(tmp_path, redis_broker.url, store=store_url(kind, request)) as cluster:
        kill_again_and_again(cluster, kind, times=3, chains=20, links=12)


@pytest.mark.alone
@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["postgresql", "redis"])
def test_thirty_workers_are_killed_over_each_store(
    redis_broker: RedisBroker, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    with Cluster(tmp_path, redis_broker.url, store=store_url(kind, request)) as cluster:
        kill_again_and_again(cluster, kind, times=30, chains=60, links=50)


def test_the_only_worker_is_killed_and_the_next_one_goes_on_at_once(on_redis: Cluster) -> None:
    orch = on_redis.orchestrator()
    worker = on_redis.worker("--concurrency", "2")
    tasks = [orch.submit(bodies.hold, f"held {n}") for n in range(4)]
    on_redis.wait_for_note("held", 2)
    worker.kill9()
    for n in range(4):
        on_redis.release(f"held {n}")
    begun = time.monotonic()
    on_redis.worker("--concurrency", "2")
    orch.wait_all(tasks, timeout=30)
    print(f"finished {time.monotonic() - begun:.2f} s after the next worker was started")
    assert sorted(task.claims for task in tasks) == [1, 1, 2, 2]
    assert sorted(task.crashes for task in tasks) == [0, 0, 1, 1]


@pytest.mark.alone
@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_worker_of_another_pool_is_killed(on_redis: Cluster, pool: str) -> None:
    orch = on_redis.orchestrator()
    worker = on_redis.worker("--pool", pool, "--concurrency", "2", env=LONG_LEASE)
    task = orch.submit(bodies.hold, "held")
    first = on_redis.wait_for_note("held begins")
    on_redis.worker("--pool", pool, "--concurrency", "2", env=LONG_LEASE)
    killed_at = time.time()
    worker.kill9()
    second = on_redis.wait_for_note("held begins", 2)
    on_redis.release("held")
    assert task.wait(30).output == second.pid != first.pid
    print(f"{pool}: claimed again after {second.time - killed_at:.2f} s")
    assert second.time - killed_at < 40  # nobody waited for its lease


@pytest.mark.alone
def test_a_killed_pool_child_is_noticed_by_its_parent_at_once(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    cluster.worker("--concurrency", "2", env=LONG_LEASE)
    delays: list[float] = []
    for at in range(6):
        task = orch.submit(bodies.hold, f"held {at}")
        first = cluster.wait_for_note(f"held {at} begins")
        killed_at = time.time()
        os.kill(first.pid, signal.SIGKILL)
        second = cluster.wait_for_note(f"held {at} begins", 2)
        cluster.release(f"held {at}")
        task.wait(30)
        assert (task.status, task.output, task.claims) == (TaskStatus.COMPLETED, second.pid, 2)
        assert (task.attempts, task.crashes) == (1, 1)
        (reopened,) = orch.history(run=task.id, type="task.retrying")
        assert "exited prematurely: signal 9" in reopened.data["error"]  # so the system said, and no look at claims
        delays.append(second.time - killed_at)
    report(f"{cluster.broker.partition(':')[0]}: pool children killed", delays)
    assert min(delays) < 1
    assert max(delays) < 40


def superseded_while(cluster: Cluster, env: dict[str, str], frozen_s: float) -> None:
    """Freeze a worker with a step until another has done it, and for so long; then let it go on."""
    orch = cluster.orchestrator()
    frozen = cluster.worker("--concurrency", "1", env=env)
    task = orch.submit(bodies.hold, "held")
    first = cluster.wait_for_note("held begins")
    cluster.worker("--concurrency", "1", env=env)
    stopped(frozen, signal.SIGSTOP)
    stopped_at = time.monotonic()
    second = cluster.wait_for_note("held begins", 2)
    cluster.release("held")
    assert task.wait(30).output == second.pid
    time.sleep(max(0.0, frozen_s - (time.monotonic() - stopped_at)))
    stopped(frozen, signal.SIGCONT)
    refused(cluster, frozen, first.pid)
    again = orch.get_task(task.id)
    assert (again.output, again.claims, again.attempts, again.crashes) == (second.pid, 2, 1, 1)
    works_again(cluster, first.pid)


def refused(cluster: Cluster, worker: Process, pid: int) -> None:
    """Assert that a body ended late in a process of a worker, and that its record was refused."""
    wait_until(lambda: [each for each in cluster.notes("held ends") if each.pid == pid], 30, "the late end")
    wait_until(lambda: "superseded" in worker.output, 30, "the late record to be refused")


def works_again(cluster: Cluster, pid: int) -> None:
    """Assert that a process takes work, as one of several does."""
    orch = cluster.orchestrator()
    tasks = [orch.submit(bodies.hold, f"after {n}") for n in range(2)]  # one for each of two
    cluster.wait_for_note("after", 2, timeout=60)
    assert pid in {each.pid for each in cluster.notes("after")}
    for n in range(2):
        cluster.release(f"after {n}")
    orch.wait_all(tasks, timeout=30)


@pytest.mark.alone
def test_a_frozen_worker_is_superseded_and_its_late_record_refused(cluster: Cluster) -> None:
    superseded_while(cluster, {"ORCHESTRA_LEASE_S": "1"}, frozen_s=0)


@pytest.mark.alone
@pytest.mark.soak
def test_a_worker_that_was_frozen_for_thirty_seconds_is_refused(cluster: Cluster) -> None:
    superseded_while(cluster, {}, frozen_s=30)


def test_a_worker_whose_lease_is_deleted_is_superseded_and_goes_on(on_redis: Cluster) -> None:
    orch = on_redis.orchestrator()
    worker = on_redis.worker("--concurrency", "1")
    task = orch.submit(bodies.hold, "held")
    first = on_redis.wait_for_note("held begins")
    on_redis.worker("--concurrency", "1")
    (lease,) = [each for each in orch.parts.store.leases() if each.pid == worker.pid]
    # The worker takes a new lease within 1.5 s, and then nothing was lost. Others have to look in between.
    wait_until(
        lambda: not orch.parts.store.release_lease(lease.incarnation) and len(on_redis.notes("held begins")) == 2,
        30,
        "another worker to find the step without a holder",
    )
    second = on_redis.wait_for_note("held begins", 2)
    on_redis.release("held")
    assert task.wait(30).output == second.pid != first.pid
    refused(on_redis, worker, first.pid)
    assert (task.claims, task.attempts, task.crashes) == (2, 1, 1)
    wait_until(lambda: lease.incarnation in {each.incarnation for each in orch.parts.store.leases()}, 30, "a new lease")
    works_again(on_redis, first.pid)


def test_a_worker_dies_between_its_commit_and_the_messages(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    for _ in range(2):
        # Where a child went on with "third" by itself, there would be no message to die before.
        cluster.worker("--concurrency", "1", env={DIES: "third", "ORCHESTRA_WITHOUT": "continuation"})
    tasks = [Task(name, bodies.echo, 1) for name in ("first", "second", "third", "fourth")]
    run = orch.submit_workflow(
        Workflow("chain", tasks, {"second": ["first"], "third": ["second"], "fourth": ["third"]})
    )
    cluster.wait_for_note("died")
    begun = time.monotonic()
    assert run.wait(30).status is WorkflowStatus.COMPLETED
    print(f"went on {time.monotonic() - begun:.2f} s after the worker died before it published")
    assert [(task.claims, task.attempts, task.crashes) for task in run.tasks] == [(1, 1, 0)] * 4


def test_a_producer_is_killed_while_it_submits(on_redis: Cluster) -> None:
    on_redis.worker("--concurrency", "2")
    program = on_redis.folder / "producer.py"
    program.write_text(PRODUCER)
    env = {**on_redis.env, "PYTHONPATH": str(ROOT)}
    seen = 0
    for number in range(3):
        producer = Program([sys.executable, program], log=on_redis.folder / f"p{number}.log", cwd=ROOT, env=env).start()
        on_redis.wait_for_note("submitted", seen + 5)
        producer.kill9()
        seen = len(on_redis.notes("submitted"))
    orch = on_redis.orchestrator()
    runs = orch.runs(limit=10_000)
    assert len(runs) >= 15
    orch.wait_all(runs, timeout=60)
    for run in runs:
        each_once(orch, run)


def test_beats_look_after_what_dead_workers_held(on_redis: Cluster) -> None:
    orch = on_redis.orchestrator()
    worker = on_redis.worker("--concurrency", "1")
    task = orch.submit(bodies.hold, "held")
    on_redis.wait_for_note("held begins")
    on_redis.run(["beat", "--app", on_redis.app]).wait_for(" ready.")
    worker.kill9()
    wait_until(lambda: orch.get_task(task.id).status is TaskStatus.QUEUED, 30, "the beat to reopen the step")
    wait_until(lambda: orch.parts.store.leases() == [], 30, "the beat to take its lease away")
