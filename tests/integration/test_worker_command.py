"""`orchestra worker`: what it serves, how it stops, and what it says when it cannot start."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from orchestra import TaskStatus
from orchestra.store.contract import Lease
from tests import bodies
from tests.cluster import Cluster
from tests.commands import orchestra
from tests.servers import PrivateRedis, free_port


@pytest.fixture
def cluster(private_redis: Callable[..., PrivateRedis], tmp_path: Path) -> Iterator[Cluster]:
    """A Redis and a store without workers."""
    with Cluster(tmp_path, private_redis().url) as made:
        yield made


def leases(cluster: Cluster) -> list[Lease]:
    """Return the leases in the store."""
    return cluster.orchestrator().parts.store.leases()


# Stopping


@pytest.mark.parametrize(
    ("pool", "number"),
    [
        ("prefork", signal.SIGTERM),
        ("prefork", signal.SIGINT),
        ("threads", signal.SIGTERM),
        ("solo", signal.SIGTERM),
    ],
)
def test_a_worker_told_to_stop_finishes_what_runs_and_gives_its_lease_back_after_that(
    cluster: Cluster, pool: str, number: int
) -> None:
    orch = cluster.orchestrator()
    worker = cluster.worker("--pool", pool, "--concurrency", "1")
    running = orch.submit(bodies.hold, "held")
    cluster.wait_for_note("held begins")
    # Somebody is there who would take the step over, were its worker gone.
    other = cluster.worker("--pool", pool)
    os.kill(worker.pid, number)
    queued = orch.submit(bodies.process_id)
    assert queued.wait(30).output in {each.pid for each in psutil.Process(other.pid).children()} | {other.pid}
    time.sleep(1.5)  # long enough for two looks at who is dead
    assert (running.status, running.claims) == (TaskStatus.RUNNING, 1)
    cluster.release("held")
    assert worker.wait(30) == 0, worker.tail()
    running.wait(30)
    assert (running.status, running.attempts, running.claims, running.crashes) == (TaskStatus.COMPLETED, 1, 1, 0)
    assert cluster.noted("held") == {"held begins": 1, "held ends": 1}
    assert [lease.pid for lease in leases(cluster)] == [other.pid]
    (offline,) = orch.history(type="worker.offline")
    assert offline.data.get("reason") is None
    assert offline.worker == str(running.worker).partition("/")[0]


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_an_idle_worker_stops_soon(cluster: Cluster, pool: str) -> None:
    worker = cluster.worker("--pool", pool, "--concurrency", "2")
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait(30) == 0
    assert leases(cluster) == []


def test_a_worker_that_stops_sends_no_more_work_again(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    worker = cluster.worker("--concurrency", "2", "--loglevel", "debug")
    running = orch.submit(bodies.hold, "held")
    cluster.wait_for_note("held begins")
    os.kill(worker.pid, signal.SIGTERM)
    worker.wait_for("Stopping Pool...")  # what Redis gives it from now on goes back
    waiting = orch.submit(bodies.noop)
    time.sleep(2.5)  # an idle worker that takes work would have concluded twice that the message was lost
    cluster.release("held")
    worker.wait(60)
    assert running.wait(30).status is TaskStatus.COMPLETED
    assert len(cluster.messages()) == 1, "an idle slot of a worker that takes nothing hears nothing, and that is right"
    assert waiting.status is TaskStatus.QUEUED


# What it serves


def test_a_worker_serves_the_queues_it_is_told_and_no_others(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    cluster.worker("--queues", "left, right", "--name", "lr@here", "--concurrency", "3")
    left, right = orch.submit(bodies.noop, queue="left"), orch.submit(bodies.noop, queue="right")
    own = orch.submit(bodies.noop)
    orch.wait_all([left, right], timeout=30)
    assert own.status is TaskStatus.QUEUED
    (lease,) = leases(cluster)
    assert (lease.worker, sorted(lease.queues), lease.slots) == ("lr@here", ["left", "right"], 3)
    online = orch.history(type="worker.online")
    assert [(event.worker, event.data["slots"]) for event in online] == [("lr@here", 3)]


def test_a_worker_without_an_app_is_made_from_the_environment(cluster: Cluster) -> None:
    process = cluster.run(["worker", "--concurrency", "1"], ready=True, env={"ORCHESTRA_MODULES": "tests"})
    assert cluster.orchestrator().submit(bodies.echo, "from the environment").wait(30).output == "from the environment"
    assert process.alive


def test_a_solo_worker_has_one_slot_whatever_it_is_told(cluster: Cluster) -> None:
    cluster.worker("--pool", "solo", "--concurrency", "8")
    (lease,) = leases(cluster)
    assert lease.slots == 1


def test_a_role_says_what_a_worker_serves_and_options_come_before_it(cluster: Cluster) -> None:
    cluster.worker("--role", "agents", "--concurrency", "7")
    (lease,) = leases(cluster)
    assert (list(lease.queues), lease.slots) == (["agents"], 7)
    task = cluster.orchestrator().submit(bodies.nap_async, 0.01, queue="agents")
    assert task.wait(30).output == 0.01


# Starting


def test_a_worker_waits_for_its_broker(cluster: Cluster, private_redis: Callable[..., PrivateRedis]) -> None:
    server = private_redis()
    server.kill()
    cluster.broker = server.url
    worker = cluster.worker("--concurrency", "1", ready=False)
    worker.wait_for("Cannot connect to")
    server.restart()
    worker.wait_for(" ready.")
    assert cluster.orchestrator().submit(bodies.echo, "at last").wait(30).output == "at last"


def fails(cluster: Cluster, *options: str, **env: str | None) -> str:
    """Run a worker that must fail at once; return its last line."""
    variables = {**os.environ, **cluster.env, "NO_COLOR": "1", "COLUMNS": "200", **env}
    env = {name: value for name, value in variables.items() if value is not None}
    ended = orchestra("worker", *options, env=env)
    assert ended.returncode == 2, ended
    assert "Traceback" not in ended.stderr, ended.stderr
    return " ".join(line.strip(" │╭╰─╮╯") for line in ended.stderr.splitlines())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("tests.worker_app", "expected module:attribute, such as project.flows:orch"),
        ("tests.worker_app:nothing", "module 'tests.worker_app' has no 'nothing'"),
        ("tests.no_such_module:orch", "No module named 'tests.no_such_module'; the current folder is"),
        ("tests.bodies:noop", "is a function, not an Orchestrator"),
        (":orch", "expected module:attribute"),
        ("tests.worker_app:", "expected module:attribute"),
    ],
)
def test_a_wrong_app_is_explained_in_one_line(cluster: Cluster, target: str, message: str) -> None:
    said = fails(cluster, "--app", target)
    assert said.startswith("Error: --app")
    assert message in said


def test_an_embedded_orchestrator_has_no_worker_processes(cluster: Cluster) -> None:
    said = fails(cluster, "--app", cluster.app, ORCHESTRA_BROKER=None, ORCHESTRA_STORE=None)
    assert "this orchestrator is embedded" in said
    assert "ORCHESTRA_BROKER" in said


def test_a_store_that_cannot_be_opened_is_explained_in_one_line(cluster: Cluster) -> None:
    said = fails(cluster, "--app", cluster.app, ORCHESTRA_STORE="sqlite:////no/such/folder/state.db")
    assert "Error: no store at sqlite:////no/such/folder/state.db" in said


def test_a_broker_of_an_unknown_kind_is_explained_in_one_line(cluster: Cluster) -> None:
    said = fails(cluster, "--app", cluster.app, ORCHESTRA_BROKER=f"http://127.0.0.1:{free_port()}")
    assert "expected redis://… or amqp://…" in said


@pytest.mark.parametrize(
    "options", [["--concurrency", "0"], ["--pool", "gevent"], ["--loglevel", "loud"], ["--grace", "soon"]]
)
def test_options_are_checked_before_anything_starts(cluster: Cluster, options: list[str]) -> None:
    assert options[0] in fails(cluster, "--app", cluster.app, *options)
