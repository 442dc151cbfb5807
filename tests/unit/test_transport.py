"""The in-process broker: wake-up, priorities, prefetch, redelivery, isolation."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Thread
from typing import Any

import pytest
from celery import Celery
from kombu import Connection, Consumer, Exchange, Producer, Queue

from orchestra.runtime.transport import MemoryBroker, Transport, make_transport
from tests.processes import least


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def connection(broker: MemoryBroker) -> Iterator[Connection]:
    with Connection(transport=broker.transport) as connection:
        yield connection


def publish(connection: Connection, body: Any, *, queue: str = "q", **options: Any) -> None:
    Producer(connection.channel()).publish(body, exchange="", routing_key=queue, **options)


def drain(connection: Connection) -> None:
    """Deliver what can be delivered now."""
    while True:
        try:
            connection.drain_events(timeout=0)
        except TimeoutError:
            return


def everything(connection: Connection, *queues: str) -> list[Any]:
    """Take and acknowledge all messages of the queues, in the order of delivery."""
    bodies: list[Any] = []

    def on_message(body: Any, message: Any) -> None:
        bodies.append(body)
        message.ack()

    channel = connection.channel()
    with Consumer(channel, [Queue(name) for name in queues or ("q",)], callbacks=[on_message]):
        drain(connection)
    channel.close()
    return bodies


@contextmanager
def draining(connection: Connection, *, timeout: float | None = None) -> Iterator["SimpleQueue[BaseException | None]"]:
    """Run one `drain_events` on a thread; the queue gets how it ended."""
    ended: SimpleQueue[BaseException | None] = SimpleQueue()

    def run() -> None:
        try:
            connection.drain_events(timeout=timeout)
        except BaseException as error:
            ended.put(error)
        else:
            ended.put(None)

    thread = Thread(target=run, daemon=True)
    thread.start()
    yield ended
    thread.join(30)
    assert not thread.is_alive()


def test_a_waiting_consumer_wakes_on_publish(broker: MemoryBroker, connection: Connection) -> None:
    delays: list[float] = []
    callbacks = [lambda body, message: delays.append(time.perf_counter() - body)]
    with (
        Consumer(connection, [Queue("q")], callbacks=callbacks, no_ack=True),
        Connection(transport=broker.transport) as other,
    ):

        def median() -> float:
            delays.clear()
            for _ in range(20):
                with draining(connection) as ended:
                    publish(other, time.perf_counter())
                    assert ended.get(timeout=30) is None
            return sorted(delays)[10]

        assert least(median, 0.005) < 0.005


def test_an_idle_consumer_costs_no_cpu(connection: Connection) -> None:
    def used() -> float:
        before = time.thread_time()
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.5)
        return time.thread_time() - before

    with Consumer(connection, [Queue("q")]):
        assert least(used, 0.005) < 0.005


def test_draining_an_empty_queue_times_out_in_time(connection: Connection) -> None:
    with Consumer(connection, [Queue("q")]):

        def takes() -> float:
            started = time.perf_counter()
            with pytest.raises(socket.timeout):
                connection.drain_events(timeout=0.05)
            return time.perf_counter() - started

        assert 0.04 < least(takes, 0.2) < 0.2


def test_draining_can_be_interrupted_from_another_thread(connection: Connection) -> None:
    with Consumer(connection, [Queue("q")]), draining(connection) as ended:
        connection.transport.interrupt()
        assert isinstance(ended.get(timeout=30), TimeoutError)


def test_an_interrupt_before_the_wait_is_not_lost(connection: Connection) -> None:
    with Consumer(connection, [Queue("q")]):
        connection.transport.interrupt()
        with draining(connection) as ended:
            assert isinstance(ended.get(timeout=30), TimeoutError)


def test_the_lowest_number_is_served_first_and_equals_in_order(connection: Connection) -> None:
    for body, priority in [("a5", 5), ("b9", 9), ("c1", 1), ("d5", 5), ("e10", 10), ("f1", 1)]:
        publish(connection, body, priority=priority)
    assert everything(connection) == ["c1", "f1", "a5", "d5", "b9", "e10"]


@pytest.mark.parametrize("unstated", [0, None])
def test_a_message_without_priority_counts_as_five(connection: Connection, unstated: int | None) -> None:
    publish(connection, "six", priority=6)
    publish(connection, "unstated", priority=unstated)
    publish(connection, "four", priority=4)
    assert everything(connection) == ["four", "unstated", "six"]


def test_priority_holds_across_the_queues_of_a_consumer(connection: Connection) -> None:
    publish(connection, "low", queue="a", priority=8)
    publish(connection, "high", queue="b", priority=2)
    publish(connection, "middle", queue="a", priority=5)
    assert everything(connection, "a", "b") == ["high", "middle", "low"]


def test_no_more_than_the_prefetch_count_is_delivered(connection: Connection) -> None:
    held: list[Any] = []
    for number in range(5):
        publish(connection, number)
    channel = connection.channel()
    with Consumer(channel, [Queue("q")], callbacks=[lambda _, message: held.append(message)], prefetch_count=2):
        drain(connection)
        assert len(held) == 2
        held[0].ack()
        drain(connection)
        assert len(held) == 3


def test_an_acknowledgement_of_another_thread_wakes_a_full_consumer(connection: Connection) -> None:
    held: SimpleQueue[Any] = SimpleQueue()
    publish(connection, "first")
    publish(connection, "second")
    with Consumer(
        connection.channel(), [Queue("q")], callbacks=[lambda _, message: held.put(message)], prefetch_count=1
    ):
        connection.drain_events(timeout=30)
        first = held.get(timeout=30)
        with draining(connection) as ended:
            assert held.empty()
            first.ack()
            assert ended.get(timeout=30) is None
        assert held.get(timeout=30).payload == "second"


def test_a_raised_prefetch_count_wakes_a_full_consumer(connection: Connection) -> None:
    held: list[Any] = []
    publish(connection, "first")
    publish(connection, "second")
    consumer = Consumer(connection.channel(), [Queue("q")], callbacks=[lambda _, m: held.append(m)], prefetch_count=1)
    with consumer:
        connection.drain_events(timeout=30)
        with draining(connection) as ended:
            consumer.qos(prefetch_count=2)
            assert ended.get(timeout=30) is None
    assert len(held) == 2


def test_a_requeued_message_comes_again_behind_its_equals(connection: Connection) -> None:
    for body in ("first", "second"):
        publish(connection, body, priority=3)
    publish(connection, "later", priority=4)
    queue = Queue("q")(connection.channel())
    message = queue.get()
    assert not message.delivery_info.get("redelivered")
    message.requeue()
    assert queue.get().payload == "second"
    again = queue.get()
    assert again.payload == "first"
    assert again.delivery_info["redelivered"]


def test_a_rejected_message_is_gone(broker: MemoryBroker, connection: Connection) -> None:
    publish(connection, "x")
    Queue("q")(connection.channel()).get().reject()
    assert broker.size("q") == 0


def test_closing_a_connection_gives_unacknowledged_messages_back_in_their_places(broker: MemoryBroker) -> None:
    with Connection(transport=broker.transport) as first:
        for number in range(4):
            publish(first, number)
        queue = Queue("q")(first.channel())
        taken = [queue.get() for _ in range(3)]
        taken[1].ack()
    with Connection(transport=broker.transport) as second:
        assert everything(second) == [0, 2, 3]


def test_closing_a_connection_leaves_the_queues_and_the_bindings(broker: MemoryBroker) -> None:
    exchange = Exchange("orders", "topic")
    with Connection(transport=broker.transport) as first:
        Queue("q", exchange, "order.#")(first.channel()).declare()
        publish(first, "before")
    with Connection(transport=broker.transport) as second:
        Producer(second.channel(), exchange).publish("after", routing_key="order.new")
        assert everything(second) == ["before", "after"]


def test_an_acknowledgement_after_the_close_is_ignored(broker: MemoryBroker) -> None:
    with Connection(transport=broker.transport) as connection:
        publish(connection, "x")
        message = Queue("q")(connection.channel()).get()
    message.ack()
    assert broker.size("q") == 1


def test_closing_a_connection_ends_its_drain(broker: MemoryBroker) -> None:
    connection = Connection(transport=broker.transport)
    Consumer(connection, [Queue("q")]).consume()
    with draining(connection) as ended:
        connection.transport.close_connection(connection.connection)
        assert isinstance(ended.get(timeout=30), TimeoutError)


def test_brokers_share_nothing() -> None:
    one, two = MemoryBroker(), MemoryBroker()
    with Connection(transport=one.transport) as first, Connection(transport=two.transport) as second:
        publish(first, "only here")
        assert everything(second) == []
        assert everything(first) == ["only here"]
    assert make_transport() is not make_transport()


def test_a_fanout_reaches_every_queue_and_each_copy_is_acknowledged_alone(connection: Connection) -> None:
    exchange = Exchange("news", "fanout")
    channel = connection.channel()
    queues = [Queue(name, exchange)(channel) for name in ("a", "b")]
    for queue in queues:
        queue.declare()
    Producer(channel, exchange).publish("hello")
    copies = [queue.get() for queue in queues]
    assert [copy.payload for copy in copies] == ["hello", "hello"]
    copies[0].ack()
    copies[1].requeue()
    assert queues[0].get() is None
    assert queues[1].get().payload == "hello"


def test_a_broadcast_goes_before_every_task(connection: Connection) -> None:
    exchange = Exchange("control", "fanout")
    channel = connection.channel()
    Queue("mailbox", exchange)(channel).declare()
    publish(connection, "task", priority=1)
    Producer(channel, exchange).publish("broadcast")
    assert everything(connection, "q", "mailbox") == ["broadcast", "task"]


def test_size_purge_and_delete(broker: MemoryBroker, connection: Connection) -> None:
    queue = Queue("q", Exchange("q"), "q")(connection.channel())
    queue.declare()
    for number in range(3):
        publish(connection, number)
    assert queue.queue_declare().message_count == 3
    assert queue.purge() == 3
    assert broker.size("q") == 0
    publish(connection, "x")
    queue.delete()
    assert not broker.known("q")
    assert not broker.state.has_binding("q", "q", "q")


def test_an_auto_delete_queue_goes_with_its_last_consumer(broker: MemoryBroker, connection: Connection) -> None:
    queue = Queue("reply", Exchange("replies"), "reply", auto_delete=True)
    with Consumer(connection.channel(), [queue]):
        assert broker.known("reply")
    assert not broker.known("reply")
    assert broker.state.exchanges["replies"]["table"] == []


def test_binary_and_compressed_bodies_arrive_unchanged(connection: Connection) -> None:
    publish(connection, b"\x00\xff\xfe", content_type="application/octet-stream", content_encoding="binary")
    publish(connection, {"text": "ä" * 100}, compression="zlib")
    assert everything(connection) == [b"\x00\xff\xfe", {"text": "ä" * 100}]


def test_nothing_is_lost_or_doubled_with_many_publishing_and_acknowledging_threads(broker: MemoryBroker) -> None:
    publishers, each = 6, 400
    received: list[Any] = []
    unsettled: SimpleQueue[Any] = SimpleQueue()

    def send(number: int) -> None:
        with Connection(transport=broker.transport) as connection:
            for index in range(each):
                publish(connection, [number, index], priority=index % 10 + 1)

    def acknowledge() -> None:
        while (message := unsettled.get()) is not None:
            message.ack()

    threads = [Thread(target=send, args=(number,)) for number in range(publishers)]
    ackers = [Thread(target=acknowledge) for _ in range(3)]
    with Connection(transport=broker.transport) as connection:
        channel = connection.channel()
        consumer = Consumer(channel, [Queue("q")], prefetch_count=5)
        consumer.register_callback(lambda body, message: (received.append(tuple(body)), unsettled.put(message)))
        with consumer:
            for thread in [*threads, *ackers]:
                thread.start()
            while len(received) < publishers * each:
                connection.drain_events(timeout=30)
            for _ in ackers:
                unsettled.put(None)
            for thread in [*threads, *ackers]:
                thread.join(30)
        assert sorted(received) == [(number, index) for number in range(publishers) for index in range(each)]
        assert broker.size("q") == 0
        assert not channel.qos.delivered


def test_a_sent_message_is_one_that_celery_understands(broker: MemoryBroker, connection: Connection) -> None:
    broker.send("q", '[[1], {}, {"chain": null}]', {"task": "add", "id": "t1"}, priority=2)
    message = Queue("q")(connection.channel()).get()
    assert message.payload == [[1], {}, {"chain": None}]
    assert message.headers == {"task": "add", "id": "t1"}
    assert message.properties["correlation_id"] == "t1"
    assert message.properties["priority"] == 2


def test_ten_thousand_messages_pass_in_a_second(connection: Connection) -> None:
    count = 500
    channel = connection.channel()
    producer, queue = Producer(channel), Queue("q")(channel)

    def passed() -> float:
        started = time.thread_time()  # others on the machine may take all the rest
        for number in range(count):
            producer.publish([number], exchange="", routing_key="q")
        for _ in range(count):
            queue.get().ack()
        return time.thread_time() - started

    seconds = least(passed, count / 10_000, 200)
    print(f"publish and get: {count / seconds:,.0f} messages per second")
    assert seconds < count / 10_000


def test_every_connection_of_an_application_is_on_its_broker(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://nowhere:1/0")
    app = Celery("transport-test", set_as_current=False)
    app.conf.update(broker.settings)
    transports = [
        app.connection().transport,
        app.connection_for_read().transport,
        app.connection_for_write().transport,
        app.pool.acquire().transport,
        app.producer_pool.acquire().connection.transport,
    ]
    assert all(type(transport) is broker.transport for transport in transports)
    assert issubclass(broker.transport, Transport)
    assert app.connection().as_uri() == "memory://"
    app.send_task("anything", queue="q")
    assert broker.size("q") == 1


def test_clearing_the_broker_drops_messages_and_keeps_consumers(broker: MemoryBroker, connection: Connection) -> None:
    bodies: list[Any] = []
    with Consumer(connection, [Queue("q")], callbacks=[lambda body, _: bodies.append(body)], no_ack=True):
        publish(connection, "lost")
        publish(connection, "lost", queue="other")
        broker.clear()
        publish(connection, "kept")
        drain(connection)
    assert bodies == ["kept"]
    assert not broker.known("other")
