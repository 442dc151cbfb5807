"""The Redis transport of applications that carry steps: kombu's own, which spends less on each message.

kombu makes a client of redis-py for each publish, delivery and acknowledgement; a channel here keeps one. And it copies
each message that is delivered to a second place in Redis until it is acknowledged, to hand it out again after hours:
steps are not copied, since the store knows better and sooner that one was lost. Other messages are treated as ever.
"""

# kombu is untyped where a transport meets it.
# pyright: reportUntypedBaseClass=false, reportIncompatibleMethodOverride=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import logging
from collections.abc import Sequence
from queue import Empty
from time import monotonic
from typing import Any

from celery import Celery
from kombu import Connection
from kombu.transport import redis, virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads
from redis.exceptions import ResponseError

from orchestra.runtime.envelopes import Envelope
from orchestra.runtime.line import Push
from orchestra.runtime.routing import HEADER

logger = logging.getLogger(__name__)

_MOST = 32
"""How many messages are taken at once."""
_PATIENCE_S = 1.0
"""How long the broker may take to say what waits. Who asks has something to record."""
_Channel: Any = redis.Channel


class StepQoS(redis.QoS):
    """What was delivered and not acknowledged yet. Of a step only this process knows."""

    channel: Any
    _delivered: Any

    def append(self, message: Any, delivery_tag: str) -> None:
        """Remember a message that was delivered."""
        if HEADER in message.headers:
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Forget a message.

        Bodies may end when the connection that their messages came over has gone, and an error would end the worker.
        """
        if self._step(delivery_tag) is not None or self._is_cut():
            virtual.QoS.ack(self, delivery_tag)
        else:
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Forget a message, or put it back behind the others."""
        step, is_cut = self._step(delivery_tag), self._is_cut()
        if step is None and not is_cut:
            super().reject(delivery_tag, requeue)
            return
        if requeue and not is_cut:
            self._put_back(step, leftmost=True)
        virtual.QoS.ack(self, delivery_tag)

    def restore_unacked(self, client: Any = None) -> Any:
        """Put back all that was not acknowledged, to be delivered next.

        A connection that breaks while it is closed may be gone before its channels. Then there is no way to the broker,
        and an error would end the worker. The store finds steps; of other messages Redis has the copy.
        """
        if self._is_cut():
            self._delivered.clear()
            return None
        for tag in [tag for tag in list(self._delivered) if self._step(tag) is not None]:
            self._put_back(self._delivered.pop(tag))
        return super().restore_unacked(client)

    def _is_cut(self) -> bool:
        """Whether there is no way to the broker any more."""
        transport = self.channel.connection
        return transport is None or transport.client is None

    def _step(self, delivery_tag: str) -> Any:
        message: Any = self._delivered.get(delivery_tag)
        return message if message is not None and HEADER in message.headers else None

    def _put_back(self, step: Any, *, leftmost: bool = False) -> None:
        queue, raw = step.delivery_info["routing_key"], step.serializable()
        with self.channel.conn_or_acquire() as client:
            self.channel._do_restore_message(raw, "", queue, client, leftmost)  # noqa: SLF001


