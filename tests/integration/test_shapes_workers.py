"""Random graphs in two prefork workers over Redis, on each store that processes can share, against the interpreter."""

import os
from collections.abc import Iterator

import pytest

from orchestra import Orchestrator
from orchestra.testing import check_history
from tests.cluster import Cluster
from tests.drawn import check_random_graphs
from tests.servers import PrivateRedis
from tests.stores import store_url

GRAPHS = int(os.environ.get("ORCHESTRA_GRAPHS", "20"))
"""How many graphs on each store."""


@pytest.fixture(params=["sqlite", "postgresql", "redis"])
def orch(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orchestrator]:
    with PrivateRedis() as server, Cluster(tmp_path_factory.mktemp("shapes"), server.url) as cluster:
        cluster.store = store_url(request.param, request)
        for name in ("one", "two"):
            cluster.worker("--concurrency", "2", "--name", name)
        yield cluster.orchestrator()


@pytest.mark.slow
def test_random_graphs_end_in_worker_processes_as_the_interpreter_says(orch: Orchestrator) -> None:
    check_random_graphs(orch, range(GRAPHS), 60)
    check_history(orch.parts.store)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("first", range(1000, 1500, 100))
def test_five_hundred_random_graphs_end_in_worker_processes_as_the_interpreter_says(
    orch: Orchestrator, first: int
) -> None:
    check_random_graphs(orch, range(first, first + 100), 300, at_once=16)
    check_history(orch.parts.store)
