"""Cancel of what runs in worker processes, and retries whose time is far away."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from orchestra import Orchestrator, RetryPolicy, Task, TaskStatus
from tests import bodies
from tests.cluster import Cluster
from tests.processes import lives, wait_until
from tests.servers import PrivateRedis


@pytest.fixture(scope="module", params=["prefork", "threads", "asyncio"])
def pool(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def cluster(pool: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with PrivateRedis() as server, Cluster(tmp_path_factory.mktemp(pool), server.url) as made:
        made.worker("--pool", pool, "--concurrency", "2")
        yield made


@pytest.fixture(scope="module")
def orch(cluster: Cluster) -> Orchestrator:
    return cluster.orchestrator()


def noted(cluster: Cluster, what: str) -> float | None:
    return next((each.time for each in cluster.notes() if each.what == what), None)


def stopped_after(orch: Orchestrator, cluster: Cluster, task: Task, name: str) -> float:
    """Cancel a running task, and return how many seconds its body went on."""
    wait_until(lambda: noted(cluster, f"{name} begins") is not None and task.status is TaskStatus.RUNNING)
    at = time.time()
    assert orch.cancel(task.id)
    assert task.wait(30).status is TaskStatus.CANCELLED
    wait_until(lambda: noted(cluster, f"{name} ends") is not None)
    return (noted(cluster, f"{name} ends") or 0.0) - at


@pytest.mark.parametrize("body", [bodies.attentive, bodies.coroutine])
def test_a_body_that_looks_ends_soon_after_a_cancel(
    orch: Orchestrator, cluster: Cluster, pool: str, body: object
) -> None:
    name = f"{body.__name__} {pool}"  # type: ignore[attr-defined]
    took = stopped_after(orch, cluster, orch.submit(body, kwargs={"name": name, "seconds": 300.0}), name)
    print(f"{name}: stopped after {took:.2f} s")


def test_a_body_that_looks_at_nothing_is_killed_where_the_pool_can(
    orch: Orchestrator, cluster: Cluster, pool: str
) -> None:
    if pool != "prefork":
        pytest.skip("threads cannot be stopped by force: docs/guide.md says so")
    children: list[int] = []
    name = "stubborn"
    sent = orch.submit(bodies.deaf_to_all, kwargs={"name": name, "seconds": 300.0}, retry=5)
    wait_until(lambda: noted(cluster, f"{name} begins") is not None)
    children += [each.pid for each in cluster.notes() if each.what == f"{name} begins"]
    at = time.time()
    orch.cancel(sent.id)
    wait_until(lambda: not lives(children[0]))
    print(f"{name} {pool}: stopped after {time.time() - at:.2f} s")
    assert sent.wait(30).status is TaskStatus.CANCELLED
    # It runs again on the same worker, although that has revoked it.
    assert orch.retry(sent.id)
    wait_until(lambda: sum(each.what == f"{name} begins" for each in cluster.notes()) == 2)
    orch.cancel(sent.id)
    assert orch.submit(bodies.echo, 1).wait(30).output == 1


def test_a_coroutine_that_takes_no_notice_is_left_behind_on_the_asyncio_pool(
    orch: Orchestrator, cluster: Cluster, pool: str
) -> None:
    if pool != "asyncio":
        pytest.skip("elsewhere a coroutine has its thread or its process: docs/guide.md says so")
    held = [orch.submit(bodies.stubborn_coroutine, kwargs={"name": f"deaf {n}"}) for n in range(2)]
    for n, each in enumerate(held):
        wait_until(
            lambda n=n, each=each: bool(noted(cluster, f"deaf {n} begins")) and each.status is TaskStatus.RUNNING
        )
    at = time.time()
    for each in held:
        orch.cancel(each.id)
    # Both slots are free again.
    tasks = [orch.submit(bodies.echo, n) for n in range(2)]
    assert [each.output for each in orch.wait_all(tasks, timeout=30)] == [0, 1]
    print(f"left behind after {time.time() - at:.2f} s")


def test_a_retry_in_an_hour_costs_no_message_and_no_slot_and_survives_a_flush(tmp_path: Path) -> None:
    with PrivateRedis() as server, Cluster(tmp_path, server.url) as cluster:
        cluster.worker("--pool", "prefork", "--concurrency", "1")
        orch = cluster.orchestrator()
        sent = orch.submit(bodies.fails_first, "x", retry=RetryPolicy(2, delay=3600, jitter=0))
        wait_until(lambda: sent.status is TaskStatus.RETRYING, timeout=30)
        assert orch.submit(bodies.echo, 1).wait(30).output == 1
        with closing(redis.Redis.from_url(server.url)) as broker:
            # What has been acknowledged, or came twice, is gone a moment after the record.
            wait_until(lambda: not any(left_in(broker).values()), 30, "a broker that holds nothing")
            broker.flushall()
        with closing(sqlite3.connect(tmp_path / "state.db", timeout=30)) as database:
            (due_at,) = database.execute("SELECT due_at FROM steps WHERE status = 'RETRYING'").fetchone()
            assert 3500 < due_at - time.time() <= 3600
            database.execute("UPDATE steps SET due_at = ? WHERE status = 'RETRYING'", (time.time(),))
            database.commit()
        assert sent.wait(30).output == "x"
        assert sent.attempts == 2


def left_in(broker: redis.Redis) -> dict[bytes, Any]:
    """Return how much is in each collection of a broker, but for what says which queues there are."""
    count = {b"list": "LLEN", b"zset": "ZCARD", b"hash": "HLEN"}
    sizes = {key: count.get(broker.type(key)) for key in broker.scan_iter() if not key.startswith(b"_kombu")}
    return {key: broker.execute_command(how, key) for key, how in sizes.items() if how is not None}
