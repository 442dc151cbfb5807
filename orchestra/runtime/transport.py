"""The in-process broker: a kombu transport that wakes on publish and serves strict priorities.

The stock in-memory transport polls once a second, knows no priorities, and keeps its queues in class attributes, so
that every application of the process shares them. Here the state belongs to one `MemoryBroker`. Kombu takes a
transport by its class, hence each broker makes a class of its own, and an application that is given this class opens
every one of its connections on this broker and on no other:

    broker = MemoryBroker()
    app = Celery("embedded", set_as_current=False)
    app.conf.update(broker.settings)

Two locks. `topology` guards exchanges and bindings, which change rarely. `lock` guards everything that a message
touches (queues, unacknowledged messages, subscriptions), and every wait is on a condition of that lock: a publish, an
acknowledgement that frees a prefetch slot, or a close is seen at once, and an idle connection costs nothing. Where
both are needed, `topology` is taken first.
"""

# kombu has no usable types for what a transport overrides.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportIncompatibleMethodOverride=false, reportUnknownParameterType=false, reportMissingTypeArgument=false

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from threading import Condition, Lock, RLock
from time import monotonic
from typing import Any, ClassVar

from kombu.message import Message as BaseMessage
from kombu.transport import base, virtual

Raw = dict[str, Any]
"""A message as it lies in a queue: body, headers, content type and encoding, properties."""

BROADCAST = 0
"""Broadcasts go before every task: remote control has to work under load."""

UNSTATED = 5
"""The priority of a message that states none (kombu publishes such messages with 0)."""


@dataclass(slots=True, eq=False)
class Queue:
    """The waiting messages of one queue, lowest priority number first, oldest first within one priority."""

    name: str
    auto_delete: bool = False
    heap: list[tuple[int, int, Raw]] = field(default_factory=list[tuple[int, int, Raw]])
    subscribers: "list[Subscription]" = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Subscription:
    """One consumer: a channel that wants the messages of a queue."""

    tag: str
    channel: "Channel"
    queue: Queue
    callback: Callable[[BaseMessage], Any]
    no_ack: bool

    def wants(self) -> bool:
        """Say whether a message may be handed over now. Needs the broker's lock."""
        return self.no_ack or self.channel.qos.can_consume()


