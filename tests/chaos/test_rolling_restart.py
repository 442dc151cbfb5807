"""A rolling restart: workers are told to go one by one under load, and nothing is lost and nothing run twice."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestra import Task, Workflow
from tests.bodies import nap_of
from tests.cluster import Cluster
from tests.processes import wait_until

SIZES = [
    pytest.param(150, id="150-steps", marks=pytest.mark.timeout(240)),
    pytest.param(2000, id="2000-steps", marks=[pytest.mark.soak, pytest.mark.timeout(600)]),
]
WORKERS = 4


@pytest.fixture(params=["redis", pytest.param("rabbitmq", marks=pytest.mark.soak)])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path, request.getfixturevalue(f"{request.param}_url"), queue="rolling") as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("pool", ["prefork", pytest.param("threads", marks=pytest.mark.soak)])
def test_nothing_is_lost_and_nothing_runs_twice(cluster: Cluster, count: int, pool: str) -> None:
    options = ("--pool", pool, "--concurrency", "4")
    workers = [cluster.worker(*options) for _ in range(WORKERS)]
    orch = cluster.orchestrator()
    names = [f"n{at}" for at in range(count)]
    run = orch.submit_workflow(
        Workflow("rolling", [Task(name, nap_of, kwargs={"name": name, "seconds": 0.1}) for name in names])
    )
    for at in range(WORKERS):
        wait_until(lambda: len(cluster.notes("n")) > at * count // 4, 60, "work to go on")  # noqa: B023
        told = time.monotonic()
        workers[at].popen.terminate()
        assert workers[at].wait(20) == 0
        print(f"worker {at} of {pool} was gone after {time.monotonic() - told:.1f} s")
        workers[at] = cluster.worker(*options)
    run.wait(120)
    ended = time.time()
    assert run.status == "COMPLETED"
    assert _retried(cluster, run.id) == []
    begun = cluster.noted("n")
    assert begun == {f"{name} {what}": 1 for name in names for what in ("begins", "ends")}
    print(f"{count} steps in {ended - min(each.time for each in cluster.notes('n')):.1f} s")


def _retried(cluster: Cluster, run_id: str) -> list[str]:
    """Return which steps were taken up a second time, and why."""
    orch = cluster.orchestrator()
    found = orch.history(run=run_id, type="task.retrying", limit=10)
    return [f"{each.time:%H:%M:%S.%f} {each.data['name']}: {each.data['error']}" for each in found]
