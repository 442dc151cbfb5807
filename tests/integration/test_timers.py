"""Timers live in the store: when a broker loses everything, and a worker dies with it, no retry and no job is lost."""

import json
import sqlite3
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestra import RetryPolicy, TaskStatus
from tests import bodies
from tests.cluster import Cluster
from tests.processes import wait_until
from tests.servers import PrivateRedis, Rabbit


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker that can be emptied."""

    url: str
    queue: str
    held: Callable[[], int]
    """How many messages it holds, delivered ones that nobody acknowledged included."""
    empty: Callable[[], object]


def redis_broker(server: PrivateRedis) -> Broker:
    def held() -> int:
        with server.client() as client:
            kinds = {key: client.type(key) for key in client.scan_iter("*")}
            lists = sum(int(client.llen(key)) for key, kind in kinds.items() if kind == b"list")  # type: ignore[arg-type]
            return lists + int(client.hlen("unacked"))  # type: ignore[arg-type]

    return Broker(server.url, "timers", held, server.flush)


def rabbit_broker(rabbit: Rabbit) -> Broker:
    queue = f"timers-{uuid.uuid4().hex[:8]}"

    def held() -> int:
        command = [*rabbit.control, "list_queues", "-p", rabbit.vhost, "name", "messages", "--formatter", "json"]
        done = subprocess.run(command, env=dict(rabbit.env) or None, capture_output=True, text=True, check=True)
        return sum(row["messages"] for row in json.loads(done.stdout) if row["name"].startswith(queue))

    def empty() -> None:
        with rabbit.channel() as channel:
            channel.queue_purge(queue)

    return Broker(rabbit.url, queue, held, empty)


@pytest.fixture(params=["redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Broker:
    if request.param == "rabbitmq":
        return rabbit_broker(request.getfixturevalue("rabbit"))
    return redis_broker(request.getfixturevalue("private_redis")())


@pytest.fixture
def cluster(tmp_path: Path, broker: Broker) -> Iterator[Cluster]:
    with Cluster(tmp_path, broker.url, queue=broker.queue) as made:
        yield made


def test_retries_and_once_jobs_survive_a_broker_that_was_emptied(cluster: Cluster, broker: Broker) -> None:
    worker = cluster.worker("--beat", "--concurrency", "1")
    with cluster.orchestrator() as orch:
        policy = RetryPolicy(2, delay=3600, jitter=0)
        retrying = orch.submit(bodies.fails_first, "x", retry=policy)
        job = orch.schedule(agent=bodies.echo, input="once", run_at=datetime.now(UTC) + timedelta(hours=1))
        wait_until(lambda: orch.status(retrying.id) is TaskStatus.RETRYING, 30, "the first failure")
        wait_until(lambda: broker.held() == 0, 30, "no message that waits for its time")
        broker.empty()
        worker.kill9()
        assert orch.status(retrying.id) is TaskStatus.RETRYING
        comes_sooner(cluster.folder / "state.db", time.time() + 0.5)
        cluster.worker("--beat", "--concurrency", "1")
        assert retrying.wait(60).output == "x"
        assert retrying.attempts == 2
        wait_until(job.runs, 30, "the firing")
        assert [run.wait(30).output for run in job.runs()] == ["once"]
        wait_until(lambda: broker.held() == 0, 30, "no message that is left")


def comes_sooner(store: Path, at: float) -> None:
    """Nobody waits for an hour, and while nothing runs the time of all timers of a store comes sooner."""
    with closing(sqlite3.connect(store, timeout=30)) as database, database:
        retries = database.execute("UPDATE steps SET due_at = ? WHERE status = 'RETRYING'", (at,))
        jobs = database.execute("UPDATE jobs SET next_run_at = ?, due_at = ?", (at, at))
        assert (retries.rowcount, jobs.rowcount) == (1, 1)


def test_a_firing_whose_message_was_lost_with_the_broker_runs(cluster: Cluster, broker: Broker) -> None:
    cluster.run(["beat"]).wait_for("ready.")
    with cluster.orchestrator() as orch:
        job = orch.schedule(agent=bodies.echo, input="x", run_at=datetime.now(UTC))
        wait_until(lambda: broker.held() == 1, 30, "the message")
        broker.empty()
        assert broker.held() == 0
        cluster.worker("--concurrency", "1")
        assert [run.wait(60).output for run in job.runs()] == ["x"]