class MemoryBroker:
    """One broker living in this process: its queues, and the transport class that leads to them."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.topology = RLock()
        self.state = virtual.BrokerState()
        self.sequence = count(1)
        self._queues: dict[str, Queue] = {}
        self.transport: type[Transport] = type("MemoryTransport", (Transport,), {"broker": self})

    @property
    def settings(self) -> Mapping[str, Any]:
        """The Celery settings that put every connection of an application on this broker.

        The class decides, the URL is for display, so a CELERY_BROKER_URL in the environment, which beats every
        setting, does not divert the application (except one of the form `a+b://`, which names a transport itself).
        """
        return {"broker_url": "memory://", "broker_transport": self.transport}

    def send(self, queue: str, body: str | bytes, headers: Raw, *, priority: int | None = None) -> None:
        """Put one JSON message straight into a queue: the short way, without a connection or a channel.

        `priority` is 1 (first) to 10 (last). The message is what Celery's protocol 2 would have sent.
        """
        properties: Raw = {
            "correlation_id": headers.get("id"),
            "reply_to": "",
            "delivery_mode": 2,
            "priority": priority,
            "delivery_info": {"exchange": "", "routing_key": queue},
        }
        raw: Raw = {
            "body": body,
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": headers,
            "properties": properties,
        }
        self.put(queue, raw, priority or UNSTATED)

    def put(self, name: str, raw: Raw, priority: int, sequence: int | None = None) -> None:
        """Queue a message and wake who waits for it. An old `sequence` gives it back its old place."""
        with self.lock:
            queue = self.queue(name)
            heappush(queue.heap, (priority, next(self.sequence) if sequence is None else sequence, raw))
            for subscription in queue.subscribers:
                # A consumer whose prefetch slots are full would only wake up to go back to sleep.
                if subscription.wants():
                    subscription.channel.transport.ready.notify()

    def queue(self, name: str) -> Queue:
        """Return the queue of that name, made on first use, as every memory broker does. Needs the lock."""
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = Queue(name)
        return queue

    def known(self, name: str) -> bool:
        """Say whether the queue exists."""
        with self.lock:
            return name in self._queues

    def size(self, name: str) -> int:
        """Return how many messages wait in a queue; delivered and unacknowledged ones do not count."""
        with self.lock:
            queue = self._queues.get(name)
            return len(queue.heap) if queue else 0

    def purge(self, name: str) -> int:
        """Drop the waiting messages of a queue and return how many there were."""
        with self.lock:
            queue = self._queues.get(name)
            if queue is None:
                return 0
            size = len(queue.heap)
            queue.heap.clear()
            return size

    def delete(self, name: str) -> None:
        """Forget a queue, its messages and its consumers."""
        with self.lock:
            queue = self._queues.pop(name, None)
            for subscription in list(queue.subscribers) if queue else ():
                subscription.channel.forget(subscription)

    def clear(self) -> None:
        """Drop all messages and queues, as a restart of a broker that keeps nothing does; consumers stay."""
        with self.lock:
            for name, queue in list(self._queues.items()):
                queue.heap.clear()
                if not queue.subscribers:
                    del self._queues[name]


def make_transport() -> "type[Transport]":
    """Make a transport class on a new broker of its own, to be given to `kombu.Connection(transport=...)`."""
    return MemoryBroker().transport


class Message(virtual.Message):
    """A delivered message. Its tag is made at delivery, so that copies in several queues are told apart."""

    def __init__(self, payload: Raw, channel: "Channel | None" = None, tag: Any = None, **kwargs: Any) -> None:
        self._raw = payload
        properties = payload["properties"]
        BaseMessage.__init__(
            self,
            body=payload.get("body"),
            delivery_tag=tag,
            content_type=payload.get("content-type"),
            content_encoding=payload.get("content-encoding"),
            delivery_info=properties.get("delivery_info"),
            properties=properties,
            headers=payload.get("headers"),
            postencode="utf-8",
            channel=channel,
            **kwargs,
        )


class Unacked:
    """The messages that a channel has handed out and not heard of yet, and how many of them it may hold."""

    __slots__ = ("delivered", "prefetch_count")

    def __init__(self) -> None:
        self.delivered: dict[int, tuple[str, int, int, Raw]] = {}
        """Delivery tag → queue, priority, sequence, message."""
        self.prefetch_count = 0

    def can_consume(self) -> bool:
        """Say whether one more message may be handed out. Needs the broker's lock."""
        return not self.prefetch_count or len(self.delivered) < self.prefetch_count


