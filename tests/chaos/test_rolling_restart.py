"""A rolling restart: workers are told to go one by one under load, and nothing is lost and nothing run twice."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestra import Task, Workflow
from orchestra.runtime.hand import NOT_BEGUN
from tests.bodies import await_of, nap_of
from tests.cluster import Cluster
from tests.processes import wait_until

SIZES = [
    pytest.param(150, id="150-steps", marks=pytest.mark.timeout(240)),
    pytest.param(2000, id="2000-steps", marks=[pytest.mark.soak, pytest.mark.timeout(600)]),
]
WORKERS = 4


SERVERS = [
    ("redis", "sqlite"),
    pytest.param(("redis", "postgresql"), marks=pytest.mark.soak),
    pytest.param(("redis", "redis"), marks=pytest.mark.soak),
    pytest.param(("rabbitmq", "postgresql"), marks=pytest.mark.soak),
]
POOLS = [
    pytest.param(("prefork", nap_of), id="prefork"),
    pytest.param(("threads", nap_of), id="threads", marks=pytest.mark.soak),
    pytest.param(("asyncio", await_of), id="asyncio", marks=pytest.mark.soak),
]


@pytest.fixture(params=SERVERS, ids=lambda pair: "-".join(pair))
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    broker, store = request.param
    urls = {"sqlite": None, "postgresql": "postgres_store_url", "redis": "redis_url"}
    store_url = urls[store] and request.getfixturevalue(urls[store])
    with Cluster(tmp_path, request.getfixturevalue(f"{broker}_url"), queue=f"rolling-{store}", store=store_url) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("pool", POOLS)
def test_nothing_is_lost_and_nothing_runs_twice(
    cluster: Cluster, count: int, pool: tuple[str, Callable[..., object]]
) -> None:
    name_of_pool, body = pool
    options = ("--pool", name_of_pool, "--concurrency", "4")
    workers = [cluster.worker(*options) for _ in range(WORKERS)]
    orch = cluster.orchestrator()
    names = [f"n{at}" for at in range(count)]
    run = orch.submit_workflow(
        Workflow("rolling", [Task(name, body, kwargs={"name": name, "seconds": 0.1}) for name in names])
    )
    for at in range(WORKERS):
        wait_until(lambda: len(cluster.notes("n")) > at * count // 4, 60, "work to go on")  # noqa: B023
        told = time.monotonic()
        workers[at].popen.terminate()
        assert workers[at].wait(30) == 0
        print(f"worker {at} of {name_of_pool} was gone after {time.monotonic() - told:.1f} s")
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
    found = orch.history(run=run_id, type="task.retrying", limit=10_000)
    told = [each for each in found if each.data["error"] != NOT_BEGUN]  # which children of a machine that stalls say
    return [f"{each.time:%H:%M:%S.%f} {each.data['name']}: {each.data['error']}" for each in told]
