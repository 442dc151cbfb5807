"""Large graphs on two prefork workers: how long a submit takes, how large messages are, what the workers keep."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from orchestra import Task, Workflow
from tests import bodies
from tests.cluster import Cluster, Eavesdropper
from tests.servers import PrivateRedis
from tests.stores import store_url

LARGEST, SUBMIT_S = 4096, 2.0
MORE_MB = 40.0
"""What a worker and its two children may grow by, whatever the graph: caches, buffers, fragments."""


def fan_out(size: int) -> Workflow:
    parts = [Task(f"part {n}", bodies.noop) for n in range(size)]
    return Workflow("fan-out", [*parts, Task("join", bodies.size)], {"join": [each.name for each in parts]})


def layers(depth: int, width: int) -> Workflow:
    names = [[f"{layer}/{n}" for n in range(width)] for layer in range(depth)]
    after = {name: names[layer - 1] for layer in range(1, depth) for name in names[layer]}
    return Workflow("layers", [Task(name, bodies.noop) for layer in names for name in layer], after)


def resident_mb(pid: int) -> float:
    """Return what a process and its children have in memory."""
    root = psutil.Process(pid)
    return sum(each.memory_info().rss for each in [root, *root.children(recursive=True)]) / 1e6


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.alone
@pytest.mark.parametrize("kind", ["postgresql", "redis"])
def test_large_graphs_are_submitted_at_once_and_leave_nothing_in_the_workers(
    request: pytest.FixtureRequest, private_redis: Callable[..., PrivateRedis], tmp_path: Path, kind: str
) -> None:
    with Cluster(tmp_path, private_redis().url, store=store_url(kind, request)) as cluster:
        worker = cluster.worker("--concurrency", "2")
        orch = cluster.orchestrator()
        orch.submit_workflow(fan_out(1000)).wait(120).raise_for_status()  # so that everything is loaded
        before = resident_mb(worker.pid)
        for workflow in (fan_out(10_000), layers(10, 200)):
            begun = time.monotonic()
            run = orch.submit_workflow(workflow)
            submitted_s = time.monotonic() - begun
            with Eavesdropper(cluster.redis()) as heard:
                run.wait(400).raise_for_status()
            took_s, more = time.monotonic() - begun, resident_mb(worker.pid) - before
            largest = max(message.size for message in heard.sent)
            print(
                f"{kind}, {workflow.name}: submit {submitted_s:.2f} s, end {took_s:.1f} s, memory {more:+.0f} MB,"
                f" {len(heard.sent)} messages of at most {largest} bytes"
            )
            assert submitted_s <= SUBMIT_S
            assert more <= MORE_MB
            assert largest <= LARGEST
