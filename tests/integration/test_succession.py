"""Slots of threads are given their next step with the record of the one before, on a real worker."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from orchestra import Orchestrator, Task, TaskStatus, Workflow, WorkflowRun
from tests import bodies
from tests.cluster import Cluster
from tests.processes import least, wait_until
from tests.servers import PrivateRedis

LINKS = 20


@pytest.fixture
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as made:
        yield made


@pytest.fixture(params=["sqlite", "redis", "postgresql"])
def cluster(request: pytest.FixtureRequest, server: PrivateRedis, tmp_path: Path) -> Iterator[Cluster]:
    stores = {
        "sqlite": lambda: None,
        "redis": lambda: server.url.removesuffix("/0") + "/1",
        "postgresql": lambda: request.getfixturevalue("postgres_store_url"),
    }
    with Cluster(tmp_path, server.url, store=stores[request.param]()) as made:
        yield made


def chain(orch: Orchestrator, links: int, first: str | None = None) -> WorkflowRun:
    """Submit a chain, of which the first step may hold until it is released."""
    names = [f"link {n}" for n in range(links)]
    tasks = [Task(name=name, agent=bodies.hold_or_not, input=first if name == names[0] else None) for name in names]
    return orch.submit_workflow(Workflow("chain", tasks, {after: [before] for before, after in pairwise(names)}))


def pushed(server: PrivateRedis) -> int:
    """Return how many messages the broker was given."""
    with server.client() as client:
        return int(client.info("commandstats").get("cmdstat_lpush", {"calls": 0})["calls"])


@pytest.mark.parametrize("without", ["", "succession"])
def test_what_a_record_hands_on_needs_no_message(server: PrivateRedis, cluster: Cluster, without: str) -> None:
    orch = cluster.orchestrator()
    cluster.worker("--pool", "threads", "-c", "2", env={"ORCHESTRA_WITHOUT": without})
    chain(orch, 1).wait(30)

    def sent() -> float:
        before = pushed(server)
        run = chain(orch, LINKS)
        run.wait(30).raise_for_status()
        assert [each.claims for each in run.tasks] == [1] * LINKS
        told = [event.type for event in orch.history(run=run.id)]
        assert (told.count("task.started"), told.count("task.completed")) == (LINKS, LINKS)
        return pushed(server) - before

    if without:
        assert sent() >= LINKS
    else:
        # On a machine that stalls, a worker that heard nothing for a second sends some again.
        assert least(sent, 4) < 4


def test_what_is_more_urgent_and_what_waits_in_another_queue_goes_first(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    cluster.worker("--pool", "threads", "-c", "1", "--queues", "orchestra,other")
    run = chain(orch, 3, "gate")
    cluster.wait_for_note("gate begins")
    late = orch.submit(bodies.noop, priority=9)
    other = orch.submit(bodies.noop, queue="other")
    urgent = orch.submit(bodies.noop, priority=1)
    cluster.release("gate")
    run.wait(30).raise_for_status()
    orch.wait_all(late, other, urgent, timeout=30)
    named = {"late": late, "other": other, "urgent": urgent, **{each.name: each for each in run.tasks}}
    order = sorted(named, key=lambda name: named[name].started_at or 0)
    assert order[:3] == ["link 0", "urgent", "other"]
    assert {each.attempts for each in named.values()} == {1}


def test_a_worker_that_is_killed_leaves_nothing_that_is_not_done_again(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    tasks = [Task(name=f"{n}", agent=bodies.nap, input=0.05) for n in range(60)]
    run = orch.submit_workflow(Workflow("wide", tasks))
    worker = cluster.worker("--pool", "threads", "-c", "4")
    wait_until(lambda: completed(orch, run) > 10, 30, "some steps to be done")
    worker.kill9()
    cluster.worker("--pool", "threads", "-c", "4")
    run.wait(60).raise_for_status()
    assert sum(each.crashes for each in run.tasks) <= 8


def completed(orch: Orchestrator, run: WorkflowRun) -> int:
    return orch.parts.store.counts(run.id).get(TaskStatus.COMPLETED, 0)
