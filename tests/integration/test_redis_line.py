"""Messages whose answers are read later: what becomes of them, and of what the broker says of them."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis import ConnectionPool

from orchestra.runtime.line import Line, Push, Unsent
from tests import bodies
from tests.cluster import Cluster
from tests.processes import wait_until
from tests.servers import PrivateRedis

KEY = "line"


@pytest.fixture
def server(private_redis: Callable[..., PrivateRedis]) -> PrivateRedis:
    return private_redis()


class Ends:
    """A line, and what its broker refused."""

    def __init__(self, server: PrivateRedis, **options: float) -> None:
        self._server = server
        self.refusals: list[tuple[int, str]] = []
        self.line = Line(lambda count, error: self.refusals.append((count, str(error))), **options)
        self.pool = ConnectionPool.from_url(server.url)
        self.line.open(self.pool)

    def send(self, *texts: str, key: str = KEY) -> None:
        self.line.send([Push(key, texts)])

    @property
    def arrived(self) -> list[str]:
        with self._server.client() as client:
            found: Any = client.lrange(KEY, 0, -1)
        return [each.decode() for each in reversed(found)]


@pytest.fixture
def ends(server: PrivateRedis) -> Iterator[Ends]:
    made = Ends(server)
    yield made
    made.line.close()
    made.pool.disconnect()


@pytest.fixture
def cluster(server: PrivateRedis, tmp_path: Path) -> Iterator[Cluster]:
    """A Redis and a store without workers."""
    with Cluster(tmp_path, server.url) as made:
        yield made


def named(cluster: Cluster) -> list[str]:
    """Return the runs whose steps wait in the broker."""
    return sorted(each["headers"]["id"].partition(".")[0] for each in cluster.messages())


# The line itself


def test_messages_arrive_in_order_and_nobody_waits_for_a_broker_that_is_busy(ends: Ends, server: PrivateRedis) -> None:
    ends.send("one")
    wait_until(lambda: ends.arrived == ["one"], 30, "the message")
    server.freeze()
    try:
        ends.send("two", "three")  # the broker answers nothing before it is thawed
    finally:
        server.thaw()
    ends.send("four")
    wait_until(lambda: ends.arrived == ["one", "two", "three", "four"], 30, "the messages")


def test_a_refusal_is_told_before_the_next_message_goes_and_ends_the_line(ends: Ends, server: PrivateRedis) -> None:
    with server.client() as client:
        client.set("text", "no list")
    ends.line.send([Push("text", ["a", "b"]), Push(KEY, ["c"])])
    with pytest.raises(Unsent) as unsent:
        ends.send("d")
    assert unsent.value.before == ()  # sending again what was refused is for those who find lost messages
    assert [(count, "WRONGTYPE" in text) for count, text in ends.refusals] == [(2, True)]
    assert not ends.line.is_open
    assert ends.arrived == ["c"]
    ends.line.open(ends.pool)
    ends.send("d")
    wait_until(lambda: ends.arrived == ["c", "d"], 30, "the message")


def test_a_refusal_is_told_at_the_end(ends: Ends, server: PrivateRedis) -> None:
    with server.client() as client:
        client.set("text", "no list")
    ends.send("a", key="text")
    ends.line.close(30)
    assert [count for count, _text in ends.refusals] == [1]


def test_a_connection_that_was_cut_is_noticed_before_something_is_lost_on_it(ends: Ends, server: PrivateRedis) -> None:
    ends.send("one")
    wait_until(lambda: ends.arrived == ["one"], 30, "the message")
    with server.client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    with pytest.raises(Unsent) as unsent:
        ends.send("two")
    assert unsent.value.before == ()
    assert not ends.line.is_open


def test_what_a_broker_did_not_answer_before_it_died_is_given_back(ends: Ends, server: PrivateRedis) -> None:
    server.freeze()
    ends.line.send([Push(KEY, ["one"]), Push("other", ["two"])])
    server.kill()
    with pytest.raises(Unsent) as unsent:
        ends.send("three")
    assert unsent.value.before == (Push(KEY, ["one"]), Push("other", ["two"]))


def test_what_is_not_answered_for_long_is_given_back(server: PrivateRedis) -> None:
    impatient = Ends(server, patience_s=0.2)
    server.freeze()
    try:
        impatient.send("one")
        with pytest.raises(Unsent) as unsent:
            impatient.send("two")
        assert unsent.value.before == (Push(KEY, ("one",)),)
    finally:
        server.thaw()


def test_the_end_waits_for_a_frozen_broker_a_moment_only(server: PrivateRedis) -> None:
    ends = Ends(server, patience_s=60)
    server.freeze()
    try:
        ends.send("one")
        begun = time.monotonic()
        ends.line.close()
        assert time.monotonic() - begun < 30
    finally:
        server.thaw()
        ends.pool.disconnect()
    wait_until(lambda: ends.arrived == ["one"], 30, "what was on its way")


def test_a_fork_has_no_line_and_leaves_that_of_its_parent_alone(ends: Ends) -> None:
    ends.send("before")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            was_open = ends.line.is_open
            ends.line.open(ends.pool)
            ends.send("child")
            ends.line.close()
            status = 2 if was_open else 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    ends.send("after")
    wait_until(lambda: ends.arrived == ["before", "child", "after"], 30, "the messages")
    assert ends.refusals == []


def test_threads_share_a_line(ends: Ends) -> None:
    def send(number: int) -> None:
        for n in range(100):
            ends.send(f"{number}-{n}")

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    ends.line.close(30)
    assert sorted(ends.arrived) == sorted(f"{number}-{n}" for number in range(8) for n in range(100))
    assert ends.refusals == []


# An orchestrator that sends over it


def test_what_was_unanswered_when_the_broker_died_is_sent_again_with_the_next(
    cluster: Cluster, server: PrivateRedis
) -> None:
    orch = cluster.orchestrator()
    orch.submit(bodies.noop)
    server.freeze()
    lost = orch.submit(bodies.noop)  # nobody waits for the answer
    server.kill()
    server.restart()
    assert named(cluster) == []
    following = orch.submit(bodies.noop)
    wait_until(lambda: named(cluster) == sorted([lost.id, following.id]), 30, "both messages")


def test_a_program_may_end_right_after_its_last_submit(cluster: Cluster) -> None:
    program = (
        "import os; from orchestra import Orchestrator; from tests import bodies;"
        f"orch = Orchestrator(broker={cluster.broker!r}, store={cluster.store!r}, modules=['tests']);"
        "print(*[orch.submit(bodies.noop).id for _ in range(3)], flush=True); os._exit(0)"
    )
    ended = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    wait_until(lambda: named(cluster) == sorted(ended.stdout.split()), 30, "three messages")


def test_a_broker_that_became_full_is_said_at_the_end(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    orch = cluster.orchestrator()
    orch.submit(bodies.noop)
    with cluster.redis() as client, caplog.at_level(logging.WARNING, "orchestra"):
        client.config_set("maxmemory", "1")
        orch.submit(bodies.noop)
        assert "could not be published" not in caplog.text
        wait_until(lambda: refused(client) == 1, 30, "the broker to have refused it")
        orch.close()
        assert "1 messages could not be published and will be sent again" in caplog.text
        assert "maxmemory" in caplog.text
        client.config_set("maxmemory", "0")


def refused(client: redis.Redis) -> int:
    """Return how many messages a broker did not take."""
    stats: Any = client.info("commandstats")
    return stats["cmdstat_lpush"]["rejected_calls"]


def test_queues_and_priorities_that_alternate_use_one_line(cluster: Cluster, server: PrivateRedis) -> None:
    orch = cluster.orchestrator()
    kinds = [(queue, priority) for queue in ("a", "b") for priority in (1, 10)]
    for queue, priority in kinds:
        orch.submit(bodies.noop, queue=queue, priority=priority)
    with server.client() as client:
        before: Any = client.info("stats")
        for queue, priority in kinds * 5:
            orch.submit(bodies.noop, queue=queue, priority=priority)
        keys: Any = client.keys("[ab]*")
        wait_until(lambda: sum(client.llen(key) for key in keys) == 24, 30, "the messages")
        after: Any = client.info("stats")
    assert after["total_connections_received"] - before["total_connections_received"] <= 2


def test_answers_may_be_waited_for(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRA_WITHOUT", "answers-later")
    orch = cluster.orchestrator()
    for _ in range(3):
        task = orch.submit(bodies.noop)
        assert task.id in named(cluster)
