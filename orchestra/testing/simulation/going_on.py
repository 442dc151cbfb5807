"""How the slots and the children of a simulated worker go on by themselves."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from orchestra.model.ids import MessageRef
from orchestra.runtime.cycle import Ended, GoingOn, Turn
from orchestra.runtime.publisher import chain_of
from orchestra.runtime.registry import GENERIC
from orchestra.runtime.routing import HEADER
from orchestra.runtime.succession import Fetched
from orchestra.store.contract import Claimed, ClaimRef, Dispatch, Recorded, Refused
from orchestra.testing.simulation.broker import Broker, Consumer, Message
from orchestra.testing.simulation.departure import Departure
from orchestra.testing.simulation.world import Process, World


class Worker(Consumer, Protocol):
    """Whose slots they are."""

    queues: Sequence[str]
    process: Process
    departure: Departure


class Noted:
    """Notes what a child may begin although its worker is told to go meanwhile, since it went on with it before."""

    def __init__(self, going_on: GoingOn, process: Process) -> None:
        self._going_on, self._process = going_on, process
        self._runs: dict[ClaimRef, Sequence[str]] = {}

    def claimed(self) -> None:
        """See ``GoingOn``."""
        self._going_on.claimed()

    def turn(self, ended: Ended, worker: str) -> Turn | None:
        """See ``GoingOn``."""
        turn, claim = self._going_on.turn(ended, worker), ended.claimed.claim
        if turn is not None and turn.onward is not None and claim not in self._runs and self._process.told_at is None:
            self._runs[claim] = [each.claimed.claim.ref.step.run_id for each in turn.ended]
            self._process.goes_on_in.extend(self._runs[claim])
        return turn

    def settled(self, ended: Ended, recorded: Recorded | None) -> Sequence[Dispatch]:
        """See ``GoingOn``."""
        for run_id in self._runs.pop(ended.claimed.claim, ()):
            self._process.goes_on_in.remove(run_id)
        return self._going_on.settled(ended, recorded)

    def took(self, message: MessageRef, answer: Claimed | Refused) -> None:
        """See ``GoingOn``."""
        self._going_on.took(message, answer)


class Post:
    """What the slots of a worker take without its loop."""

    def __init__(self, worker: Worker, broker: Broker, world: World) -> None:
        self._worker, self._broker, self._world = worker, broker, world

    def is_open(self) -> bool:
        """See ``Post``."""
        return self._world.rng.random() < 0.9

    def fetch(self, after: str) -> Fetched | None:
        """See ``Post``."""
        for queue in sorted(self._worker.queues, key=lambda queue: queue == after):
            message = self._broker.take(queue)
            if message is not None:
                self._broker.hold(message, self._worker)
                self._worker.process.may_begin.add(message.id)
                return Fetched(queue, queue, {"sent": message}, MessageRef.parse(message.id))
        return None

    def put_back(self, fetched: Fetched) -> None:
        """See ``Post``."""
        self._broker.give_back(fetched.message["sent"])

    def deliver(self, fetched: Fetched) -> None:
        """See ``Post``."""
        if self._worker.departure.closed or self._world.rng.random() < 0.05:
            raise ConnectionError("simulated: the worker is not connected")
        self._worker.receive(fetched.message["sent"])

    def written(self, dispatch: Dispatch, following: Sequence[object]) -> Fetched:
        """See ``Post``."""
        chain = chain_of(dispatch, following, lambda priority: priority)
        message = Message(dispatch.ref.celery_id, dispatch.queue, dispatch.priority, chain)
        self._broker.hold(message, self._worker)
        return Fetched(dispatch.queue, dispatch.queue, {"sent": message}, dispatch.ref)


class Whims:
    """Any call may be short, and is not the next time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._targets: set[str] = set()

    def note(self, target: str, seconds: float) -> None:
        """One more call has ended."""
        self._targets.add(target)

    def of(self, target: str) -> float | None:
        """Return what it takes now."""
        return self._world.rng.choice((None, 0.0001, 0.001, 0.02))

    def short(self) -> frozenset[str]:
        """Return what is short now."""
        return frozenset(each for each in sorted(self._targets) if self._world.rng.random() < 0.5)


class Courier:
    """Lets a child take messages without its parent."""

    def __init__(self, broker: Broker, process: Process) -> None:
        self._broker, self._process = broker, process

    def is_open(self) -> bool:
        """See ``Courier``."""
        return not self._broker.away

    def take(self, queue: str, most: int, at_least: int | None = None) -> Sequence[tuple[str, dict[str, Any]]] | None:
        """See ``Courier``."""
        if self._broker.away:
            return None
        taken = list[tuple[str, dict[str, Any]]]()
        while len(taken) < most and (message := self._broker.take(queue, at_least)) is not None:
            self._process.may_begin.add(message.id)
            headers = {HEADER: 1, "id": message.id, "task": GENERIC}
            body = json.dumps([[], {}, {"chain": message.chain}]).encode()
            taken.append((queue, {"headers": headers, "body": base64.b64encode(body).decode(), "sent": message}))
        return taken

    def put_back(self, key: str, message: Mapping[str, Any]) -> None:
        """See ``Courier``."""
        self._broker.put_back(message["sent"])

    def waits(self, queues: Sequence[str], at_least: int | None = None) -> bool:
        """See ``Courier``."""
        return self._broker.waits(queues, at_least)
