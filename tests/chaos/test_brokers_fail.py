"""Brokers lose messages, connections and themselves: it costs time, and no outcome."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestra import RetryPolicy, Task, TaskStatus, WorkflowStatus
from tests import bodies
from tests.chaos.brokers import Broker, RedisBroker
from tests.chaos.crashes import each_once, many_short_steps
from tests.cluster import DEAF, Cluster
from tests.processes import wait_until
from tests.servers import PrivateRabbit, PrivateRedis

HANGING_LEASE_S = 6
"""Longer than a worker stalls between two renewals."""


def through(cluster: Cluster, trouble: Callable[[], None], *, chains: int = 60, links: int = 10) -> None:
    """Let trouble happen twice during a run, and submit more after each.

    Every step is recorded once, and no worker is lost.
    """
    orch = cluster.orchestrator()
    workers = [cluster.worker("--concurrency", "2") for _ in range(2)]
    begun, more = time.monotonic(), list[Task]()
    run = orch.submit_workflow(many_short_steps(chains, links))
    for notes in (chains * links // 2, chains * links * 5 // 4):
        wait_until(lambda notes=notes: len(cluster.notes()) >= notes, 90, f"{notes} notes")
        trouble()
        last = time.monotonic()
        more.append(orch.submit(bodies.noop))
    orch.wait_all(more, timeout=60)
    assert run.wait(90).status is WorkflowStatus.COMPLETED
    print(
        f"{cluster.broker.partition(':')[0]}: {chains * links} steps in {time.monotonic() - begun:.1f} s,"
        f" {time.monotonic() - last:.1f} s of them after the last trouble"
    )
    each_once(orch, run)
    assert {task.crashes for task in run.tasks} == {0}
    assert all(worker.alive for worker in workers)


@pytest.mark.slow
def test_all_messages_are_lost_twice_during_600_steps(cluster: Cluster, broker: Broker) -> None:
    through(cluster, broker.lose_messages)


def test_all_connections_are_cut_twice_during_a_run(cluster: Cluster, broker: Broker) -> None:
    through(cluster, broker.cut_connections, chains=30)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["redis", pytest.param("rabbitmq", marks=pytest.mark.soak)])
def test_the_broker_is_killed_and_comes_back_twice(tmp_path: Path, kind: str) -> None:
    """Redis comes back empty here, RabbitMQ with its durable messages."""
    with PrivateRedis() if kind == "redis" else PrivateRabbit() as server, Cluster(tmp_path, server.url) as cluster:
        through(cluster, server.restart, chains=30)


@pytest.mark.alone
def test_a_broker_that_hangs_has_no_worker_taken_for_dead(on_redis: Cluster, redis_broker: RedisBroker) -> None:
    """It keeps its connections and answers nothing, for longer than leases last, while a worker has to publish."""
    orch = on_redis.orchestrator()
    for _ in range(2):
        on_redis.worker("--concurrency", "2", env={"ORCHESTRA_LEASE_S": f"{HANGING_LEASE_S}"})
    due = orch.submit(bodies.third_time, "due", retry=RetryPolicy(3, delay=5.0, jitter=0))
    on_redis.wait_for_note("third_time due")
    held = [orch.submit(bodies.hold, f"held {n}") for n in range(4)]
    on_redis.wait_for_note("held", 4)
    redis_broker.server.freeze()
    hangs_from = time.time()
    try:
        wait_until(lambda: due.status is TaskStatus.QUEUED, 30, "a reconciler that is about to publish")
        two_later = hangs_from + 3 * HANGING_LEASE_S
        wait_until(
            lambda: min(each.expires_at for each in orch.parts.store.leases()) > two_later, 60, "leases renewed twice"
        )
    finally:
        redis_broker.server.thaw()
    for n in range(4):
        on_redis.release(f"held {n}")
    orch.wait_all([due, *held], timeout=30)
    assert [(task.claims, task.crashes) for task in held] == [(1, 0)] * 4


def test_a_deaf_worker_reconnects_and_hears_again(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    worker = cluster.worker("--concurrency", "1", env={DEAF: "once"})
    task = orch.submit(bodies.echo, 1)
    begun = time.monotonic()
    assert task.wait(60).output == 1
    print(f"heard again after {time.monotonic() - begun:.1f} s")
    assert "hears nothing" in worker.output
    assert worker.alive


@pytest.mark.slow
def test_a_worker_that_stays_deaf_leaves_with_an_error(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    worker = cluster.worker("--concurrency", "1", env={DEAF: "always"})
    task = orch.submit(bodies.echo, 1)
    begun = time.monotonic()
    assert worker.wait(90) != 0
    print(f"left after {time.monotonic() - begun:.1f} s")
    cluster.worker("--concurrency", "1")
    assert task.wait(60).output == 1
