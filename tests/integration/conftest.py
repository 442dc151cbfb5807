"""What integration tests share: models and clusters of agents."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import orchestra
from tests.cluster import Cluster
from tests.openai_server import OpenAiServer
from tests.servers import PrivateRedis


@pytest.fixture
def default_closed() -> Iterator[None]:
    """For tests that use ``orchestra.default()``."""
    yield
    orchestra.default().close()


@pytest.fixture
def server() -> Iterator[OpenAiServer]:
    """A model that speaks HTTP."""
    with OpenAiServer() as made:
        yield made


@pytest.fixture(params=["offline", "server"])
def any_model(request: pytest.FixtureRequest, server: OpenAiServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The built-in model, and one that speaks HTTP."""
    if request.param == "server":
        monkeypatch.setenv("ORCHESTRA_MODEL", server.model)
    return request.param


@pytest.fixture
def agents_cluster(private_redis: Callable[..., PrivateRedis], tmp_path: Path) -> Iterator[Cluster]:
    """A broker of its own and a store for workers that run agents."""
    with Cluster(tmp_path, private_redis().url) as made:
        yield made
