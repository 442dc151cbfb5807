"""Publishers: how a dispatch becomes a Celery message.

A message carries ids only. It is composed here rather than by ``apply_async``, which spends ten times as long on
options that a step never has; the fields are those of Celery's message protocol 2.
"""

import base64
import json
import os
import socket
import uuid
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
from orchestra.runtime.queues import StepQueues
from orchestra.runtime.redis_transport import Envelope, StepChannel
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
        "shadow": None if dispatch.name == dispatch.task else _shown(dispatch.name),
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
    shown = {} if name == task else {"shadow": _shown(name)}
    return {"task": task, "args": [], "kwargs": {}, "options": {**options, **shown}, "immutable": True}


def _shown(name: str) -> str:
    shown = name
    while len(json.dumps(shown)) > _LONGEST_NAME:
        shown = f"{shown[: len(shown) * 3 // 4]}…"
    return shown


def _publish_at_once(producer: Any, messages: Sequence[Message]) -> None:
    channel: StepChannel = producer.channel
    by_queue: dict[Any, list[Envelope]] = {}
    for message in messages:
        by_queue.setdefault(message["declare"][0], []).append(envelope_of(message))
    for queue, envelopes in by_queue.items():
        if queue.name not in channel.declared:
            producer.maybe_declare(queue)
            channel.declared.add(queue.name)
        channel.send(queue.name, envelopes)


def envelope_of(message: Message) -> Envelope:
    """Return what kombu makes of a message for Redis."""
    return {
        "body": base64.b64encode(json.dumps(message["body"]).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": message["headers"],
        "properties": {
            "correlation_id": message["correlation_id"],
            "delivery_mode": message["delivery_mode"],
            "delivery_info": {"exchange": message["exchange"], "routing_key": message["routing_key"]},
            "priority": message["priority"],
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }


class MemoryPublisher:
    """Publishes to the broker of an embedded orchestrator, whose one worker serves all queues: they share one here."""

    def __init__(self, broker: MemoryBroker, queue: str) -> None:
        self._broker, self._queue = broker, queue

    def check(self) -> None:
        """It is there."""

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
    """

    def __init__(self, app: Celery, queues: StepQueues, to_broker: Callable[[int], int]) -> None:
        self._app, self._queues, self._to_broker = app, queues, to_broker
        self._answered = False
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
        messages = [self._message(each, following) for each in dispatches]
        with self._producer() as producer:
            connection = producer.connection
            if connection.transport.driver_type == "amqp":
                connection.ensure(producer, self._publish_confirmed, **_RETRY)(connection, messages)
            elif isinstance(producer.channel, StepChannel):
                connection.ensure(producer, _publish_at_once, **_RETRY)(producer, messages)
            else:
                for message in messages:
                    producer.publish(**message, retry=True, retry_policy=_RETRY)

    def take(self, queue: str) -> tuple[str, Envelope] | None:
        """Take the next step of a queue from a broker that gives it without waiting; see ``StepChannel.take``."""
        with suppress(BrokerUnavailable), self._producer() as producer:
            if isinstance(producer.channel, StepChannel):
                return producer.channel.take(queue)
        return None

    def put_back(self, key: str, message: Envelope) -> None:
        """Give back what was taken. What the broker does not take is found again by the reconciler."""
        with suppress(BrokerUnavailable), self._producer() as producer:
            producer.channel.put_back(key, message)

    def _publish_confirmed(self, connection: Any, messages: Sequence[Message]) -> None:
        connection.ensure_connection(**_RETRY)  # one that was closed would have no broker connection, and say None
        raw = connection.connection
        confirmed = self._confirmed.get(raw)
        if confirmed is None or not confirmed.is_open:
            confirmed = self._confirmed[raw] = Confirmed(connection)
        confirmed.publish(messages)

    def _message(self, dispatch: Dispatch, following: Sequence[Any]) -> Message:
        # Straight to the queue, by the exchange that every broker has for that: one question less for Redis, and
        # nothing that could be missing after its data was lost.
        chain = chain_of(dispatch, following, self._to_broker)
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
