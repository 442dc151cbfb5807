"""What the engine relies on in Celery 5.7: which hook comes when, in which process, and what it may change.

These tests use a plain Celery application. They are to be run against each Celery release before it is allowed.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celery
import pytest
from celery import Celery, chain

from tests.cluster import Cluster
from tests.processes import Process, wait_until
from tests.servers import PrivateRedis


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with PrivateRedis() as server, Cluster(tmp_path_factory.mktemp("hooks"), server.url, queue="celery") as made:
        yield made


@pytest.fixture(scope="module")
def worker(cluster: Cluster) -> Process:
    """A stock prefork worker."""
    return cluster.run(
        ["-A", "tests.hooks_app", "worker", "-c", "2", "-l", "INFO"],
        ready=True,
        module="celery",
        env={"LEGACY_BROKER": cluster.broker},
    )


@pytest.fixture(scope="module")
def app(cluster: Cluster, worker: Process) -> Iterator[Celery]:
    """A producer that knows only names."""
    with Celery("producer", broker=cluster.broker, set_as_current=False) as app:
        yield app


def hooks(cluster: Cluster, task_id: str, last: str) -> list[str]:
    """Wait for the last hook of a task, and return all in order."""
    cluster.wait_for_note(f"{task_id} {last}", timeout=30)
    return [note.what.removeprefix(f"{task_id} ") for note in cluster.notes(f"{task_id} ")]


def acknowledged(cluster: Cluster) -> bool:
    return not cluster.unacknowledged() and not cluster.messages()


def test_the_pinned_minor_version_is_the_one_whose_hooks_are_asserted() -> None:
    assert celery.__version__.startswith("5.7.")


def test_before_start_comes_before_the_body_and_the_result_before_on_success(app: Celery, cluster: Cluster) -> None:
    app.send_task("body", ("x",), task_id="plain")
    assert hooks(cluster, "plain", "after_return") == [
        "before_start, prerun was True",
        "body ['x']",
        "mark_as_done in child, request True, claimed plain",
        "on_success",
        "after_return",
    ]


def test_arguments_changed_in_place_reach_the_body(app: Celery, cluster: Cluster) -> None:
    app.send_task("body", (), {"fill": True}, task_id="filling")
    assert "body ['filled in']" in hooks(cluster, "filling", "after_return")


def test_chain_and_callbacks_that_were_moved_aside_are_not_published(app: Celery, cluster: Cluster) -> None:
    first = app.signature("body", ("1",), task_id="first")
    chain(first, app.signature("body", ("2",), task_id="second", immutable=True), app=app).apply_async()
    app.send_task("body", ("3",), task_id="linking", link=app.signature("body", ("4",), task_id="linked"))
    hooks(cluster, "first", "after_return")
    hooks(cluster, "linking", "after_return")
    wait_until(lambda: acknowledged(cluster), 30, "everything to be acknowledged")
    assert cluster.notes("second") == []
    assert cluster.notes("linked") == []


def test_left_alone_celery_publishes_the_next_link_before_it_stores_the_result(app: Celery, cluster: Cluster) -> None:
    """Why they are moved aside. Should this order change, the backend may not need to publish by itself."""
    first = app.signature("stock", ("1",), task_id="stock-first")
    chain(first, app.signature("stock", ("2",), task_id="stock-second", immutable=True), app=app).apply_async()
    assert "body ['2']" in hooks(cluster, "stock-second", "after_return")


def test_ignore_in_before_start_drops_the_message_acknowledged(app: Celery, cluster: Cluster) -> None:
    app.send_task("body", task_id="dropped")
    cluster.wait_for_note("dropped before_start")
    wait_until(lambda: acknowledged(cluster), 30, "the message to be acknowledged")
    assert hooks(cluster, "dropped", "before_start") == ["before_start, prerun was True"]


def test_an_error_in_before_start_is_a_failure_of_the_task(app: Celery, cluster: Cluster) -> None:
    app.send_task("body", task_id="broken")
    assert hooks(cluster, "broken", "after_return") == [
        "before_start, prerun was True",
        "mark_as_failure ValueError in child, request True, claimed None",
        "on_failure",
        "after_return",
    ]


def test_a_failure_is_recorded_in_the_child_before_on_failure(app: Celery, cluster: Cluster) -> None:
    app.send_task("fails", task_id="failing")
    assert hooks(cluster, "failing", "after_return") == [
        "before_start, prerun was True",
        "mark_as_failure ValueError in child, request True, claimed failing",
        "on_failure",
        "after_return",
    ]


def test_a_retry_is_recorded_with_its_error_and_nothing_is_published(app: Celery, cluster: Cluster) -> None:
    app.send_task("again", task_id="retrying")
    assert hooks(cluster, "retrying", "mark_as_retry") == [
        "before_start, prerun was True",
        "mark_as_retry KeyError in child, request True, claimed retrying",
    ]
    wait_until(lambda: acknowledged(cluster), 30, "the message to be acknowledged")


def test_a_lost_child_is_reported_once_by_the_parent_with_a_request(app: Celery, cluster: Cluster) -> None:
    app.send_task("killed", task_id="lost")
    assert hooks(cluster, "lost", "mark_as_failure")[1:] == [
        "mark_as_failure WorkerLostError in parent, request True, claimed None"
    ]
    wait_until(lambda: acknowledged(cluster), 30, "the message to be acknowledged")


def test_a_time_limit_is_reported_by_the_parent_with_the_same_request_each_time(app: Celery, cluster: Cluster) -> None:
    app.send_task("slow", task_id="late")
    hooks(cluster, "late", "mark_as_failure")
    wait_until(lambda: acknowledged(cluster), 30, "the message to be acknowledged")
    reported = cluster.notes("late mark_as_failure")
    print(f"a time limit is reported {len(reported)} times")
    assert {note.what for note in reported} == {
        "late mark_as_failure TimeLimitExceeded in parent, request True, claimed None"
    }


def test_an_unknown_task_is_reported_by_a_signal_with_its_headers(
    app: Celery, cluster: Cluster, worker: Process
) -> None:
    app.send_task("nobody.knows", task_id="unknown")
    wait_until(lambda: "Received unregistered task of type 'nobody.knows'" in worker.output, 30, "the complaint")
    wait_until(lambda: acknowledged(cluster), 30, "the message to be dropped")


def test_headers_of_a_message_are_attributes_of_the_request(app: Celery) -> None:
    from celery.app.task import Context

    request: Any = Context({"id": "x", "orchestra": 1, "chain": [1]})
    assert (request.orchestra, request.chain) == (1, [1])
    request.chain = None
    assert request.chain is None


def test_the_steps_of_a_worker_stop_in_the_reverse_of_their_order(tmp_path: Path) -> None:
    """The lease step puts itself first, in order to be last: behind the pool."""
    from celery import bootsteps

    stopped: list[str] = []

    def step(name: str) -> Any:
        return type(name, (), {"alias": name, "stop": lambda _self, _parent: stopped.append(name)})()

    parent: Any = type("Parent", (), {"steps": [step("lease"), step("pool"), step("consumer")]})()
    bootsteps.Blueprint(name="test").restart(parent)
    assert stopped == ["consumer", "pool", "lease"]
