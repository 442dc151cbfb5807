"""Publishers: how a dispatch becomes a Celery message.

A message carries ids only. It is composed here rather than by ``apply_async``, which spends ten times as long on
options that a step never has; the fields are those of Celery's message protocol 2.
"""

import json
import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

from celery import Celery
from celery.exceptions import ImproperlyConfigured
from kombu.exceptions import OperationalError

from orchestra.errors import BrokerUnavailable
from orchestra.model.ids import MessageRef, StepRef
from orchestra.runtime.transport import MemoryBroker
from orchestra.store.contract import Dispatch

HEADER = "orchestra"
"""The message header that marks a step."""

_RETRY = {"max_retries": 3, "interval_start": 0.05, "interval_step": 0.2, "interval_max": 0.5}
_ORIGIN = f"{os.getpid()}@{socket.gethostname()}"


def headers_of(dispatch: Dispatch) -> dict[str, Any]:
    """Return the message headers of a step."""
    run_id = dispatch.ref.step.run_id
    return {
        "lang": "py",
        "task": dispatch.task,
        "id": dispatch.ref.celery_id,
        "shadow": None if dispatch.name == dispatch.task else dispatch.name,
        "root_id": f"{run_id}.0.0",
        "parent_id": dispatch.parent,
        "timelimit": [dispatch.timeout_s, None],
        "retries": 0,
        "argsrepr": "()",
        "kwargsrepr": "{}",
        "origin": _ORIGIN,
        "ignore_result": False,
        HEADER: 1,
    }


def chain_of(dispatch: Dispatch, following: Sequence[Any], to_broker: Callable[[int], int]) -> list[Any]:
    """Return the rest of the chain segment, as Celery has it in a message: signatures, the next one last.

    It is what the message before carried, less this link; at the head of a segment it comes from the plan.
    """
    if following and following[-1]["options"]["task_id"] == dispatch.ref.celery_id:
        return list(following[:-1])
    run_id = dispatch.ref.step.run_id
    return [_link(run_id, to_broker, *link) for link in reversed(list(dispatch.chain))]  # pyright: ignore[reportArgumentType]


def _link(
    run_id: str, to_broker: Callable[[int], int], n: int, task: str, name: str, queue: str, priority: int
) -> dict[str, Any]:
    options = {"task_id": MessageRef(StepRef(run_id, n), 0).celery_id, "queue": queue, "priority": to_broker(priority)}
    shown = {} if name == task else {"shadow": name}
    return {"task": task, "args": [], "kwargs": {}, "options": {**options, **shown}, "immutable": True}


class MemoryPublisher:
    """Publishes to the broker of an embedded orchestrator, whose one worker serves all queues: they share one here."""

    def __init__(self, broker: MemoryBroker, queue: str) -> None:
        self._broker, self._queue = broker, queue

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
        to_broker: Translates a priority (1 highest, 10 lowest) into the broker's own scale.
    """

    def __init__(self, app: Celery, to_broker: Callable[[int], int]) -> None:
        self._app, self._to_broker = app, to_broker
        self._declared = threading.local()

    def publish(self, dispatches: Sequence[Dispatch], following: Sequence[Any] = ()) -> None:
        """Send one message for each.

        Raises:
            BrokerUnavailable: The broker does not take them, after a few tries.
        """
        try:
            with self._app.producer_or_acquire() as producer:
                for each in dispatches:
                    self._publish(producer, each, following)
        except (OperationalError, OSError, ImproperlyConfigured, *self._errors()) as error:
            url = self._app.connection_for_write().as_uri()
            raise BrokerUnavailable(url, str(error) or type(error).__name__) from error

    def _publish(self, producer: Any, dispatch: Dispatch, following: Sequence[Any]) -> None:
        queue = self._app.amqp.queues[dispatch.queue]
        chain = chain_of(dispatch, following, self._to_broker)
        producer.publish(
            ((), {}, {"callbacks": None, "errbacks": None, "chain": chain or None, "chord": None}),
            exchange=queue.exchange.name,
            routing_key=queue.routing_key,
            serializer="json",
            headers=headers_of(dispatch),
            priority=self._to_broker(dispatch.priority),
            correlation_id=dispatch.ref.celery_id,
            delivery_mode=2,
            declare=[queue],
            retry=True,
            retry_policy=_RETRY,
        )

    def _errors(self) -> tuple[type[Exception], ...]:
        connection = self._app.connection_for_write()
        return (*connection.connection_errors, *connection.channel_errors)
