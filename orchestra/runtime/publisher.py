"""Publishers: how a dispatch becomes a Celery message.

A message carries ids only. It is composed here rather than by ``apply_async``, which spends ten times as long on
options that a step never has; the fields are those of Celery's message protocol 2.
"""

import json
import os
import socket
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary

from celery import Celery
from celery.exceptions import ImproperlyConfigured
from kombu.exceptions import OperationalError

from orchestra.errors import BrokerUnavailable
from orchestra.model.ids import MessageRef, StepRef
from orchestra.runtime.confirms import Confirmed, Message
from orchestra.runtime.envelopes import Envelope, Envelopes
from orchestra.runtime.line import Push, Unsent
from orchestra.runtime.queues import StepQueues
from orchestra.runtime.redis_sending import RedisSending
from orchestra.runtime.redis_transport import StepChannel
from orchestra.runtime.routing import HEADER, tune
from orchestra.runtime.transport import MemoryBroker
from orchestra.store.contract import Dispatch

_RETRY = {"max_retries": 3, "interval_start": 0.05, "interval_step": 0.2, "interval_max": 0.5}
_HOST = socket.gethostname()
_LONGEST_CHAIN, _LONGEST_NAME = 2000, 200
"""Bytes of JSON. They keep messages below 4 kB whatever people call their tasks: what waits in the store needs no
courier, and a name is for the eyes only."""


def headers_of(dispatch: Dispatch) -> dict[str, Any]:
    """Return the message headers of a step."""
    run_id = dispatch.ref.step.run_id
    return {
        "lang": "py",
        "task": dispatch.task,
        "id": dispatch.ref.celery_id,
        "shadow": None if dispatch.name == dispatch.task else shown(dispatch.name),
        "root_id": f"{run_id}.0.0",
        "parent_id": dispatch.parent,
        "timelimit": [dispatch.timeout_s, None],
        "retries": 0,
        "argsrepr": "()",
        "kwargsrepr": "{}",
        "origin": f"{os.getpid()}@{_HOST}",
        "ignore_result": False,
        HEADER: 1,
    }


def chain_of(dispatch: Dispatch, following: Sequence[Any], to_broker: Callable[[int], int]) -> list[Any]:
    """Return the rest of the chain segment, as Celery has it in a message: signatures, the next one last.

    It is what the message before carried, less this link; at the head of a segment it comes from the plan.
    """
    if following and following[-1]["options"]["task_id"] == dispatch.ref.celery_id:
        return list(following[:-1])
    run_id, links, size = dispatch.ref.step.run_id, list[Any](), 0
    for planned in dispatch.chain:
        link = _link(run_id, to_broker, *planned)  # pyright: ignore[reportArgumentType]
        size += len(json.dumps(link))
        if size > _LONGEST_CHAIN:
            break
        links.insert(0, link)
    return links


def _link(
    run_id: str, to_broker: Callable[[int], int], n: int, task: str, name: str, queue: str, priority: int
) -> dict[str, Any]:
    options = {"task_id": MessageRef(StepRef(run_id, n), 0).celery_id, "queue": queue, "priority": to_broker(priority)}
    named = {} if name == task else {"shadow": shown(name)}
    return {"task": task, "args": [], "kwargs": {}, "options": {**options, **named}, "immutable": True}


def shown(name: str) -> str:
    """Return a name as a message shows it: short."""
    short = name
    while len(json.dumps(short)) > _LONGEST_NAME:
        short = f"{short[: len(short) * 3 // 4]}…"
    return short


class MemoryPublisher:
    """Publishes to the broker of an embedded orchestrator, whose one worker serves all queues: they share one here."""

    def __init__(self, broker: MemoryBroker, queue: str) -> None:
        self._broker, self._queue = broker, queue

    def check(self) -> None:
        """It is there."""

    def close(self) -> None:
        """Nothing is open."""

    def publish(self, dispatches: Sequence[Dispatch], following: Sequence[Any] = ()) -> None:
        """Send one message for each."""
        for each in dispatches:
            chain = chain_of(each, following, _same)
            body = f'[[],{{}},{{"chain":{json.dumps(chain)}}}]' if chain else "[[],{},{}]"
            self._broker.send(self._queue, body, headers_of(each), priority=each.priority)


def _same(priority: int) -> int:
    return priority


