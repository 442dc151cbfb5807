"""Post: how the slots of a worker come by messages beside its loop, on Redis."""

# kombu is untyped where a channel meets it.
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false

import json
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from celery.worker import state
from redis.exceptions import RedisError, ResponseError

from orchestra.model.ids import MessageRef
from orchestra.runtime.line import opened
from orchestra.runtime.publisher import BrokerPublisher
from orchestra.runtime.redis_transport import StepChannel
from orchestra.runtime.routing import HEADER
from orchestra.runtime.succession import Fetched
from orchestra.store.contract import Dispatch
from orchestra.store.redis.wire import Wire, packed

_PATIENCE_S = 1.0
"""How long the broker may take to answer: who asks has something to record. And for how long it is not asked then."""


class Tap:
    """Connections over which messages are taken that wait: as many as threads ask at the same moment."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._idle: deque[tuple[Wire, Any]] = deque()
        """Each with the pool that it is of."""
        self._closed_until = float("-inf")

    def ask(self, pool: Any, command: bytes) -> Any:
        """Return what the broker answers, or None where it does not: it is not asked again for a while.

        Args:
            pool: Connections of redis-py, which lead to the broker.

        Raises:
            ResponseError: It refuses.
        """
        if self._clock() < self._closed_until:
            return None
        try:
            wire = self._idle_of(pool) or opened(pool, _PATIENCE_S)
            wire.send(command)
            answer = wire.receive()
        except ResponseError:
            raise
        except (RedisError, OSError):  # whatever this connection still brings belongs to nobody
            self._idle.clear()
            self._closed_until = self._clock() + _PATIENCE_S
            return None
        self._idle.append((wire, pool))
        return answer

    def _idle_of(self, pool: Any) -> Wire | None:
        while self._idle:
            with suppress(IndexError):  # another thread took the last one
                wire, its_pool = self._idle.pop()
                if its_pool is pool:
                    return wire
        return None


class WorkerPost:
    """Takes what the worker would fetch next, and hands it to the worker as its loop would. Any thread.

    Args:
        worker: Celery's worker.
    """

    def __init__(self, worker: Any, publisher: BrokerPublisher) -> None:
        self._worker, self._publisher = worker, publisher
        self._tap = Tap()
        self._commands: dict[tuple[str, ...], bytes] = {}

    def is_open(self) -> bool:
        """Whether messages can be taken: the worker is connected, and its queues hold steps alone."""
        channel = self._channel()
        return isinstance(channel, StepChannel) and channel.can_take

    def fetch(self, after: str) -> Fetched | None:
        """Take the most urgent message of the worker's queues without waiting, if it is of a step.

        Not while a slot is idle: the worker's loop gives it what comes, and to ask would be for nothing.
        """
        channel: StepChannel | None = self._channel()
        if channel is None or len(state.reserved_requests) < self._worker.pool.num_processes:
            return None
        queues = sorted(self._worker.app.amqp.queues.consume_from, key=lambda queue: queue == after)
        try:
            answer = self._tap.ask(channel.pool, self._command(channel, tuple(queues)))
        except ResponseError:
            channel.takes_many = False  # a server before 7.0
            return None
        if answer is None:
            return None
        key, (text,) = answer
        message = json.loads(text)
        headers = message["headers"]
        if not headers.get(HEADER):
            self._publisher.put_back(key, message)
            return None
        return Fetched(channel.queue_of(key), key, message, MessageRef.parse(headers["id"]))

    def _command(self, channel: StepChannel, queues: tuple[str, ...]) -> bytes:
        command = self._commands.get(queues)
        if command is None:
            keys = [channel.key_of(queue, priority) for priority in channel.priority_steps for queue in queues]
            command = self._commands[queues] = packed(("LMPOP", len(keys), *keys, "RIGHT", "COUNT", 1))
        return command

    def put_back(self, fetched: Fetched) -> None:
        """Make it the next of its queue again."""
        self._publisher.put_back(fetched.key, fetched.message)

    def deliver(self, fetched: Fetched) -> None:
        """Have the worker handle it."""
        channel = self._channel()
        if channel is None:
            raise ConnectionError("the worker is not connected")
        channel.connection._deliver(fetched.message, fetched.queue)  # noqa: SLF001

    def written(self, dispatch: Dispatch, following: Sequence[Any]) -> Fetched:
        """Return the message that would be published for a step."""
        queue, message = self._publisher.written(dispatch, following)
        return Fetched(queue, "", message, dispatch.ref)

    def _channel(self) -> Any:
        consumer = getattr(self._worker, "consumer", None)
        tasks = getattr(consumer, "task_consumer", None)
        return getattr(tasks, "channel", None)
