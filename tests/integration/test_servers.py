"""The servers that other tests stand on: found or started, isolated, cleaned, and killed for real."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import amqp
import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests import servers
from tests.servers import HOST, Missing, PrivateRedis, find_binary, postgres_server, rabbitmq_server, redis_server


def ping(url: str) -> bool:
    with redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0)) as client:
        return bool(client.ping())


def test_two_runs_on_one_redis_get_databases_of_their_own(private_redis: Callable[..., PrivateRedis]) -> None:
    shared = private_redis()
    with redis_server(shared.port) as first, redis_server(shared.port) as second:
        assert first != second
        assert urlsplit(first).port == urlsplit(second).port == shared.port


def test_only_the_own_redis_database_is_emptied_and_a_used_one_is_never_taken(
    private_redis: Callable[..., PrivateRedis],
) -> None:
    shared = private_redis()
    with redis.Redis(port=shared.port, db=15) as somebody:
        somebody.set("precious", "1")
        with redis_server(shared.port) as url, redis.Redis.from_url(url) as client:
            assert client.dbsize() == 0
            client.set("ours", "1")
        assert somebody.get("precious") == b"1"
        assert list(somebody.info("keyspace")) == ["db15"]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port on which nobody answers: whoever has it keeps others from it, and does not listen."""
    with socket.socket() as held:
        held.bind((HOST, 0))
        yield held.getsockname()[1]


def test_a_private_redis_starts_when_none_answers(silent_port: int) -> None:
    with redis_server(silent_port) as url:
        assert ping(url)
    with pytest.raises(redis.ConnectionError):
        ping(url)


def test_a_killed_redis_with_appendonly_comes_back_with_its_data(private_redis: Callable[..., PrivateRedis]) -> None:
    server = private_redis(appendonly=True)
    with server.client() as client:
        client.set("kept", "1")
    server.kill()
    with pytest.raises(redis.ConnectionError):
        ping(server.url)
    server.restart()
    with server.client() as client:
        assert client.get("kept") == b"1"
    server.flush()
    with server.client() as client:
        assert client.dbsize() == 0


def test_a_killed_redis_without_appendonly_forgets(private_redis: Callable[..., PrivateRedis]) -> None:
    server = private_redis()
    with server.client() as client:
        client.set("lost", "1")
    server.restart()
    with server.client() as client:
        assert client.get("lost") is None


def test_a_rabbitmq_virtual_host_takes_messages(rabbitmq_url: str) -> None:
    assert publish_and_get(rabbitmq_url) == "hello"


def test_a_private_rabbitmq_starts_when_none_answers(silent_port: int) -> None:
    with rabbitmq_server(silent_port) as url:
        assert publish_and_get(url) == "hello"
    with pytest.raises(OSError, match="refused"):
        publish_and_get(url)


def publish_and_get(url: str) -> str:
    parts = urlsplit(url)
    with amqp.Connection(f"{parts.hostname}:{parts.port}", virtual_host=parts.path[1:]) as connection:
        channel = connection.channel()
        channel.queue_declare("q", auto_delete=True)
        channel.basic_publish(amqp.Message("hello"), routing_key="q")
        message = channel.basic_get("q", no_ack=True)
        assert message is not None
        return message.body


def test_a_postgres_database_is_created_and_dropped() -> None:
    with postgres_server() as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_stat_user_tables").fetchone() == (0,)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)


def test_a_private_postgres_starts_when_none_answers(silent_port: int) -> None:
    with postgres_server(silent_port) as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_server_that_cannot_be_had_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_search_path", lambda: "")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Missing, match=r"Redis: no server answers .* no 'redis-server' .* Install 'redis-server'"):
        PrivateRedis()


def test_a_missing_server_is_installed_where_that_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package manager is a stand-in that fails before its first `update`, as on a machine with stale lists."""
    updated, server = tmp_path / "updated", tmp_path / "some-server"
    commands = {
        "apt-get": f'case "$*" in *update*) touch {updated};; *) test -e {updated} && cp -p $0 {server};; esac',
        "sudo": 'shift; exec "$@"',
    }
    for name, body in commands.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert find_binary("some-server", package="some-package", server="Some") == str(server)
