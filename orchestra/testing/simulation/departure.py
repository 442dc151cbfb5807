"""Departure: how a simulated worker goes that was told to. What it gives back and when is decided by the real code."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestra.errors import StoreUnavailable
from orchestra.runtime.cycle import Cycle
from orchestra.runtime.leaving import Leaving, Notice
from orchestra.runtime.reconciler import Reconciler
from orchestra.testing.simulation.broker import Broker, Message
from orchestra.testing.simulation.strand import Killed, Strand
from orchestra.testing.simulation.world import Process, World

_LOOK_S = 0.05
_JOIN_S = 1.0
"""How long a worker waits for the tick of its reconciler that is under way."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker has taken."""

    waiting: list[Message] = field(default_factory=list[Message])
    handling: list[Message] = field(default_factory=list[Message])
    children: dict[Message, Strand] = field(default_factory=dict[Message, Strand])
    """What runs as the child would that was given a message. Empty where bodies run on the worker's own threads."""


class Departure:
    """The way out of one worker.

    Args:
        forks: Whether its bodies run in children.
    """

    def __init__(
        self, world: World, broker: Broker, process: Process, work: Work, reconciler: Reconciler, cycle: Cycle,
        notice: Notice, *, forks: bool,
    ) -> None:  # fmt: skip
        self._world, self._broker, self._process, self._work = world, broker, process, work
        self._reconciler, self._forks = reconciler, forks
        self._leaving = Leaving(
            cycle, notice, grace_s=world.weather.grace_s, release=self._release, leave=self._leave,
            start=self._start, wait=self._wait,
        )  # fmt: skip
        self.closed = False
        """Whether it takes no more messages."""
        self._ticking = self._released = False

    # --- as the worker sees it ----------------------------------------------------------------------------------

    def begin(self) -> None:
        """The worker is told to go, as by SIGTERM. A second time does nothing."""
        if self._process.alive and self._process.told_at is None:
            self._world.spawn(self._process, "told to go", self._go)

    def tick(self) -> float | None:
        """Let the reconciler tick, and return when to do so again: never, once the lease has been given back."""
        if self._released:
            return None
        self._ticking = True
        wait = self._reconciler.turn()
        self._ticking = False
        return wait

    # --- the way ------------------------------------------------------------------------------------------------

    def _go(self) -> None:
        world = self._world
        if self._process.told_at is not None:
            return
        self._process.told_at = world.now
        world.note(self._process.name, "is told to go")
        self._leaving.begin(self)
        world.sleep(world.rng.choice((0.0, 0.0, 0.05)))  # until its loop turns
        self.closed = True
        self._reconciler.slots = 0
        while self._work.waiting:
            self._broker.give_back(self._work.waiting.pop())
        while self._work.handling:
            world.sleep(_LOOK_S)
        self._leaving.end()
        self._release()
        self._leave()

    def _start(self, way_out: Callable[[], None]) -> None:
        self._world.spawn(self._process, "way out", way_out)

    def _wait(self, event: threading.Event, seconds: float) -> None:
        until = self._world.now + seconds
        while not event.is_set() and self._world.now < until:
            self._world.sleep(min(_LOOK_S, until - self._world.now))

    def _release(self) -> None:
        """As the thread of a reconciler that is stopped."""
        if self._released:
            return
        self._released = True
        until = self._world.now + _JOIN_S
        while self._ticking and self._world.now < until:
            self._world.sleep(_LOOK_S)
        try:
            self._reconciler.stop()
        except StoreUnavailable as error:
            self._world.note(self._process.name, f"cannot give its lease back: {error}")

    def _leave(self) -> None:
        self._world.leave(self._process)
        raise Killed(self._process.name)

    # --- bodies -------------------------------------------------------------------------------------------------

    def end(self) -> int:
        """Kill the children, or say how many bodies run that cannot be ended."""
        self._process.cut |= bool(self._work.handling)
        for child in self._work.children.values():
            self._world.tear(child)
        return 0 if self._forks else len(self._work.handling)

    def abandon(self) -> None:
        """Acknowledge what runs."""
        for message in self._work.handling:
            self._broker.acknowledge(message)
