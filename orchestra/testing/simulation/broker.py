"""A broker that may do anything: it loses, doubles, delays and reorders messages, and is flushed or away."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from orchestra.errors import BrokerUnavailable
from orchestra.runtime.publisher import chain_of, headers_of
from orchestra.store.contract import Dispatch
from orchestra.testing.simulation.world import Process, Violation, World

LARGEST = 4096
"""Bytes of the largest message that the engine may send."""
_URL = "simulated://"


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """What a worker receives."""

    id: str
    queue: str
    priority: int
    chain: Sequence[Any]


class Consumer(Protocol):
    """A worker, as the broker sees it."""

    queues: Sequence[str]

    def room(self) -> int:
        """How many messages it takes now."""
        ...

    def receive(self, message: Message) -> None:
        """Take a message."""
        ...


class Broker:
    """Queues, and what happens to messages on the way."""

    def __init__(self, world: World) -> None:
        self._world, self._weather = world, world.weather
        self._queues: dict[str, list[Message]] = {}
        self._consumers: list[Consumer] = []
        self._unacknowledged: dict[Message, Consumer] = {}
        self.published = 0
        for at in self._weather.flushes:
            world.at(at, self._flush)
        for _begin, end in self._weather.broker_away:
            world.at(end, self._deliver)

    @property
    def away(self) -> bool:
        """Whether it can be reached now."""
        now = self._world.elapsed
        return any(begin <= now < end for begin, end in self._weather.broker_away)

    def join(self, consumer: Consumer) -> None:
        """A worker connects."""
        self._consumers.append(consumer)
        self._deliver()

    def leave(self, consumer: Consumer) -> None:
        """A worker's connection is gone: what it had not acknowledged comes back, now or (as on Redis) much later."""
        if consumer in self._consumers:
            self._consumers.remove(consumer)
        lost = [message for message, holder in self._unacknowledged.items() if holder is consumer]
        for message in lost:
            del self._unacknowledged[message]
            if self._weather.redelivers:
                self._world.at(self._world.rng.uniform(0, 1), lambda message=message: self._arrive(message))

    def take(self, queue: str, at_least: int | None = None) -> Message | None:
        """A child takes a message by itself, none less urgent: nobody knows of it any more."""
        fitting = [each for each in self._queues.get(queue, ()) if at_least is None or each.priority <= at_least]
        if self.away or not fitting:
            return None
        message = fitting[self._next(fitting)]
        self._queues[queue].remove(message)
        return message

    def waits(self, queues: Sequence[str], at_least: int | None = None) -> bool:
        """Whether a child sees such messages in any of these."""
        waiting = [each for queue in queues for each in self._queues.get(queue, ())]
        return self.away or any(at_least is None or each.priority <= at_least for each in waiting)

    def put_back(self, message: Message) -> None:
        """It was not for that child."""
        self._world.at(0.0, lambda: self._arrive(message))

    def hold(self, message: Message, consumer: Consumer) -> None:
        """A message was taken for a consumer, or is one of its own."""
        self._unacknowledged[message] = consumer

    def acknowledge(self, message: Message) -> None:
        """A message is done with."""
        self._unacknowledged.pop(message, None)

    def give_back(self, message: Message) -> None:
        """A consumer does not want a message after all."""
        del self._unacknowledged[message]
        self._world.at(0.0, lambda: self._arrive(message))

    def look(self) -> None:
        """A consumer has room again."""
        self._world.at(0.0, self._deliver)

    def send(self, message: Message) -> None:
        """Take a message, and do with it what the weather says.

        Raises:
            BrokerUnavailable: It is away; it may have taken the message nevertheless.
        """
        world, weather, rng = self._world, self._weather, self._world.rng
        self.published += 1
        if self.away:
            if rng.random() < 0.2:
                self._travel(message)
            world.note("broker", f"is away for {message.id}")
            raise BrokerUnavailable(_URL, "simulated")
        if world.stormy and rng.random() < weather.lose:
            world.note("broker", f"loses {message.id}")
            return
        self._travel(message)
        if world.stormy and rng.random() < weather.double:
            self._travel(message)

    def _travel(self, message: Message) -> None:
        world, weather = self._world, self._weather
        delay = world.rng.random() * weather.latency_s
        if world.stormy and world.rng.random() < weather.late:
            delay = world.rng.random() * weather.late_s
        copy = Message(message.id, message.queue, message.priority, message.chain)
        world.at(delay, lambda: self._arrive(copy))

    def _arrive(self, message: Message) -> None:
        self._queues.setdefault(message.queue, []).append(message)
        self._deliver()

    def _flush(self) -> None:
        lost = sum(len(each) for each in self._queues.values())
        self._queues.clear()
        self._world.note("broker", f"is flushed: {lost} messages are gone")

    def _deliver(self) -> None:
        if self.away:
            return
        for queue, messages in self._queues.items():
            while messages:
                takers = [each for each in self._consumers if queue in each.queues and each.room() > 0]
                if not takers:
                    break
                taker = self._world.rng.choice(takers)
                message = messages.pop(self._next(messages))
                self._unacknowledged[message] = taker
                taker.receive(message)

    def _next(self, messages: Sequence[Message]) -> int:
        if not self._weather.keeps_priority:
            return self._world.rng.randrange(len(messages))
        return min(range(len(messages)), key=lambda at: messages[at].priority)


class SimPublisher:
    """Publishes for one process. What a message carries is made by the code that makes it in earnest."""

    def __init__(
        self, world: World, broker: Broker, process: Process, watch: Callable[[Process, Dispatch], None]
    ) -> None:
        self._world, self._broker, self._process, self._watch = world, broker, process, watch

    def check(self) -> None:
        """It is there, as far as anybody can tell before the first message."""

    def close(self) -> None:
        """Nothing is open."""

    def publish(self, dispatches: Sequence[Dispatch], following: Sequence[Any] = ()) -> None:
        """Send one message for each; the process may die between any two."""
        for each in dispatches:
            self._world.point(f"before publishing {each.ref.celery_id}")
            chain = chain_of(each, following, _same)
            size = len(json.dumps([[], {}, {"chain": chain}])) + len(json.dumps(headers_of(each)))
            if size > LARGEST:
                raise Violation("6 messages are small", f"{each.ref.celery_id} has {size} bytes")
            self._watch(self._process, each)
            self._world.note(self._process.name, f"publishes {each.ref.celery_id} to {each.queue}")
            self._broker.send(Message(each.ref.celery_id, each.queue, each.priority, chain))
        self._world.point("after publishing")


def _same(priority: int) -> int:
    return priority
