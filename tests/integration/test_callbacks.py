"""Callbacks given by name: they run on workers, though the process that submitted is gone."""

from collections.abc import Iterator

import pytest

from orchestra import Orchestrator, Task, Workflow
from orchestra.errors import InvalidOption
from tests import bodies
from tests.cluster import Cluster

ON = {"ORCHESTRA_CALLBACKS": "1"}
BACK = "tests.bodies:told_of"


@pytest.fixture(scope="module")
def cluster(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with (
        pytest.MonkeyPatch.context() as patch,
        Cluster(tmp_path_factory.mktemp("callbacks"), redis_url, queue="callbacks", settings=ON) as made,
    ):
        patch.setenv(*next(iter(ON.items())))
        yield made


def test_every_end_is_told_once_on_a_worker_after_the_producer_has_gone(cluster: Cluster) -> None:
    with cluster.orchestrator() as orch:
        ids = [
            orch.submit(bodies.echo, "x", callback=BACK, metadata={"customer": 7}).id,
            orch.submit(bodies.boom, "no", callback=BACK).id,
            (cancelled := orch.submit(bodies.noop, callback=BACK, queue="nobody")).id,
        ]
        steps = [Task("A", bodies.noop, callback=BACK), Task("B", bodies.noop)]
        run = orch.submit_workflow(Workflow(name="w", tasks=steps))
        orch.cancel(cancelled.id)
    # Nobody has looked after callbacks until now. The one of the cancelled task is in the queue of that.
    cluster.worker("--concurrency", "1", "--queues", "callbacks,nobody")
    first = cluster.run(["beat"], ready=True)
    cluster.wait_for_note("told of", 4, timeout=60)
    first.kill9()
    cluster.run(["beat"], ready=True)
    with cluster.orchestrator() as orch:
        orch.submit(bodies.echo, "y", callback=BACK)
    cluster.wait_for_note("told of", 5, timeout=60)
    told = cluster.noted("told of")
    assert told[f"told of {ids[0]} COMPLETED x {{'customer': 7}}"] == 1
    assert told[f"told of {ids[1]} FAILED ValueError {{}}"] == 1
    assert told[f"told of {ids[2]} CANCELLED Cancelled {{}}"] == 1
    assert told[f"told of {run.id}.0 COMPLETED None {{}}"] == 1
    assert sum(told.values()) == 5


def test_names_are_refused_where_nobody_would_call_them(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with Orchestrator() as orch, pytest.raises(InvalidOption, match="ORCHESTRA_CALLBACKS=1"):
        orch.submit(bodies.noop, callback=BACK)
    with pytest.raises(InvalidOption, match="module:function"):
        Task("A", bodies.noop, callback="notify")
    monkeypatch.delenv("ORCHESTRA_CALLBACKS")
    with cluster.orchestrator() as orch, pytest.raises(InvalidOption, match="ORCHESTRA_CALLBACKS=1"):
        orch.submit(bodies.noop, callback=BACK)
