"""RabbitMQ's queues: with priorities, without, of the quorum kind, and those that somebody else declared."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from orchestra import Orchestrator, TaskStatus
from orchestra.errors import BrokerUnavailable
from orchestra.runtime.checkup import of_broker
from orchestra.store.contract import Dispatch
from tests import bodies
from tests.cluster import Cluster
from tests.servers import Rabbit

PRIORITIES = [1, 3, 5, 7, 10]


@pytest.fixture
def make_cluster(rabbit: Rabbit, tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Make a cluster with a queue of this test."""
    with ExitStack() as clusters:

        def make(**settings: str) -> Cluster:
            queue = f"q-{uuid.uuid4().hex[:8]}"
            return clusters.enter_context(Cluster(tmp_path, rabbit.url, queue=queue, settings=settings))

        yield make


@pytest.fixture
def cluster(make_cluster: Callable[..., Cluster]) -> Cluster:
    return make_cluster()


def order(cluster: Cluster, orch: Orchestrator) -> list[int]:
    """Return in which order steps of several priorities begin that wait for the only slot, the last sent first."""
    first = orch.submit(bodies.hold, "first")
    cluster.wait_for_note("first begins")
    tasks = [orch.submit(bodies.echo, n, priority=n) for n in reversed(PRIORITIES)]
    cluster.release("first")
    orch.wait_all([first, *tasks], timeout=30)
    assert {task.status for task in tasks} == {TaskStatus.COMPLETED}
    return [int(each.what.split()[1]) for each in cluster.notes("echo")]


def declared(rabbit: Rabbit, queue: str, **arguments: Any) -> None:
    """Declare a durable queue as somebody else would."""
    with rabbit.channel() as channel:
        channel.queue_declare(queue, durable=True, auto_delete=False, arguments=arguments)


def test_a_classic_queue_serves_the_highest_priority_first(cluster: Cluster) -> None:
    cluster.worker("--concurrency", "1")
    assert order(cluster, cluster.orchestrator()) == PRIORITIES


def test_a_plain_queue_that_exists_is_used_as_it_is(
    cluster: Cluster, rabbit: Rabbit, caplog: pytest.LogCaptureFixture
) -> None:
    declared(rabbit, cluster.queue)
    worker = cluster.worker("--concurrency", "1")
    assert order(cluster, cluster.orchestrator()) == PRIORITIES[::-1]  # as they were sent
    for said in (worker.output, caplog.text):
        assert f"Queue '{cluster.queue}' exists with other arguments and is used as it is" in said
        assert f"Queue '{cluster.queue}' has no priorities (x-max-priority)" in said
    declared(rabbit, cluster.queue)  # which would be refused if it were another one by now


def test_a_queue_whose_other_arguments_differ_is_used_with_the_priorities_that_it_has(
    cluster: Cluster, rabbit: Rabbit
) -> None:
    declared(rabbit, cluster.queue, **{"x-max-priority": 10, "x-max-length": 100_000})
    worker = cluster.worker("--concurrency", "1")
    assert order(cluster, cluster.orchestrator()) == PRIORITIES
    assert "x-max-length" in worker.output
    assert "has no priorities" not in worker.output


def test_quorum_queues_keep_bands_of_priorities_apart(make_cluster: Callable[..., Cluster], rabbit: Rabbit) -> None:
    cluster = make_cluster(ORCHESTRA_QUORUM_QUEUES="1")
    worker = cluster.worker("--concurrency", "1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCHESTRA_QUORUM_QUEUES", "1")
        orch = cluster.orchestrator()
    assert sorted(order(cluster, orch)) == PRIORITIES
    (lease,) = orch.parts.store.leases()
    assert list(lease.queues) == [cluster.queue]
    for band in ("1-3", "4-7", "8-10"):
        declared(rabbit, f"{cluster.queue}.priority.{band}", **{"x-queue-type": "quorum"})  # refused if it were not
    assert "ERROR" not in worker.output


def test_the_doctor_knows_quorum_queues_from_others(cluster: Cluster, rabbit: Rabbit) -> None:
    declared(rabbit, "doctored.priority.1-3", **{"x-queue-type": "quorum"})
    declared(rabbit, "doctored.priority.4-7")
    found = list(of_broker(cluster.orchestrator().app, ["doctored"], quorum=True))
    assert [(each.about, each.level.value) for each in found[1:]] == [
        ("queue doctored.priority.1-3", "ok"),
        ("queue doctored.priority.4-7", "warning"),
        ("queue doctored.priority.8-10", "ok"),
    ]
    assert "will be declared as a quorum queue" in found[3].text


