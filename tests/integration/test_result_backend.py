"""The store as the result backend of a Celery application that uses nothing else of Orchestra."""

import importlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from celery import chain, chord, group
from celery.exceptions import ChordError
from celery.exceptions import TimeoutError as ResultTimeout
from celery.result import AsyncResult, GroupResult

from tests.forks import Program
from tests.processes import Process, wait_until
from tests.servers import PrivatePostgres, PrivateRedis

PATIENCE_S = 30


class Application:
    """The application in this process, and workers of it."""

    def __init__(self, folder: Path, broker: str, backend: str) -> None:
        self.folder = folder
        self.env = {"RESULTS_BROKER": broker, "RESULTS_BACKEND": backend}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.env.items():
                patch.setenv(name, value)
            sys.modules.pop("tests.results_app", None)
            self.tasks: ModuleType = importlib.import_module("tests.results_app")
        self.app = self.tasks.app

    def worker(self, name: str, *options: str, env: dict[str, str] | None = None) -> Process:
        command = [sys.executable, "-m", "celery", "-A", "tests.results_app", "worker", "-n", f"{name}@%h"]
        return Program(
            [*command, "-c", "2", "--loglevel", "INFO", *options],
            log=self.folder / f"{name}.log",
            env={**self.env, **(env or {})},
        )

    def close(self) -> None:
        self.app.backend.close()
        self.app.close()


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with PrivateRedis() as server:
        yield server.url


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "redis"])
def application(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, broker: str
) -> Iterator[Application]:
    folder = tmp_path_factory.mktemp("results")
    match request.param:
        case "sqlite":
            url = f"sqlite:///{folder}/results.db"
        case "postgresql":
            url = f"{request.getfixturevalue('postgres_url')}?schema=results"
        case _:
            url = f"{broker.removesuffix('/0')}/1"
    made = Application(folder, f"{broker.removesuffix('/0')}/{2 + len(request.param)}", f"orchestra+{url}")
    yield made
    made.close()


@pytest.fixture(scope="module")
def tasks(application: Application) -> Iterator[ModuleType]:
    # Not even a machine that stalls has it take what it has not acknowledged yet for lost.
    with application.worker("first", env={"RESULTS_VISIBILITY_S": "600"}) as worker:
        worker.wait_for("ready")
        yield application.tasks


def test_a_result_is_there_for_who_waits_and_for_who_comes_later(tasks: ModuleType) -> None:
    result = tasks.add.delay(2, 3)
    assert result.get(timeout=PATIENCE_S) == 5
    later = AsyncResult(result.id, app=tasks.app)
    assert (later.state, later.result, later.name, later.args) == ("SUCCESS", 5, "tests.results_app.add", [2, 3])
    later.forget()
    assert AsyncResult(result.id, app=tasks.app).state == "PENDING"


def test_an_error_is_raised_where_it_is_waited_for(tasks: ModuleType) -> None:
    with pytest.raises(ValueError, match="broken"):
        tasks.fail.delay("broken").get(timeout=PATIENCE_S)


def test_who_waits_hears_of_states_in_between(tasks: ModuleType) -> None:
    heard: list[str] = []
    assert tasks.stages.delay().get(timeout=PATIENCE_S, on_message=lambda meta: heard.append(meta["status"])) == "done"
    assert heard[-1] == "SUCCESS"


def test_waiting_ends_with_its_timeout(application: Application) -> None:
    began = time.monotonic()
    with pytest.raises(ResultTimeout):
        AsyncResult("nobody", app=application.app).get(timeout=0.3)
    assert time.monotonic() - began < 30