class Channel(virtual.Channel):
    """A channel on a `MemoryBroker`: what a message passes through is overridden, declarations are kombu's."""

    Message = Message
    supports_fanout = True
    # No text form is needed inside one process.
    body_encoding: Any = None
    from_transport_options = ()

    connection: Any

    def __init__(self, connection: "Transport", **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        # kombu clears `connection` at the close; other threads may still acknowledge then.
        self.transport = connection
        self.broker = connection.broker
        self._unacked = Unacked()
        self._subscriptions: dict[str, Subscription] = {}

    @property
    def qos(self) -> Unacked:
        """The prefetch limit and what counts against it."""
        return self._unacked

    # Publish

    def basic_publish(self, message: Raw, exchange: str, routing_key: str, **kwargs: Any) -> None:
        """Route one message to the queues that want it."""
        properties = message["properties"]
        properties["delivery_info"].update(exchange=exchange, routing_key=routing_key)
        if not exchange:
            self.broker.put(routing_key, message, properties.get("priority") or UNSTATED)
            return
        with self.broker.topology:
            kind: Any = self.typeof(exchange)
            kind.deliver(message, exchange, routing_key, **kwargs)

    def _put(self, queue: str, message: Raw, **kwargs: Any) -> None:
        self.broker.put(queue, message, message["properties"].get("priority") or UNSTATED)

    def _put_fanout(self, exchange: str, message: Raw, routing_key: str, **kwargs: Any) -> None:
        for queue in self._lookup(exchange, routing_key):
            self.broker.put(queue, message, BROADCAST)

    # Consume

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Callable[[BaseMessage], Any], consumer_tag: str, **kwargs: Any
    ) -> None:
        """Start to deliver the messages of a queue to the callback."""
        with self.broker.lock:
            target = self.broker.queue(queue)
            subscription = Subscription(consumer_tag, self, target, callback, bool(no_ack))
            self._subscriptions[consumer_tag] = subscription
            target.subscribers.append(subscription)
            self.transport.subscriptions.append(subscription)
            self._consumers.add(consumer_tag)
            self.transport.ready.notify()

    def basic_cancel(self, consumer_tag: str) -> None:
        """Stop a consumer; an auto-delete queue goes with its last one."""
        with self.broker.lock:
            subscription = self._subscriptions.get(consumer_tag)
            if subscription is None:
                return
            self.forget(subscription)
            queue = subscription.queue
            orphan = queue.auto_delete and not queue.subscribers
        if orphan:
            self.queue_delete(queue.name)

    def forget(self, subscription: Subscription) -> None:
        """Take a consumer off all the lists it is on. Needs the broker's lock."""
        self._subscriptions.pop(subscription.tag, None)
        self._consumers.discard(subscription.tag)
        subscription.queue.subscribers.remove(subscription)
        self.transport.subscriptions.remove(subscription)

    def take(self, queue: Queue, *, no_ack: bool) -> Message:
        """Pop the best message of a queue that has one. Needs the broker's lock."""
        priority, sequence, raw = heappop(queue.heap)
        tag = next(self.broker.sequence)
        if not no_ack:
            self._unacked.delivered[tag] = (queue.name, priority, sequence, raw)
        return Message(raw, self, tag)

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Message | None:
        """Return the best message of a queue, or None if it is empty."""
        with self.broker.lock:
            target = self.broker.queue(queue)
            return self.take(target, no_ack=no_ack) if target.heap else None

    # Settle: any thread, also after the channel was closed (then the message is already back in its queue).

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        """Forget a message that was handled."""
        self._settle(delivery_tag)

    def basic_reject(self, delivery_tag: int, requeue: bool = False) -> None:
        """Drop a message, or put it behind its equals: in its old place it would keep them waiting for ever."""
        held = self._settle(delivery_tag)
        if held is not None and requeue:
            queue, priority, _, raw = held
            self.broker.put(queue, redelivered(raw), priority)

    def basic_recover(self, requeue: bool = False) -> None:
        """Put everything that was not acknowledged back in its old place."""
        with self.broker.lock:
            held = list(self._unacked.delivered.values())
            self._unacked.delivered.clear()
        for queue, priority, sequence, raw in held:
            self.broker.put(queue, redelivered(raw), priority, sequence)

    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False) -> None:
        """Limit how many messages may be unacknowledged at a time; 0 is no limit."""
        with self.broker.lock:
            self._unacked.prefetch_count = prefetch_count
            self.transport.ready.notify()

    def _settle(self, tag: int) -> tuple[str, int, int, Raw] | None:
        unacked = self._unacked
        with self.broker.lock:
            was_full = not unacked.can_consume()
            held = unacked.delivered.pop(tag, None)
            if was_full:
                self.transport.ready.notify()
            return held

    # Declare

    def exchange_declare(self, *args: Any, **kwargs: Any) -> None:
        """Declare an exchange."""
        with self.broker.topology:
            super().exchange_declare(*args, **kwargs)

    def exchange_delete(self, *args: Any, **kwargs: Any) -> None:
        """Delete an exchange and its bindings."""
        with self.broker.topology:
            super().exchange_delete(*args, **kwargs)

    def queue_bind(self, *args: Any, **kwargs: Any) -> None:
        """Bind a queue to an exchange."""
        with self.broker.topology:
            super().queue_bind(*args, **kwargs)

    def queue_unbind(self, *args: Any, **kwargs: Any) -> None:
        """Undo a binding."""
        with self.broker.topology:
            super().queue_unbind(*args, **kwargs)

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any) -> None:
        """Delete a queue with its messages and bindings."""
        with self.broker.topology:
            if if_empty and self._size(queue):
                return
            for exchange, routing_key, arguments in list(self.state.queue_bindings(queue)):
                self.queue_unbind(queue, exchange, routing_key, arguments)
            self.state.queue_bindings_delete(queue)
            self.broker.delete(queue)

    def _new_queue(self, queue: str, auto_delete: bool = False, **kwargs: Any) -> None:
        with self.broker.lock:
            self.broker.queue(queue).auto_delete = auto_delete

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        return self.broker.known(queue)

    def _size(self, queue: str) -> int:
        return self.broker.size(queue)

    def _purge(self, queue: str) -> int:
        return self.broker.purge(queue)

    def _queue_bind(self, *args: Any) -> None:
        """Nothing to do: the table of the exchange is shared state already."""

    def close(self) -> None:
        """Cancel this channel's consumers and give back what it did not acknowledge; the queues stay."""
        if self.closed:
            return
        self.closed = True
        for tag in list(self._subscriptions):
            self.basic_cancel(tag)
        self.basic_recover(requeue=True)
        if self.connection is not None:
            self.connection.close_channel(self)