class BrokerPublisher:
    """Publishes through a Celery application.

    Args:
        queues: Says where a message goes.
        to_broker: Translates a priority (1 highest, 10 lowest) into the broker's own scale.
        waits: Whether Redis is waited for until it has a message.
    """

    def __init__(
        self, app: Celery, queues: StepQueues, to_broker: Callable[[int], int], *, waits: bool = False
    ) -> None:
        self._app, self._queues, self._to_broker = app, queues, to_broker
        self._redis = RedisSending(
            Envelopes(self._message, shown), self._chain_of, queues.target, to_broker, waits=waits
        )
        self._answered = False
        self._reached: tuple[int, StepChannel] | None = None
        """The process that has reached a broker which may let messages be taken, and how."""
        self._confirmed: WeakKeyDictionary[Any, Confirmed] = WeakKeyDictionary()
        """By the broker connection that each is a channel of."""

    def check(self) -> None:
        """Say whether there is a broker at all, before the first work is stored for it.

        Raises:
            BrokerUnavailable: The broker does not answer, and has not answered before; if it has, it will be back.
        """
        if not self._answered:
            with self._producer() as producer:
                producer.connection.ensure_connection(**_RETRY)

    def publish(self, dispatches: Sequence[Dispatch], following: Sequence[Any] = ()) -> None:
        """Send one message for each. RabbitMQ confirms that it has them.

        Raises:
            BrokerUnavailable: The broker does not take them, after a few tries.
        """
        before: Sequence[Push] = ()
        try:
            self._redis.send(dispatches, following)
            return
        except Unsent as unsent:
            before = unsent.before
        with self._producer() as producer:
            connection = producer.connection
            if isinstance(producer.channel, StepChannel):
                self._reached = os.getpid(), producer.channel
                connection.ensure(producer, self._redis.send_by, **_RETRY)(producer, dispatches, following, before)
                return
            messages = [self._message(each, following) for each in dispatches]
            if connection.transport.driver_type == "amqp":
                connection.ensure(producer, self._publish_confirmed, **_RETRY)(connection, messages)
            else:
                for message in messages:
                    producer.publish(**message, retry=True, retry_policy=_RETRY)

    def close(self) -> None:
        """See what the broker says of the last messages; a second time does nothing."""
        self._redis.close()

    def is_open(self) -> bool:
        """Whether messages can be taken, and this process has reached the broker before."""
        if self._reached is None:
            return False
        pid, channel = self._reached
        return pid == os.getpid() and channel.can_take

    def take(self, queue: str, most: int, at_least: int | None = None) -> Sequence[tuple[str, Envelope]] | None:
        """Take the next steps of a queue, none less urgent than a priority, from a broker that gives them at once.

        Returns None where it does not; see ``StepChannel.take``.
        """
        with suppress(BrokerUnavailable), self._producer() as producer:
            if isinstance(producer.channel, StepChannel):
                self._reached = os.getpid(), producer.channel
                return producer.channel.take(queue, most, self._last_of(at_least))
        return None

    def written(self, dispatch: Dispatch, following: Sequence[Any] = ()) -> tuple[str, Envelope]:
        """Return the queue that a message for Redis would go to, and the message."""
        return self._queues.target(dispatch.queue, dispatch.priority).name, self._redis.written(dispatch, following)

    def put_back(self, key: str, message: Envelope) -> None:
        """Give back what was taken. What the broker does not take is found again by the reconciler."""
        with suppress(BrokerUnavailable), self._producer() as producer:
            producer.channel.put_back(key, message)

    def waits(self, queues: Sequence[str], at_least: int | None = None) -> bool:
        """Whether there may be messages in any of these queues, none less urgent; see ``StepChannel.waits``."""
        with suppress(BrokerUnavailable), self._producer() as producer:
            if isinstance(producer.channel, StepChannel):
                return producer.channel.waits(queues, self._last_of(at_least))
        return True

    def _last_of(self, at_least: int | None) -> int | None:
        return None if at_least is None else self._to_broker(at_least)

    def _publish_confirmed(self, connection: Any, messages: Sequence[Message]) -> None:
        connection.ensure_connection(**_RETRY)  # one that was closed would have no broker connection, and say None
        raw = connection.connection
        confirmed = self._confirmed.get(raw)
        if confirmed is None or not confirmed.is_open:
            confirmed = self._confirmed[raw] = Confirmed(connection)
        confirmed.publish(messages)

    def _chain_of(self, dispatch: Dispatch, following: Sequence[Any]) -> list[Any]:
        return chain_of(dispatch, following, self._to_broker)

    def _message(self, dispatch: Dispatch, following: Sequence[Any] = ()) -> Message:
        # Straight to the queue, by the exchange that every broker has for that: one question less for Redis, and
        # nothing that could be missing after its data was lost.
        chain = self._chain_of(dispatch, following)
        queue = self._queues.target(dispatch.queue, dispatch.priority)
        return {
            "body": ((), {}, {"callbacks": None, "errbacks": None, "chain": chain or None, "chord": None}),
            "exchange": "",
            "routing_key": queue.name,
            "serializer": "json",
            "headers": headers_of(dispatch),
            "priority": self._to_broker(dispatch.priority),
            "correlation_id": dispatch.ref.celery_id,
            "delivery_mode": 2,
            "declare": [queue],
        }

    @contextmanager
    def _producer(self) -> Generator[Any]:
        if not self._answered:
            tune(self._app)
        try:
            with self._app.producer_or_acquire() as producer:
                yield producer
                self._answered = True
        except Exception as error:
            connection = self._app.connection_for_write()
            known = (*connection.connection_errors, *connection.channel_errors)
            if isinstance(error, (OperationalError, OSError, ImproperlyConfigured, *known)):
                raise BrokerUnavailable(connection.as_uri(), str(error) or type(error).__name__) from error
            raise
