"""`orch.compile`: a plan as Celery's canvas. What is series-parallel runs on stock workers with stock results."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery.canvas import _chain, _chord, group

from orchestra import Orchestrator, Task, Workflow
from tests import bodies, canvases
from tests.cluster import RESULTS, Cluster
from tests.servers import PrivateRedis


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with PrivateRedis() as server, Cluster(tmp_path_factory.mktemp("canvas"), server.url) as made:
        yield made


@pytest.fixture(scope="module")
def orch(cluster: Cluster) -> Orchestrator:
    return cluster.orchestrator()


@pytest.fixture(scope="module")
def results(cluster: Cluster) -> dict[str, Any]:
    """What stock Celery gave: a worker started by its own command, results kept in Redis."""
    env = {RESULTS: f"{cluster.broker.removesuffix('/0')}/1"}
    options = ["-A", "tests.worker_app", "worker", "-Q", "orchestra", "-c", "2", "-l", "INFO"]
    cluster.run(options, ready=True, module="celery", env=env)
    program = cluster.run(["run"], module="tests.canvases", env=env)
    assert program.wait(60) == 0, program.tail()
    return json.loads(program.output.splitlines()[-1])


@pytest.mark.parametrize("name", list(canvases.WORKFLOWS))
def test_a_series_parallel_workflow_gives_the_same_output_on_stock_celery(
    results: dict[str, Any], name: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(bodies.TRACE, str(cluster.trace))
    with Orchestrator() as embedded:
        expected = embedded.submit_workflow(canvases.WORKFLOWS[name]()).wait(30).raise_for_status().output
    # Several last steps: Celery gives a list, we give them by name.
    assert results[name] == (list(expected.values()) if name == "forks" and isinstance(expected, dict) else expected)


def test_compiled_signatures_are_celerys_own(orch: Orchestrator) -> None:
    assert isinstance(orch.compile(canvases.straight()), _chain)
    first, joined = orch.compile(canvases.diamond()).tasks
    assert first.options["shadow"] == "A"
    assert isinstance(joined, _chord)
    assert [task.options["shadow"] for task in joined.tasks] == ["B", "C"]
    assert len(orch.compile(canvases.long()).tasks) == 20


def test_a_workflow_with_overlapping_joins_gives_the_segments_that_travel(orch: Orchestrator) -> None:
    compiled = orch.compile(bodies.overlapping)
    assert isinstance(compiled, group)
    lengths = [len(each.tasks) if isinstance(each, _chain) else 1 for each in compiled.tasks]
    assert sum(lengths) == 7
    # Ids only: neither arguments nor the graph.
    assert all(not link.args for each in compiled.tasks for link in getattr(each, "tasks", [each]))


def test_branches_that_fork_before_a_join_of_all_give_segments(orch: Orchestrator) -> None:
    """Celery would give the join's body [[q, r], b]."""
    tasks = [Task("a", bodies.echo, 1), Task("b", bodies.echo, 2), *[Task(name, bodies.echo) for name in "qrj"]]
    after = {"q": ["a"], "r": ["a"], "j": ["q", "r", "b"]}
    compiled = orch.compile(Workflow("fork", tasks, after))
    assert isinstance(compiled, group)
    assert len(compiled.tasks) == 5


def test_compiling_submits_nothing(orch: Orchestrator, cluster: Cluster) -> None:
    before = len(cluster.messages())
    orch.compile(canvases.diamond())
    assert (orch.runs(), len(cluster.messages())) == ([], before)
