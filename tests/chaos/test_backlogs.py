"""Backlogs: what waits while nobody works is not sent again and again, and what was lost is found quickly."""

import time
from itertools import count
from pathlib import Path
from typing import cast

import pytest

from orchestra import Task, TaskStatus, Workflow, WorkflowStatus
from orchestra.runtime.hand import NOT_BEGUN
from tests import bodies
from tests.chaos.brokers import RedisBroker
from tests.chaos.crashes import each_once
from tests.cluster import Cluster
from tests.processes import least, wait_until
from tests.stores import store_url

CONCURRENCY = ("--concurrency", "1")


def published(broker: RedisBroker) -> int:
    """Return how many messages Redis was ever given, those that workers put back included."""
    with broker.server.client() as client:
        stats = cast(dict[str, dict[str, int]], client.info("commandstats"))
    return sum(stats.get(f"cmdstat_{command}", {}).get("calls", 0) for command in ("lpush", "rpush"))


@pytest.mark.parametrize(
    ("store", "steps", "pause_s"),
    [("sqlite", 1_000, 3), pytest.param("redis", 50_000, 120, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])],
)
@pytest.mark.alone
def test_a_backlog_is_sent_once_while_workers_are_away_and_drained_by_four(
    redis_broker: RedisBroker, tmp_path: Path, request: pytest.FixtureRequest, store: str, steps: int, pause_s: float
) -> None:
    rounds = count()

    def sent() -> float:
        folder = tmp_path / f"{next(rounds)}"
        folder.mkdir()
        where = f"sqlite:///{folder / 'state.db'}" if store == "sqlite" else store_url(store, request)
        redis_broker.lose_messages()
        with Cluster(folder, redis_broker.url, store=where) as cluster:
            return drained(cluster, redis_broker, steps, pause_s)

    # What four workers were about to do when they died is sent again; and by one that stalls some of what it misses.
    enough = 1.01 * steps + 8
    assert least(sent, enough + 1, rounds=3) <= enough


def settled(broker: RedisBroker) -> int | None:
    """Return how many messages have been published, once there are no more for a while: they come after the commit."""
    before = published(broker)
    time.sleep(3)  # longer than a beat stalls
    return before if published(broker) == before else None


def drained(cluster: Cluster, broker: RedisBroker, steps: int, pause_s: float) -> int:
    """Let four workers die on a backlog and four others drain it later, and return how many messages that took."""
    already = published(broker)
    orch = cluster.orchestrator()
    cluster.run(["beat", "--app", cluster.app, "--loglevel", "warning"]).wait_for(" ready.")
    first = [cluster.worker(*CONCURRENCY, "--loglevel", "warning", ready=False) for _ in range(4)]
    wait_until(lambda: len(orch.parts.store.leases()) == 4, 60, "four workers")
    run = orch.submit_workflow(Workflow("ready", [Task(f"t{n}", bodies.noop) for n in range(steps)]))
    some = steps // 50
    wait_until(lambda: len(orch.history(run=run.id, type="task.completed", limit=some)) == some, 60, "the first steps")
    for worker in first:
        worker.kill9()
    wait_until(lambda: orch.parts.store.leases() == [], 60, "the beat to see that all workers are dead")
    wait_until(lambda: orch.parts.store.orphans() == [], 60, "the beat to reopen what they held")
    before = wait_until(lambda: settled(broker), 60, "the beat to have published what it reopened")
    time.sleep(pause_s)
    assert published(broker) == before
    begun = time.monotonic()
    for _ in range(4):
        cluster.worker(*CONCURRENCY, "--loglevel", "warning", ready=False)
    assert run.wait(1200).status is WorkflowStatus.COMPLETED
    seconds = time.monotonic() - begun
    told = orch.history(run=run.id, type="task.retrying", limit=100_000)
    given_back = sum(event.data["error"] == NOT_BEGUN for event in told)  # by children of a machine that stalls
    sent = published(broker) - already - given_back
    print(f"{steps} steps, drained in {seconds:.0f} s; {sent} messages, {sent / steps:.4f} of each step")
    return sent


def test_many_lost_messages_are_found_in_seconds(on_redis: Cluster, redis_broker: RedisBroker) -> None:
    orch = on_redis.orchestrator()
    # Of ten priorities, since each has a window of its own.
    tasks = [Task(f"t{n}", bodies.noop, priority=1 + n % 10) for n in range(760)]
    run = orch.submit_workflow(Workflow("lost", tasks))
    lost = sum(task.status is TaskStatus.QUEUED for task in run.tasks)
    redis_broker.lose_messages()
    on_redis.worker("--concurrency", "2", "--loglevel", "warning", ready=False)
    wait_until(lambda: len(orch.parts.store.leases()) == 1, 60, "the worker")
    begun = time.monotonic()
    assert run.wait(60).status is WorkflowStatus.COMPLETED
    print(f"{lost} lost messages, all 760 steps done after {time.monotonic() - begun:.1f} s on 2 slots")
    each_once(orch, run)
