"""Publisher confirms: RabbitMQ says of each message that it has it, or that it has no place for it.

One answer is waited for at the end of a batch, which costs a tenth of waiting for each message.
"""

from collections.abc import Sequence
from typing import Any

import amqp
from kombu import Connection, Producer

CONFIRM_S = 3.0
"""How long RabbitMQ may take to confirm. It takes longer when it refuses publishers, for want of memory or disk."""

Message = dict[str, Any]
"""Arguments of kombu's ``Producer.publish``."""


class NotConfirmed(amqp.RecoverableChannelError):
    """RabbitMQ did not take a message."""


class Confirmed:
    """A channel of its own on a connection, on which publishing ends when every message is confirmed.

    Not on the channel of others: what is confirmed there would be read by nobody.
    """

    def __init__(self, connection: Connection) -> None:
        channel: Any = connection.channel()
        self._channel, self._producer = channel, Producer(channel)
        self._declared: Any = connection.declared_entities
        self._sent, self._waiting, self._refused, self._returned = 0, set[int](), False, False
        channel.events["basic_ack"].add(self._answered)
        channel.events["basic_nack"].add(self._nacked)
        channel.events["basic_return"].add(self._no_queue)
        channel.confirm_select()

    @property
    def is_open(self) -> bool:
        """Whether it may still be used: an error closes a channel."""
        return bool(self._channel.is_open)

    def publish(self, messages: Sequence[Message]) -> None:
        """Send messages and wait until they are confirmed; queues that were deleted meanwhile are declared again.

        Raises:
            NotConfirmed: RabbitMQ refuses one of them.
        """
        self._send(messages)
        if self._returned:
            self._declared.clear()
            self._send(messages)
        if self._refused or self._returned:
            raise NotConfirmed("RabbitMQ did not take the message")

    def _send(self, messages: Sequence[Message]) -> None:
        self._refused = self._returned = False
        for message in messages:
            self._producer.publish(**message, mandatory=True)
            self._sent += 1
            self._waiting.add(self._sent)
        while self._waiting:
            self._channel.connection.drain_events(timeout=CONFIRM_S)

    def _answered(self, tag: int, multiple: bool) -> None:
        self._waiting = {each for each in self._waiting if each > tag} if multiple else self._waiting - {tag}

    def _nacked(self, tag: int, multiple: bool) -> None:
        self._refused = True
        self._answered(tag, multiple)

    def _no_queue(self, *_: object) -> None:
        self._returned = True
