"""Steps that kill whoever runs them: they end, and their neighbours are acquitted."""

import pytest

from orchestra import TaskStatus
from tests import bodies
from tests.chaos.crashes import Supervisor
from tests.cluster import Cluster

LONG = [pytest.mark.soak, pytest.mark.timeout(300)]
POOLS = ["prefork", pytest.param("threads", marks=LONG), pytest.param("asyncio", marks=LONG)]
"""Of a worker that dies as a whole. Where bodies share a process, every crash is one of the worker."""


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


def test_a_step_that_kills_its_child_less_often_completes(on_redis: Cluster) -> None:
    orch = on_redis.orchestrator()
    on_redis.worker("--concurrency", "1")
    task = orch.submit(bodies.kill_child, kwargs={"name": "sick", "times": 4}).wait(30)
    assert (task.status, task.output, task.crashes, task.attempts) == (TaskStatus.COMPLETED, "sick", 4, 1)


@pytest.mark.slow
@pytest.mark.parametrize("pool", POOLS)
def test_a_step_that_takes_the_whole_worker_down_fails_after_five_crashes(on_redis: Cluster, pool: str) -> None:
    orch = on_redis.orchestrator()
    innocent = [orch.submit(bodies.short, kwargs={"name": f"innocent-{n}"}) for n in range(100)]
    poison = orch.submit(bodies.kill_worker, "poison", priority=1)
    with Supervisor(on_redis, 2, "--pool", pool, "--concurrency", "2") as supervisor:
        orch.wait_all([poison, *innocent], timeout=120)
        blamed = [task.crashes for task in innocent if task.crashes]
        print(f"{pool}: {supervisor.starts} starts; crashes of innocents: {blamed}")
    assert (poison.status, poison.crashes, poison.attempts) == (TaskStatus.FAILED, 5, 0)
    assert poison.error is not None
    assert poison.error.type == "WorkerCrashed"
    assert {task.status for task in innocent} == {TaskStatus.COMPLETED}
