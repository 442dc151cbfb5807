"""How slots of threads take messages that wait from a Redis broker: at once, or not at all."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from redis import ConnectionPool
from redis.exceptions import ResponseError

from orchestra.runtime.post import Tap
from orchestra.store.redis.wire import packed
from orchestra.testing.clock import Clock
from tests.processes import least
from tests.servers import PrivateRedis

NEXT = packed(("LMPOP", 1, "list", "RIGHT", "COUNT", 1))


@pytest.fixture
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as made:
        yield made


@pytest.fixture
def pool(server: PrivateRedis) -> Any:
    return ConnectionPool.from_url(server.url)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that stalls is waited for, save where that is what happens."""
    monkeypatch.setattr("orchestra.runtime.post._PATIENCE_S", 60.0)


def test_what_waits_is_taken_and_nothing_is_waited_for(server: PrivateRedis, pool: Any) -> None:
    with server.client() as client:
        client.lpush("list", "one", "two")
    tap = Tap()
    assert [tap.ask(pool, NEXT) for _ in range(3)] == [["list", ["one"]], ["list", ["two"]], None]


def test_a_broker_that_refuses_says_so(pool: Any) -> None:
    tap = Tap()
    with pytest.raises(ResponseError):
        tap.ask(pool, packed(("LMPOP", "nonsense")))
    assert tap.ask(pool, NEXT) is None


def test_a_broker_that_hangs_is_waited_for_once_in_a_while(
    server: PrivateRedis, pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    tap = Tap(clock)

    def ask_often() -> float:
        begun = time.monotonic()
        assert [tap.ask(pool, NEXT) for _ in range(100)] == [None] * 100
        return time.monotonic() - begun

    with monkeypatch.context() as patch:
        patch.setattr("orchestra.runtime.post._PATIENCE_S", 1.0)
        assert tap.ask(pool, NEXT) is None
        server.freeze()
        try:
            assert tap.ask(pool, NEXT) is None  # after a second
            assert least(ask_often, 0.5) < 0.5
        finally:
            server.thaw()
    with server.client() as client:
        client.delete("list")
        client.lpush("list", "one")
    clock.now += 2.0
    assert tap.ask(pool, NEXT) == ["list", ["one"]]


def test_a_broker_that_was_restarted_is_asked_again(server: PrivateRedis, pool: Any) -> None:
    clock = Clock()
    tap = Tap(clock)
    assert tap.ask(pool, NEXT) is None
    server.kill()
    assert tap.ask(pool, NEXT) is None
    server.start()
    with server.client() as client:
        client.lpush("list", "one")
    clock.now += 61.0
    assert tap.ask(pool, NEXT) == ["list", ["one"]]