class StepChannel(_Channel):
    """A channel with one client, on which many messages are sent at once, and taken at once."""

    QoS = StepQoS
    from_transport_options = (*_Channel.from_transport_options, "takes_many")
    takes_many = False
    """Whether several messages may be taken at once. For queues of steps alone: a process that dies at that moment
    takes them with it, and other messages have nobody who sends them again."""
    _kept: Any = None
    _taking_many = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.declared: set[str] = set()
        """Queues that need not be declared again."""

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:  # of the consumer, which is made once and bound to its connection
            return super()._create_client(asynchronous=True)
        # A fork, or the end of a connection, leaves the channel without its pool.
        if self._kept is None or self._kept.connection_pool is not self.pool:
            self._kept = super()._create_client()
        return self._kept

    def key_of(self, queue: str, priority: int) -> str:
        """Return the list of a queue that messages of a priority, of the broker's scale, are in."""
        return f"{self.global_keyprefix}{self._q_for_pri(queue, priority)}"

    def queue_of(self, key: str) -> str:
        """Return the queue that a list is of."""
        return key.rsplit(self.sep, 1)[0]

    def push(self, pushes: Sequence[Push]) -> None:
        """Put messages into lists, in one round trip."""
        connection = self.pool.get_connection()
        try:
            connection.send_packed_command(connection.pack_commands([("LPUSH", key, *texts) for key, texts in pushes]))
            answers = [_answer(connection) for _ in pushes]
        except BaseException:
            connection.disconnect()  # whatever it still brings belongs to nobody
            raise
        finally:
            self.pool.release(connection)
        for answer in answers:
            if isinstance(answer, ResponseError):
                raise answer

    @property
    def can_take(self) -> bool:
        """Whether messages can be taken without waiting: not from queues that may hold others than steps, nor from
        servers before Redis 7."""
        return bool(self.takes_many and not self.global_keyprefix)

    def take(self, queue: str, most: int, last: int | None = None) -> Sequence[tuple[str, Envelope]] | None:
        """Take the next messages of a queue without waiting: the list that each was in, and the message.

        They are of one priority, up to the ``last`` on the broker's scale. Returns None where ``can_take`` says that
        none can be taken.
        """
        if not self.can_take:
            return None
        keys = self._lists([queue], last)
        try:
            answer: Any = self._asked("LMPOP", len(keys), *keys, "RIGHT", "COUNT", most, patience_s=_PATIENCE_S)
        except ResponseError:
            self.takes_many = False
            return None
        if answer is None:
            return ()
        key, messages = answer
        return [(bytes_to_str(key), loads(bytes_to_str(message))) for message in messages]

    def waits(self, queues: Sequence[str], last: int | None = None) -> bool:
        """Whether there are messages in any of these queues, up to the ``last`` priority on the broker's scale.

        Always where ``can_take`` says that none can be taken.
        """
        if not self.can_take:
            return True
        keys = self._lists(queues, last)
        return bool(keys and self._asked("EXISTS", *keys, patience_s=_PATIENCE_S))

    def _lists(self, queues: Sequence[str], last: int | None) -> list[str]:
        """Return the lists of queues, those of the most urgent messages first."""
        steps = [each for each in self.priority_steps if last is None or each <= self.priority(last)]
        return [self._q_for_pri(queue, each) for each in steps for queue in queues]

    def put_back(self, key: str, message: Envelope) -> None:
        """Make a message that was taken the next of its list again."""
        self._asked("RPUSH", key, dumps(message), patience_s=_PATIENCE_S)

    def _asked(self, *command: object, patience_s: float | None = None) -> Any:
        connection = self.pool.get_connection()
        try:
            connection.send_command(*command)
            if patience_s is not None and not connection.can_read(patience_s):
                raise TimeoutError(f"the broker has not answered for {patience_s:g} s")
            answer = _answer(connection)
        except BaseException:
            connection.disconnect()
            raise
        finally:
            self.pool.release(connection)
        if isinstance(answer, ResponseError):
            raise answer
        return answer

    def _brpop_start(self, timeout: float | None = None) -> None:
        queues: Any = self._queue_cycle.consume(len(self._active_queues))
        count = self._count()
        self._taking_many = count > 1 and bool(queues)
        if not self._taking_many:
            super()._brpop_start(timeout)
            return
        keys = [self._q_for_pri(queue, priority) for priority in self.priority_steps for queue in queues]
        wait_s = self.brpop_timeout if timeout is None else timeout
        self._in_poll, self._brpop_sent_at = self.client.connection, monotonic()
        self._in_poll.send_command("BLMPOP", wait_s or 0, len(keys), *keys, "RIGHT", "COUNT", count)

    def _count(self) -> int:
        """How many messages to take: not all that there is room for, since other workers may have nothing to do."""
        room = self.qos.can_consume_max_estimate() if self.takes_many and not self.global_keyprefix else 1
        return min(_MOST if room is None else room // 4, _MOST)

    def _brpop_read(self, **options: Any) -> bool:
        if not self._taking_many:
            return bool(super()._brpop_read(**options))
        connection = self.client.connection
        try:
            answer: Any = connection.read_response()
        except ResponseError as refusal:
            logger.debug("Messages are taken one by one: %s", refusal)  # a server before 7.0
            self.takes_many, answer = False, None
        except self.connection_errors:
            connection.disconnect()
            raise
        finally:
            self._in_poll, self._taking_many = None, False
            self._flush_brpop_reauth()
        if not answer:
            raise Empty
        key, messages = answer
        queue = bytes_to_str(key).rsplit(self.sep, 1)[0]
        self._queue_cycle.rotate(queue)
        for message in messages:
            self.connection._deliver(loads(bytes_to_str(message)), queue)  # noqa: SLF001
        return True


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as refusal:
        return refusal


class StepTransport(redis.Transport):
    """kombu's transport with our channels."""

    Channel = StepChannel


class StepConnection(Connection):
    """A connection whose transport is ours where it would be kombu's for Redis; no other is touched."""

    _named: Any = None

    @property
    def transport_cls(self) -> Any:
        """The transport, by its class or its name. The connections of a pool are made from it."""
        return StepTransport if self._named in ("redis", "rediss") else self._named

    @transport_cls.setter
    def transport_cls(self, named: Any) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._named = named

    def info(self) -> dict[str, Any]:
        """Return what people see of it."""
        return {**super().info(), "transport": self._named}


def use_step_transport(app: Celery) -> None:
    """Make an application connect with it. Other applications of the process are not concerned."""
    amqp: Any = app.amqp
    amqp.Connection = StepConnection
