"""The Redis transport: what it sends is what kombu would send, and of steps that were delivered Redis keeps nothing."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Consumer, Producer, Queue

from orchestra import Orchestrator
from orchestra.runtime.line import Push
from orchestra.runtime.redis_transport import StepConnection
from orchestra.runtime.routing import HEADER, transport_options
from tests import bodies
from tests.cluster import Cluster
from tests.servers import PrivateRedis

QUEUE = Queue("transport", routing_key="transport")


@pytest.fixture
def server(private_redis: Callable[..., PrivateRedis]) -> PrivateRedis:
    return private_redis()


@pytest.fixture
def connection(server: PrivateRedis) -> Iterator[StepConnection]:
    with StepConnection(server.url, transport_options=transport_options(server.url, {})) as made:
        yield made


class Delivered:
    """A consumer of a queue that holds a step and another message, both delivered."""

    def __init__(self, connection: StepConnection, server: PrivateRedis) -> None:
        self._server = server
        channel: Any = connection.channel()
        for name, headers in (("step", {HEADER: 1}), ("other", {})):
            Producer(channel).publish(name, routing_key=QUEUE.name, headers=headers, declare=[QUEUE])
        self.messages: dict[str, Any] = {}
        with Consumer(channel, [QUEUE], on_message=lambda message: self.messages.update({message.payload: message})):
            while len(self.messages) < 2:
                connection.drain_events(timeout=10)
        self.channel = channel

    @property
    def copies(self) -> int:
        """How many messages Redis keeps, because they are not acknowledged."""
        with self._server.client() as client:
            return int(client.hlen("unacked"))  # type: ignore[arg-type]

    @property
    def waiting(self) -> int:
        """How many messages are in the queue."""
        with self._server.client() as client:
            return int(client.llen(QUEUE.name))  # type: ignore[arg-type]


def test_a_message_that_is_no_step_is_copied_until_it_is_acknowledged_and_a_step_is_not(
    connection: StepConnection, server: PrivateRedis
) -> None:
    held = Delivered(connection, server)
    assert held.copies == 1
    held.messages["step"].ack()
    assert held.copies == 1
    held.messages["other"].ack()
    assert held.copies == 0
    held.channel.close()
    assert held.waiting == 0


def test_what_was_not_acknowledged_goes_back_to_its_queue(connection: StepConnection, server: PrivateRedis) -> None:
    held = Delivered(connection, server)
    assert held.waiting == 0
    held.channel.close()
    assert (held.waiting, held.copies) == (2, 0)


def test_a_step_that_is_rejected_goes_back_if_that_was_asked(connection: StepConnection, server: PrivateRedis) -> None:
    held = Delivered(connection, server)
    held.messages["step"].requeue()
    assert held.waiting == 1
    held.messages["other"].reject()
    assert (held.waiting, held.copies) == (1, 0)


def test_a_channel_goes_on_when_its_connections_were_cut(connection: StepConnection, server: PrivateRedis) -> None:
    channel: Any = connection.channel()
    key = channel.key_of(QUEUE.name, 0)
    channel.push([Push(key, ["one"])])
    with server.client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        channel.push([Push(key, ["two", "three"])])
        assert client.llen(QUEUE.name) == 3


def test_a_connection_that_breaks_while_its_channels_are_closed_can_be_closed_all_the_same(
    server: PrivateRedis,
) -> None:
    connection = StepConnection(server.url, transport_options=transport_options(server.url, {}))
    held: list[Any] = []
    for name, channel in (("one", connection.default_channel), ("two", connection.channel())):
        queue = Queue(name, routing_key=name)
        for headers in ({HEADER: 1}, {}):
            Producer(channel).publish("x", routing_key=name, headers=headers, declare=[queue])
        Consumer(channel, [queue], on_message=held.append).consume()
    while len(held) < 4:
        connection.drain_events(timeout=30)
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=0.1)  # both ask for the next one, and have no answer yet
    server.kill()
    # As Celery's worker does. The first close fails at each channel, and the second one finds them without a way out.
    connection.collect()
    connection.close()
    # The bodies of what was delivered end after that. An error would end the worker.
    for each in held[:2]:
        each.ack()
    for each in held[2:]:
        each.reject()


def test_a_step_is_sent_as_kombu_would_send_it(
    server: PrivateRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cluster(tmp_path, server.url) as cluster:
        ours = message_of(cluster, cluster.orchestrator())
        monkeypatch.setenv("ORCHESTRA_WITHOUT", "redis-transport")
        assert ours == message_of(cluster, cluster.orchestrator())


def message_of(cluster: Cluster, orch: Orchestrator) -> dict[str, Any]:
    """Submit a step, and return its message but for what is different in each."""
    task = orch.submit(bodies.echo, "sent", priority=3)
    message = next(each for each in cluster.messages() if each["headers"]["id"].startswith(task.id))
    for part, name in (("headers", "id"), ("headers", "root_id"), ("properties", "correlation_id")):
        assert task.id in message[part].pop(name)
    del message["raw"], message["size"], message["properties"]["delivery_tag"]
    return {**message, "body": json.loads(base64.b64decode(message["body"]))}


# Many at once


def taken(server: PrivateRedis, count: int) -> tuple[list[str], dict[str, int]]:
    """Publish steps, take them with room for sixteen; return their bodies in order and how often each command ran."""
    options = transport_options(server.url, {"takes_many": True})
    bodies: list[str] = []
    with StepConnection(server.url, transport_options=options) as connection:
        channel: Any = connection.channel()
        for number in range(count):
            headers = {HEADER: 1}
            Producer(channel).publish(f"m{number:02}", routing_key=QUEUE.name, headers=headers, declare=[QUEUE])
        channel.basic_qos(0, 16, False)
        with Consumer(channel, [QUEUE], on_message=lambda each: (bodies.append(each.payload), each.ack())):
            while len(bodies) < count:
                connection.drain_events(timeout=10)
    with server.client() as client:
        stats: Any = client.info("commandstats")
    names = ("blmpop", "brpop")
    return bodies, {name: stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in names}


def test_a_quarter_of_the_room_is_taken_at_once_and_in_order(server: PrivateRedis) -> None:
    bodies, calls = taken(server, 12)
    assert bodies == [f"m{number:02}" for number in range(12)]
    assert calls == {"blmpop": 3, "brpop": 0}


def test_a_server_that_cannot_give_many_at_once_is_asked_for_one_after_the_other(server: PrivateRedis) -> None:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "-blmpop")
    bodies, calls = taken(server, 3)
    assert bodies == ["m00", "m01", "m02"]
    assert calls["brpop"] >= 3


@pytest.mark.parametrize("takes_many", [True, False])
def test_whether_messages_wait_is_said_of_queues_from_which_they_can_be_taken(
    server: PrivateRedis, takes_many: bool
) -> None:
    options = transport_options(server.url, {"takes_many": takes_many})
    with StepConnection(server.url, transport_options=options) as connection:
        channel: Any = connection.channel()
        assert channel.waits([QUEUE.name]) is channel.waits([]) is not takes_many
        Producer(channel).publish("step", routing_key=QUEUE.name, headers={HEADER: 1}, declare=[QUEUE], priority=3)
        assert [channel.waits(queues) for queues in ([QUEUE.name], ["other", QUEUE.name])] == [True, True]
        assert channel.waits(["other"]) is not takes_many
        assert [channel.waits([QUEUE.name], last) for last in (2, 3)] == [not takes_many, True]
        assert [channel.take(QUEUE.name, 1, last) is None for last in (2, 3)] == [not takes_many] * 2
        assert channel.waits([QUEUE.name]) is not takes_many  # the second one took it
