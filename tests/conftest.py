"""Fixtures that all tests share. Servers are looked for, or started, when the first test asks for them."""

import logging
import subprocess
import sys
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import TypeVar

import pytest
from celery import _state
from hypothesis import HealthCheck, settings

from orchestra import Orchestrator
from orchestra.errors import StoreUnavailable
from orchestra.testing.watched import check_log
from tests.servers import Missing, PrivateRedis, Rabbit, postgres_server, rabbitmq, redis_server

S = TypeVar("S")
ROOT = Path(__file__).parent.parent

# How long an example takes says how busy the machine is.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep half surrogates, which some tests log on purpose, from the pipe between pytest's processes."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with slow tests come first: where modules run beside each other, the last ones are to be short."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="module", autouse=True)
def every_step_changes_as_it_may() -> Iterator[None]:
    """Whatever an orchestrator of this process has stored: its log is looked through before it is closed."""
    close = Orchestrator.close

    def check_and_close(orch: Orchestrator) -> None:
        if not orch.closed:
            with suppress(StoreUnavailable):
                check_log(orch.parts.store)
        close(orch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Orchestrator, "close", check_and_close)
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis database of this test run, emptied afterwards. Tests share it: use keys and queues of your own."""
    yield from _serve(redis_server())


@pytest.fixture(scope="session")
def rabbit() -> Iterator[Rabbit]:
    """A RabbitMQ virtual host of this test run. Tests share it: use queues of your own."""
    yield from _serve(rabbitmq())


@pytest.fixture(scope="session")
def rabbitmq_url(rabbit: Rabbit) -> str:
    """The URL of a RabbitMQ virtual host of this test run."""
    return rabbit.url


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL database of this test run."""
    yield from _serve(postgres_server())


@pytest.fixture
def private_redis() -> Iterator[Callable[..., PrivateRedis]]:
    """Make Redis processes of this test alone, for tests that kill them: `private_redis(appendonly=True)`."""
    with ExitStack() as servers:

        def make(*, appendonly: bool = False) -> PrivateRedis:
            try:
                return servers.enter_context(PrivateRedis(appendonly=appendonly))
            except Missing as missing:
                pytest.fail(str(missing), pytrace=False)

        yield make


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return path


def _serve(server: AbstractContextManager[S]) -> Iterator[S]:
    try:
        made = server.__enter__()
    except Missing as missing:
        pytest.fail(str(missing), pytrace=False)
    try:
        yield made
    finally:
        server.__exit__(None, None, None)


@pytest.fixture
def postgres_store_url(postgres_url: str) -> Iterator[str]:
    """The URL of a store of this test alone: a schema of its own in the database of this test run."""
    import psycopg

    schema = f"test_{uuid.uuid4().hex[:12]}"
    yield f"{postgres_url}?schema={schema}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')


@pytest.fixture
def untouched_process() -> Iterator[None]:
    """Undo what an ordinary Celery application and Celery's own test worker do to the process."""
    root = logging.getLogger()
    finalizers, handlers, level = set(_state._on_app_finalizers), root.handlers[:], root.level
    default, current = _state.default_app, _state._tls.current_app
    yield
    _state._on_app_finalizers.intersection_update(finalizers)
    root.handlers[:], root.level = handlers, level
    _state.default_app, _state._tls.current_app = default, current
