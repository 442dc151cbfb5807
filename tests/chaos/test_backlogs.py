"""Backlogs: what waits while nobody works is not sent again and again, and what was lost is found quickly."""

import time
from typing import cast

import pytest

from orchestra import Task, TaskStatus, Workflow, WorkflowStatus
from tests import bodies
from tests.chaos.brokers import RedisBroker
from tests.chaos.crashes import each_once
from tests.cluster import Cluster
from tests.processes import wait_until

pytestmark = pytest.mark.alone

CONCURRENCY = ("--concurrency", "1")


def published(broker: RedisBroker) -> int:
    """Return how many messages Redis was ever given, those that workers put back included."""
    with broker.server.client() as client:
        stats = cast(dict[str, dict[str, int]], client.info("commandstats"))
    return sum(stats.get(f"cmdstat_{command}", {}).get("calls", 0) for command in ("lpush", "rpush"))


@pytest.mark.parametrize(
    ("steps", "pause_s"),
    [(1_000, 3), pytest.param(50_000, 120, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])],
)
def test_a_backlog_is_sent_once_while_workers_are_away_and_drained_by_four(
    on_redis: Cluster, redis_broker: RedisBroker, steps: int, pause_s: float
) -> None:
    orch = on_redis.orchestrator()
    on_redis.run(["beat", "--app", on_redis.app, "--loglevel", "warning"]).wait_for(" ready.")
    first = [on_redis.worker(*CONCURRENCY, "--loglevel", "warning", ready=False) for _ in range(4)]
    wait_until(lambda: len(orch.parts.store.leases()) == 4, 60, "four workers")
    run = orch.submit_workflow(Workflow("ready", [Task(f"t{n}", bodies.noop) for n in range(steps)]))
    some = steps // 50
    wait_until(lambda: len(orch.history(run=run.id, type="task.completed", limit=some)) == some, 60, "the first steps")
    for worker in first:
        worker.kill9()
    wait_until(lambda: orch.parts.store.leases() == [], 30, "the beat to see that all workers are dead")
    wait_until(lambda: orch.parts.store.orphans() == [], 30, "the beat to reopen what they held")
    before = published(redis_broker)
    time.sleep(pause_s)
    assert published(redis_broker) == before
    begun = time.monotonic()
    for _ in range(4):
        on_redis.worker(*CONCURRENCY, "--loglevel", "warning", ready=False)
    assert run.wait(1200).status is WorkflowStatus.COMPLETED
    seconds = time.monotonic() - begun
    sent = published(redis_broker)
    print(f"{steps} steps, drained in {seconds:.0f} s; {sent} messages, {sent / steps:.4f} of each step")
    assert sent <= 1.01 * steps + 8  # what four workers were about to do when they died is sent again


def test_many_lost_messages_are_found_in_seconds(on_redis: Cluster, redis_broker: RedisBroker) -> None:
    orch = on_redis.orchestrator()
    # Of ten priorities, since each has a window of its own.
    tasks = [Task(f"t{n}", bodies.noop, priority=1 + n % 10) for n in range(760)]
    run = orch.submit_workflow(Workflow("lost", tasks))
    lost = sum(task.status is TaskStatus.QUEUED for task in run.tasks)
    redis_broker.lose_messages()
    on_redis.worker("--concurrency", "2", "--loglevel", "warning", ready=False)
    wait_until(lambda: len(orch.parts.store.leases()) == 1, 30, "the worker")
    begun = time.monotonic()
    assert run.wait(60).status is WorkflowStatus.COMPLETED
    print(f"{lost} lost messages, all 760 steps done after {time.monotonic() - begun:.1f} s on 2 slots")
    each_once(orch, run)