def redelivered(raw: Raw) -> Raw:
    """Copy a message with the mark that it was delivered before; copies in other queues keep theirs."""
    properties = raw["properties"]
    info = {**properties.get("delivery_info", {}), "redelivered": True}
    return {**raw, "properties": {**properties, "delivery_info": info}}


class Transport(virtual.Transport):
    """One connection to a `MemoryBroker`. The class to use is the one that the broker made."""

    broker: ClassVar[MemoryBroker]
    default_connection_params: ClassVar[dict[str, Any]] = {}
    """There is no host, and no warning that none was given."""

    Channel = Channel
    driver_type = "memory"
    driver_name = "orchestra"
    # Whatever the URL says is not ours to understand.
    can_parse_url = True
    channels: list[Channel]  # pyright: ignore[reportIncompatibleVariableOverride]
    _avail_channels: list[Channel]
    implements = base.Transport.implements.extend(
        asynchronous=False, exchange_type=frozenset(["direct", "topic", "fanout"]), heartbeats=False
    )

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.state = self.broker.state
        self.ready = Condition(self.broker.lock)
        self.subscriptions: list[Subscription] = []
        self._interrupted = False

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        """Say where this connection leads."""
        return "memory://"

    def driver_version(self) -> str:
        """There is no driver."""
        return "N/A"

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:
        """Deliver one message, waiting for it if need be.

        Raises TimeoutError (kombu's `socket.timeout`) when `timeout` seconds have passed, and at once when another
        thread calls `interrupt` or closes the connection.
        """
        deadline = None if timeout is None else monotonic() + timeout
        with self.broker.lock:
            while (best := self._best()) is None:
                if self._interrupted:
                    self._interrupted = False
                    raise TimeoutError("interrupted")
                remaining = None if deadline is None else deadline - monotonic()
                if (remaining is not None and remaining <= 0) or not self.ready.wait(remaining):
                    raise TimeoutError("timed out")
            message = best.channel.take(best.queue, no_ack=best.no_ack)
        best.callback(message)

    def interrupt(self) -> None:
        """Make the running `drain_events`, or else the next one that would wait, give up at once. Any thread."""
        with self.broker.lock:
            self._interrupted = True
            self.ready.notify_all()

    def close_connection(self, connection: Any) -> None:
        """Close the channels of this connection; queues and messages belong to the broker and stay."""
        # kombu keeps a new connection's first channel in both lists.
        waiting: list[Channel] = self._avail_channels
        for channel in {*waiting, *self.channels}:
            channel.close()
        waiting.clear()
        self.interrupt()

    def _best(self) -> Subscription | None:
        """Return the consumer whose queue holds the most urgent message, over all queues. Needs the lock."""
        best: Subscription | None = None
        for subscription in self._eligible():
            if best is None or subscription.queue.heap[0][:2] < best.queue.heap[0][:2]:
                best = subscription
        return best

    def _eligible(self) -> Iterator[Subscription]:
        return (each for each in self.subscriptions if each.queue.heap and each.wants())