def test_many_threads_wait_at_once(tasks: ModuleType) -> None:
    got: list[int] = []

    def call(n: int) -> None:
        got.append(tasks.slow.delay(n).get(timeout=PATIENCE_S))

    threads = [threading.Thread(target=call, args=(n,)) for n in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(got) == list(range(8))


def test_a_group_is_joined_in_its_order_saved_and_restored(tasks: ModuleType) -> None:
    result = group(tasks.add.s(n) for n in range(10)).apply_async()
    assert result.join_native(timeout=PATIENCE_S) == result.get(timeout=PATIENCE_S) == list(range(1, 11))
    result.save()
    restored = GroupResult.restore(result.id, app=tasks.app)
    assert restored is not None
    assert restored.get(timeout=PATIENCE_S) == list(range(1, 11))
    restored.delete()
    assert GroupResult.restore(result.id, app=tasks.app) is None


def test_a_chord_gets_the_results_of_its_header_in_order(tasks: ModuleType) -> None:
    assert chord([tasks.add.s(n) for n in range(20)])(tasks.same.s()).get(timeout=PATIENCE_S) == list(range(1, 21))


def test_parts_whose_results_are_not_kept_count(tasks: ModuleType) -> None:
    assert chord([tasks.unheard.s(n) for n in range(3)])(tasks.total.s()).get(timeout=PATIENCE_S) == 3


def test_chords_groups_and_chains_inside_each_other(tasks: ModuleType) -> None:
    inner = chord([tasks.add.s(1), tasks.add.s(2)], tasks.total.s())  # 5
    header = [inner, group(tasks.add.s(3), tasks.add.s(4)), chain(tasks.add.s(5), tasks.add.s(1))]  # 5, [4, 5], 7
    canvas = chain(chord(header, tasks.same.s()), tasks.total.s())
    assert canvas.apply_async().get(timeout=PATIENCE_S) == 21


def test_a_task_may_become_a_chord_and_a_chord_may_grow(tasks: ModuleType) -> None:
    canvas = chord([tasks.becomes.s(3), tasks.widen.s(10)], tasks.total.s())
    assert canvas.apply_async().get(timeout=PATIENCE_S) == 6 + 10 + 10


def test_a_part_that_fails_fails_what_follows_and_says_which(tasks: ModuleType) -> None:
    result = chain(chord([tasks.add.s(1), tasks.fail.s("broken")], tasks.total.s()), tasks.add.s(1)).apply_async()
    with pytest.raises(ChordError, match=r"Dependency .* raised ValueError\('broken'\)"):
        result.get(timeout=PATIENCE_S, follow_parents=False)


def test_a_task_that_is_tried_again_and_one_that_waits_for_others(tasks: ModuleType) -> None:
    assert tasks.flaky.delay().get(timeout=PATIENCE_S) == 1
    assert tasks.inner.delay(3).get(timeout=PATIENCE_S) == [1, 2, 3]


def test_the_same_frozen_chord_may_be_sent_twice(tasks: ModuleType) -> None:
    canvas = chord([tasks.add.s(1), tasks.add.s(2)], tasks.total.s())
    canvas.freeze()
    for _ in range(2):
        result = canvas.apply_async()
        assert result.get(timeout=PATIENCE_S) == 5
        result.forget()


def test_what_has_expired_is_deleted(application: Application, tasks: ModuleType) -> None:
    kept = tasks.add.delay(1)
    kept.get(timeout=PATIENCE_S)
    backend = application.app.backend
    backend.expires, before = 0.05, backend.expires
    try:
        backend.store_result("short", 1, "SUCCESS")
    finally:
        backend.expires = before
    wait_until(lambda: not backend.task_result_exists("short"), what="the result to expire")
    backend.cleanup()
    assert backend.task_result_exists(kept.id)


def test_a_callback_whose_publisher_died_is_published_by_another(application: Application) -> None:
    canvas = chord([application.tasks.add.s(n) for n in range(3)], application.tasks.total.s())
    result = canvas.apply_async(queue="dying")
    with application.worker("dying", "-Q", "dying", env={"RESULTS_DIE": "1"}) as worker:
        # A child dies that counted the last part; or its parent, which takes over what is overdue.
        wait_until(lambda: not worker.alive or "exited with" in worker.output, 2 * PATIENCE_S, "a death")
        worker.kill9()
    with application.worker("heir", "-Q", "dying,celery") as heir:
        heir.wait_for("ready")
        assert result.get(timeout=2 * PATIENCE_S) == 6


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["postgresql", "redis"])
def test_a_store_that_is_away_when_a_task_ends_costs_it_nothing_but_time(
    kind: str, tmp_path: Path, broker: str
) -> None:
    with PrivatePostgres() if kind == "postgresql" else PrivateRedis(appendonly=True) as server:
        made = Application(tmp_path, f"{broker.removesuffix('/0')}/{3 + len(kind) % 2}", f"orchestra+{server.url}")
        try:
            with made.worker("patient", env={"RESULTS_VISIBILITY_S": "600"}) as worker:
                worker.wait_for("ready")
                go = tmp_path / "go"
                parts = chord([made.tasks.held.s(n, str(go)) for n in range(2)], made.tasks.total.s()).apply_async()
                worker.wait_for(lambda output: output.count("received") == 2, timeout=60)
                server.kill()
                go.touch()
                worker.wait_for("trying again in", timeout=60)
                server.start()
                assert parts.get(timeout=2 * PATIENCE_S) == 1
                worker.wait_for(lambda output: output.count("succeeded") == 3, timeout=60)
        finally:
            made.close()
