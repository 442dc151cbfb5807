"""Fixtures of crash tests: a broker of each kind, and a cluster on it."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.brokers import Broker, RabbitBroker, RedisBroker
from tests.cluster import Cluster


def make_broker(kind: str, request: pytest.FixtureRequest) -> Broker:
    """Return a broker of a kind. Servers are looked for when a test of theirs runs."""
    if kind == "rabbitmq":
        return RabbitBroker(request.getfixturevalue("rabbit"), f"q-{uuid.uuid4().hex[:8]}")
    return RedisBroker(request.getfixturevalue("private_redis")())


@pytest.fixture(params=["redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each kind of broker in turn."""
    return make_broker(request.param, request)


@pytest.fixture
def redis_broker(request: pytest.FixtureRequest) -> RedisBroker:
    """Redis, for tests to which the broker is all the same."""
    return RedisBroker(request.getfixturevalue("private_redis")())


@pytest.fixture
def cluster(broker: Broker, tmp_path: Path) -> Iterator[Cluster]:
    """A broker and a SQLite store without workers."""
    with Cluster(tmp_path, broker.url, queue=broker.queue) as made:
        yield made


@pytest.fixture
def on_redis(redis_broker: RedisBroker, tmp_path: Path) -> Iterator[Cluster]:
    """The same on Redis."""
    with Cluster(tmp_path, redis_broker.url) as made:
        yield made
