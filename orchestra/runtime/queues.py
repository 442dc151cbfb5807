"""Queues: how those of steps are declared, and which of them carries which priority.

RabbitMQ keeps priorities inside a classic queue that was declared with ``x-max-priority``. A quorum queue knows none,
so there is one for each band of priorities. Redis and the embedded transport need nothing of this.
"""

import logging
from copy import copy
from typing import Any

import amqp
from celery import Celery
from kombu import Queue

from orchestra.runtime.routing import is_redis

logger = logging.getLogger(__name__)

MAX_PRIORITY = 10
BANDS = ((1, 3), (4, 7), (8, 10))
"""The priorities that share a quorum queue. More bands would keep more apart, and have a worker hold more messages."""
_BAND = ".priority."


class StepQueue(Queue):  # pyright: ignore[reportUntypedBaseClass]
    """A queue that is taken as it is where it exists with other arguments."""

    def queue_declare(self, nowait: bool = False, passive: bool = False, channel: Any = None) -> Any:
        """Declare the queue, or accept the one that there is."""
        channel = channel or self.channel
        if passive or not isinstance(channel, amqp.Channel):
            return super().queue_declare(nowait=nowait, passive=passive, channel=channel)
        # A refusal closes the channel that it was asked on, with all its consumers.
        with channel.connection.channel() as own:
            try:
                return super().queue_declare(channel=own)
            except amqp.PreconditionFailed as refused:
                logger.warning("Queue %r exists with other arguments and is used as it is: %s", self.name, refused)
                if "x-max-priority" in str(refused):
                    warn_of_no_priorities(self.name)
        return None


class StepQueues:
    """The queues of an application's steps.

    Args:
        own: A queue that an adopted application does not know: it is given priorities.
        quorum: Whether steps go to quorum queues.
        shared: Whether the application has messages of its own, in the queues that those are named after.
    """

    def __init__(self, app: Celery, *, own: str | None, quorum: bool, shared: bool) -> None:
        self._app, self._own, self._quorum, self._shared = app, own, quorum, shared
        self._targets: dict[tuple[str, int], Queue] = {}

    def target(self, name: str, priority: int) -> Queue:
        """Return where a message of that queue and priority goes."""
        target = self._targets.get((name, priority))
        if target is None:
            banded = self._quorum and self._is_amqp()
            target = _band_of(name, priority) if banded else self._declared(name)
            self._targets[name, priority] = target
        return target

    def serve(self) -> None:
        """Make a worker, whose queues have just been chosen, consume those that steps of them go to."""
        if not self._is_amqp():
            return
        queues: Any = self._app.amqp.queues
        consumed: dict[str, Queue] = queues.consume_from
        for name in list(consumed):
            consumed[name] = self._declared(name)
            if not self._quorum:
                if _priorities(consumed[name]) is None:
                    warn_of_no_priorities(name)
                continue
            bands = {each.name: each for each in bands_of(name)}
            # Celery looks there for quorum queues, and its own way in would give them x-max-priority.
            dict.update(queues, bands)
            consumed.update(bands)
            if not self._shared:
                del consumed[name], queues[name]

    def served(self) -> list[str]:
        """The queues that a worker serves now, by the names that steps know."""
        consumed: dict[str, Queue] = self._app.amqp.queues.consume_from
        return list(dict.fromkeys(name.partition(_BAND)[0] for name in consumed))

    def consumed(self) -> list[str]:
        """The queues that a worker serves now, by their own names."""
        return list(self._app.amqp.queues.consume_from)

    def _is_amqp(self) -> bool:
        return not is_redis(str(self._app.conf.broker_url or ""))

    def _declared(self, name: str) -> Queue:
        """Return the application's own declaration, or ours where it has none."""
        app: Any = self._app
        known: Any = app.amqp.queues
        if name == self._own and name not in app.amqp.Queues(app.conf.task_queues):
            dict.__setitem__(known, name, StepQueue(name, routing_key=name, max_priority=MAX_PRIORITY))
        try:
            queue = known[name]
        except KeyError:  # an application that creates no queues it was not told of
            queue = Queue(name, routing_key=name)
        if type(queue) is Queue:
            queue = copy(queue)
            queue.__class__ = StepQueue
        return queue


def bands_of(name: str) -> list[StepQueue]:
    """Return the quorum queues that steps of a queue go to."""
    return [_band_of(name, first) for first, _ in BANDS]


def _band_of(name: str, priority: int) -> StepQueue:
    first, last = next(band for band in BANDS if priority <= band[1])
    full = f"{name}{_BAND}{first}-{last}"
    return StepQueue(full, routing_key=full, queue_arguments={"x-queue-type": "quorum"})


def _priorities(queue: Any) -> object:
    arguments: dict[str, object] = queue.queue_arguments or {}
    return queue.max_priority or arguments.get("x-max-priority")


def warn_of_no_priorities(name: str) -> None:
    """Say what may be done about a queue that keeps messages in the order of their arrival."""
    logger.warning(
        "Queue %r has no priorities (x-max-priority): its steps are served in the order of their arrival. Give the"
        " orchestrator a queue of its own (queue=…), or delete the queue and set task_queue_max_priority=%d",
        name,
        MAX_PRIORITY,
    )
