"""Stores are killed and come back: bodies that finished are recorded when they do, and once."""

from pathlib import Path

import pytest

from tests.chaos.brokers import RedisBroker
from tests.chaos.test_brokers_fail import through
from tests.cluster import Cluster
from tests.servers import PrivatePostgres, PrivateRedis

pytestmark = pytest.mark.slow


def test_postgresql_is_restarted_twice_during_a_run(redis_broker: RedisBroker, tmp_path: Path) -> None:
    with PrivatePostgres() as server, Cluster(tmp_path, redis_broker.url, store=server.url) as cluster:
        through(cluster, server.restart)


def test_a_redis_store_is_restarted_twice_during_a_run(redis_broker: RedisBroker, tmp_path: Path) -> None:
    with PrivateRedis(appendonly=True) as server, Cluster(tmp_path, redis_broker.url, store=server.url) as cluster:
        through(cluster, server.restart)