def test_a_high_priority_step_passes_a_backlog_of_low_ones_in_quorum_queues(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(ORCHESTRA_QUORUM_QUEUES="1")
    cluster.worker("--concurrency", "1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCHESTRA_QUORUM_QUEUES", "1")
        orch = cluster.orchestrator()
    first = orch.submit(bodies.hold, "first")
    cluster.wait_for_note("first begins")
    low = [orch.submit(bodies.echo, f"low {n}", priority=9) for n in range(30)]
    high = orch.submit(bodies.echo, "high", priority=1)
    cluster.release("first")
    orch.wait_all([first, *low, high], timeout=30)
    began = [each.what for each in cluster.notes("echo")]
    # What the worker holds of each band runs first in, first out: one message per slot and band.
    assert began.index("echo high") <= 3


def dispatch(orch: Orchestrator, queue: str) -> Dispatch:
    """Return a message of a step that waits."""
    task = orch.submit(bodies.noop, queue=queue)
    record = orch.parts.store.find_step(task.id)
    assert record is not None
    (found,) = orch.parts.store.resend([queue], orch.parts.cycle.clock() + 100, 1, orch.parts.cycle.clock() + 100)
    return found


def test_what_rabbitmq_does_not_confirm_was_not_sent(cluster: Cluster, rabbit: Rabbit) -> None:
    full = f"{cluster.queue}-full"
    declared(rabbit, full, **{"x-max-priority": 10, "x-max-length": 1, "x-overflow": "reject-publish"})
    orch = cluster.orchestrator()
    message = dispatch(orch, full)
    with pytest.raises(BrokerUnavailable, match="did not take"):
        orch.parts.cycle.publisher.publish([message] * 3)


def test_a_queue_that_was_deleted_is_declared_again(cluster: Cluster, rabbit: Rabbit) -> None:
    orch = cluster.orchestrator()
    message = dispatch(orch, cluster.queue)
    with rabbit.channel() as channel:
        channel.queue_delete(cluster.queue)
    orch.parts.cycle.publisher.publish([message])
    with rabbit.channel() as channel:
        assert channel.queue_declare(cluster.queue, passive=True).message_count == 1


def test_a_worker_survives_the_deletion_of_its_queue(cluster: Cluster, rabbit: Rabbit) -> None:
    worker = cluster.worker("--concurrency", "1")
    orch = cluster.orchestrator()
    assert orch.submit(bodies.echo, 1).wait(30).output == 1
    with rabbit.channel() as channel:
        channel.queue_delete(cluster.queue)
    assert orch.submit(bodies.echo, 2).wait(30).output == 2
    assert worker.alive


def test_a_batch_is_confirmed_as_a_whole_on_one_channel(cluster: Cluster, rabbit: Rabbit) -> None:
    orch = cluster.orchestrator()
    message = dispatch(orch, cluster.queue)
    with rabbit.channel() as channel:
        channel.queue_purge(cluster.queue)
        for _ in range(3):
            orch.parts.cycle.publisher.publish([message] * 200)
        assert channel.queue_declare(cluster.queue, passive=True).message_count == 600


def test_a_connection_that_was_closed_is_made_again(cluster: Cluster, rabbit: Rabbit) -> None:
    orch = cluster.orchestrator()
    message = dispatch(orch, cluster.queue)
    with orch.app.producer_or_acquire() as producer:
        producer.connection.close()
        assert producer.connection.connection is None
    orch.parts.cycle.publisher.publish([message])
    with rabbit.channel() as channel:
        assert channel.queue_declare(cluster.queue, passive=True).message_count == 2


# An application that was there before


def test_the_plain_queue_of_an_adopted_application_serves_steps_and_is_said_to_have_no_priorities(
    rabbit: Rabbit, tmp_path: Path, caplog: pytest.LogCaptureFixture, untouched_process: None
) -> None:
    declared(rabbit, "celery")
    settings = {"LEGACY_BROKER": rabbit.url, "LEGACY_BACKEND": "disabled://"}
    app = Celery("legacy", broker=rabbit.url, set_as_current=False)
    with Cluster(tmp_path, rabbit.url, app="tests.legacy_flows:orch", queue="celery", settings=settings) as cluster:
        worker = cluster.worker("--concurrency", "1", env={"ORCHESTRA_QUEUE": None})
        with Orchestrator(app=app, store=cluster.store, modules=["tests"]) as orch:
            assert order(cluster, orch) == PRIORITIES[::-1]  # as they were sent
        assert "Queue 'celery' has no priorities (x-max-priority)" in worker.output
        assert "other arguments" not in worker.output + caplog.text


def test_a_queue_of_its_own_beside_an_adopted_application_has_priorities(
    cluster: Cluster, rabbit: Rabbit, untouched_process: None
) -> None:
    app = Celery("legacy", broker=rabbit.url, set_as_current=False)
    with Orchestrator(app=app, store=cluster.store, queue=cluster.queue, modules=["tests"]) as orch:
        orch.submit(bodies.noop)
        declared(rabbit, cluster.queue, **{"x-max-priority": 10})  # refused if it were another one
