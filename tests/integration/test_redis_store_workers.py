"""Orchestrators over the Redis store: embedded, and with worker processes over a Redis broker."""

import contextlib
from pathlib import Path

import pytest

from orchestra import Orchestrator, Task, TaskStatus, Workflow, WorkflowStatus
from orchestra.model.event import Event
from tests import bodies
from tests.cluster import Cluster
from tests.processes import wait_until
from tests.servers import PrivateRedis


def test_an_embedded_orchestrator_keeps_its_state_in_redis(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(bodies.TRACE, str(tmp_path / "trace.tsv"))
    with Orchestrator(store=f"{redis_url}?prefix=embedded") as orch:
        run = orch.submit_workflow(bodies.overlapping).wait(30)
        assert run.status is WorkflowStatus.COMPLETED, run.error
        assert run.output == {"D": "D(A(),B())", "F": "F(E(C(A())))", "G": "G(A(),B(),E(C(A())))"}
        assert orch.submit_workflow(bodies.squares, 30).wait(30).output == sum(n * n for n in range(30))
        done = orch.submit(bodies.stubborn, "embedded").wait(30)
        assert (done.status, done.attempts) == (TaskStatus.COMPLETED, 3)


def test_worker_processes_share_a_redis_store(tmp_path: Path) -> None:
    with PrivateRedis(appendonly=True) as server, contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Cluster(tmp_path, server.url))
        cluster.store = server.url.replace("/0", "/1")
        for _ in range(2):
            cluster.worker("--pool", "prefork", "--concurrency", "2")
        orch = cluster.orchestrator()
        run = orch.submit_workflow(bodies.overlapping).wait(30)
        assert run.status is WorkflowStatus.COMPLETED, run.error
        assert run.output == {"D": "D(A(),B())", "F": "F(E(C(A())))", "G": "G(A(),B(),E(C(A())))"}
        assert orch.submit_workflow(bodies.squares, 30).wait(30).output == sum(n * n for n in range(30))
        value = "policy-redis"
        done = orch.submit(bodies.stubborn, value).wait(30)
        assert (done.status, done.output, done.attempts) == (TaskStatus.COMPLETED, value, 3)
        first, second = Task("first", bodies.boom, "on purpose"), Task("second", bodies.echo)
        failed = orch.submit_workflow(Workflow("failing", [first, second], {"second": ["first"]})).wait(30)
        assert failed.status is WorkflowStatus.FAILED
        assert second.status is TaskStatus.SKIPPED


def test_a_killed_pool_process_costs_one_crash(tmp_path: Path) -> None:
    with PrivateRedis(appendonly=True) as server, contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Cluster(tmp_path, server.url))
        cluster.store = server.url.replace("/0", "/1")
        cluster.worker("--pool", "prefork", "--concurrency", "2")
        orch = cluster.orchestrator()
        crashes: list[Event] = []

        @orch.on("worker.process_crashed")
        def hear(event: Event) -> None:  # pyright: ignore[reportUnusedFunction]
            crashes.append(event)

        done = orch.submit(bodies.kill_child, kwargs={"name": "redis", "times": 1}).wait(30)
        assert (done.status, done.crashes) == (TaskStatus.COMPLETED, 1)
        wait_until(lambda: crashes, 30, "the report")
        (event,) = crashes
        assert event.data["step_id"] == f"{done.id}.0"
        assert "SIGKILL" in str(event.data["error"])
