"""Errors that a user meets with separate workers: each has a clear message and leaves nothing behind."""

import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from orchestra import Orchestrator, Task, TaskStatus, Workflow
from orchestra.errors import BrokerUnavailable, CannotTravel, SettingsError, StoreUnavailable
from tests import bodies
from tests.cluster import ROOT, Cluster
from tests.processes import wait_until
from tests.servers import PrivateRedis


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One worker with two slots."""
    with PrivateRedis() as server, Cluster(tmp_path_factory.mktemp("errors"), server.url) as made:
        made.worker("--concurrency", "2")
        yield made


@pytest.fixture(scope="module")
def orch(cluster: Cluster) -> Orchestrator:
    return cluster.orchestrator()


# What cannot travel


def a_local_function() -> Callable[[], int]:
    def inner() -> int:
        return 1

    return inner


class Callback:
    """An object that can be called, but has no name of its own."""

    def __call__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("agent", "reason"),
    [
        (lambda: 1, "lambda"),
        (a_local_function(), "defined inside a function"),
        (Callback(), "belongs to an object"),
        (Callback().__call__, "belongs to an object"),
    ],
)
def test_what_no_worker_could_find_is_refused_at_submit(orch: Orchestrator, agent: object, reason: str) -> None:
    before = len(orch.runs())
    with pytest.raises(CannotTravel, match=reason) as refused:
        orch.submit(agent)
    assert "top level of a module" in str(refused.value)
    with pytest.raises(CannotTravel, match=reason):
        orch.submit_workflow(Workflow("two", [Task("a", bodies.noop), Task("b", agent)], {"b": ["a"]}))
    assert len(orch.runs()) == before


def test_a_function_of_the_program_itself_is_refused_at_submit(cluster: Cluster) -> None:
    program = cluster.folder / "program.py"
    program.write_text("from orchestra import Orchestrator\ndef f(): ...\nOrchestrator().submit(f)\n")
    ended = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, cwd=ROOT, env={**cluster.env, "PYTHONPATH": "."}
    )
    assert ended.returncode == 1
    assert "CannotTravel" in ended.stderr
    assert "__main__" in ended.stderr.splitlines()[-1]


# What a worker does not find


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("tests.bodies:no_such_function", "has no 'no_such_function'"),
        ("tests.no_such_module:f", "importing 'tests.no_such_module' failed"),
        ("tests.broken_module:f", "importing 'tests.broken_module' failed: ZeroDivisionError"),
        ("os:getcwd", "ORCHESTRA_MODULES|may be called here"),
        ("antigravity:webbrowser", "not among those that may be imported here"),
    ],
)
def test_a_function_that_a_worker_cannot_find_is_no_attempt(orch: Orchestrator, target: str, reason: str) -> None:
    done = orch.submit(target, retry=5).wait(30)
    assert (done.status, done.attempts, done.crashes) == (TaskStatus.FAILED, 0, 0)
    assert done.error is not None
    assert done.error.type == "TaskNotFound"
    assert target in done.error.message
    assert any(each in done.error.message for each in reason.split("|")), done.error.message


# Servers that are not there


def test_no_broker_at_that_url_is_said_at_submit_and_nothing_is_stored(tmp_path: Path) -> None:
    # Whoever has a port and does not listen keeps others from it.
    with socket.socket() as silent, ExitStack() as opened:
        silent.bind(("127.0.0.1", 0))
        url = f"redis://:secret@127.0.0.1:{silent.getsockname()[1]}/0"
        orch = opened.enter_context(Orchestrator(broker=url, store=f"sqlite:///{tmp_path / 'state.db'}"))
        begun = time.monotonic()
        for _ in range(2):
            with pytest.raises(BrokerUnavailable, match="Connection refused") as refused:
                orch.submit(bodies.noop)
        assert time.monotonic() - begun < 30
        assert "secret" not in str(refused.value)
        assert "start it, or correct the URL" in str(refused.value)
        with pytest.raises(BrokerUnavailable):
            orch.submit_workflow(bodies.overlapping)
        assert orch.runs() == []


def test_a_broker_that_goes_away_later_gets_the_work_when_it_is_back(
    private_redis: Callable[..., PrivateRedis], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = private_redis()
    with Cluster(tmp_path, server.url) as cluster:
        cluster.worker("--concurrency", "1")
        orch = cluster.orchestrator()
        orch.submit(bodies.noop).wait(30)
        server.kill()
        with caplog.at_level(logging.WARNING, "orchestra"):
            task = orch.submit(bodies.echo, "stored all the same")
        assert "could not be published and will be sent again" in caplog.text
        assert task.status is TaskStatus.QUEUED
        server.restart()
        assert task.wait(60).output == "stored all the same"


def test_a_store_in_a_folder_that_does_not_exist_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="does not exist"):
        Orchestrator(broker="redis://127.0.0.1:1/0", store=f"sqlite:///{tmp_path / 'no' / 'state.db'}")


def test_a_broker_without_a_store_is_refused_at_once() -> None:
    with pytest.raises(SettingsError, match="ORCHESTRA_STORE"):
        Orchestrator(broker="redis://127.0.0.1:6379/0")


# Nobody listens


@pytest.fixture
def quick_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestra.waiting.HINT_AFTER_S", 0.5)


@pytest.mark.usefixtures("quick_hint")
def test_who_waits_while_no_worker_serves_the_queue_gets_a_hint(
    orch: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    task = orch.submit(bodies.noop, queue="nobody-serves-this")
    with caplog.at_level(logging.WARNING, "orchestra"), pytest.raises(TimeoutError, match="it goes on"):
        task.wait(4)
    assert "no worker serves it" in caplog.text
    assert "--queues nobody-serves-this" in caplog.text
    assert orch.cancel(task.id)


@pytest.mark.usefixtures("quick_hint")
def test_who_waits_for_a_busy_worker_gets_no_hint(orch: Orchestrator, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "orchestra"):
        orch.submit(bodies.nap, 1).wait(30)
    assert "no worker serves it" not in caplog.text


def test_the_worker_is_none_the_worse_for_all_that(orch: Orchestrator, cluster: Cluster) -> None:
    assert orch.submit(bodies.echo, "fine").wait(30).output == "fine"
    wait_until(lambda: not cluster.unacknowledged(), 30, "all messages to be acknowledged")
