"""Sending over Redis: messages of steps put into their lists, without waiting for the answer where that is possible."""

import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

from kombu import Queue

from orchestra.runtime.envelopes import Envelope, Envelopes
from orchestra.runtime.line import Line, Push, Unsent
from orchestra.runtime.redis_transport import StepChannel
from orchestra.store.contract import Dispatch

logger = logging.getLogger(__name__)


class RedisSending:
    """Sends dispatches, over a line once there is one.

    Args:
        envelopes: Writes the messages.
        chain_of: Returns the rest of the chain that a message carries, given what the message before it carried.
        target: Returns the queue that messages of a queue and priority go to.
        to_broker: Translates a priority into the scale of Redis.
        waits: Whether each message is waited for until the broker has it.
    """

    def __init__(
        self,
        envelopes: Envelopes,
        chain_of: Callable[[Dispatch, Sequence[Any]], Sequence[Any]],
        target: Callable[[str, int], Queue],
        to_broker: Callable[[int], int],
        *,
        waits: bool,
    ) -> None:
        self._envelopes, self._chain_of, self._target, self._to_broker = envelopes, chain_of, target, to_broker
        self._waits = waits
        self._line = Line(_refused)
        self._keys: dict[tuple[str, int], str] = {}
        """The lists of queues that are declared, by queue and priority."""

    def send(self, dispatches: Sequence[Dispatch], following: Sequence[Any]) -> None:
        """Send messages over the line.

        Raises:
            Unsent: There is none, it does not carry, or a queue is not declared.
        """
        if not self._line.is_open:
            raise Unsent
        try:
            self._line.send(self._pushes(dispatches, following))
        except Unsent:
            if not self._line.is_open:
                self._keys.clear()  # who knows what the next connection leads to
            raise

    def send_by(
        self, producer: Any, dispatches: Sequence[Dispatch], following: Sequence[Any], before: Sequence[Push]
    ) -> None:
        """Send messages on a channel and wait until the broker has them. Then there may be a line.

        Args:
            before: What was sent and may be lost.
        """
        channel: StepChannel = producer.channel
        for each in dispatches:
            queue = self._target(each.queue, each.priority)
            if queue.name not in channel.declared:
                producer.maybe_declare(queue)
                channel.declared.add(queue.name)
            self._keys[each.queue, each.priority] = channel.key_of(queue.name, self._to_broker(each.priority))
        channel.push([*before, *self._pushes(dispatches, following)])
        if not self._waits:
            self._line.open(channel.pool)

    def written(self, dispatch: Dispatch, following: Sequence[Any]) -> Envelope:
        """Return the message of a step."""
        return json.loads(self._envelopes.write(dispatch, self._chain_of(dispatch, following)))

    def close(self) -> None:
        """See what the broker says of the last messages, and end the line; a second time does nothing."""
        self._line.close()

    def _pushes(self, dispatches: Sequence[Dispatch], following: Sequence[Any]) -> list[Push]:
        texts: dict[str, list[str]] = {}
        for each in dispatches:
            key = self._keys.get((each.queue, each.priority))
            if key is None:
                raise Unsent
            texts.setdefault(key, []).append(self._envelopes.write(each, self._chain_of(each, following)))
        return [Push(*each) for each in texts.items()]


def _refused(count: int, error: Exception) -> None:
    logger.warning("%d messages could not be published and will be sent again: %s", count, error)
