"""The window: how many ready steps of a queue may be with the broker, by the slots that live workers have for it.

What is with the broker goes in the order of its sending: a step that becomes ready later, and is the first of a longer
path, goes behind it. For short bodies that is no time at all, and what is sent has to last until more has come; where
bodies are long, little is sent.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestra.store.contract import LASTS_S, PER_SLOT, WINDOW, Lease, NewRun

READ_EVERY_S = 2.0
"""How old the knowledge of leases may be. A worker that starts is counted so much later."""
_WEIGHT = 0.1
"""Of the newest duration among those before."""
READ_AGAIN_S = 0.1
"""How old it may be where it would keep back steps of a run that is being created."""


@dataclass(frozen=True, slots=True)
class Windows:
    """The window of each queue, as it was known at some time."""

    floor: int
    others: Mapping[str, int] = field(default_factory=dict[str, int])
    """Queues whose window is another than the floor."""

    def __call__(self, queue: str) -> int:
        """Return the window of a queue."""
        return self.others.get(queue, self.floor)

    @property
    def text(self) -> str:
        """What scripts are told: the floor and, after a space, JSON of the other windows where there are any."""
        return f"{self.floor} {json.dumps(self.others)}" if self.others else str(self.floor)


class LiveWindow:
    """What one store object knows of live workers and of how long bodies take, shared by its threads.

    Args:
        leases: Reads all leases of the store; never called inside a transaction.
        floor: What a window is at least.
    """

    def __init__(self, leases: Callable[[], Sequence[Lease]], floor: int = WINDOW) -> None:
        self._leases = leases
        self._known = Windows(floor)
        self._live: Sequence[Lease] = ()
        self._lately_s: float | None = None
        """What bodies have taken lately in this process, on average; None where it has run none."""
        self._made_for_s: float | None = None
        """The same when the windows were made."""
        self._read_at: float | None = None

    def at(self, now: float, steps: int = 0) -> Windows:
        """Return the windows; to be asked for before the transaction that fills them begins.

        Args:
            steps: How many may have to fit into one: many are worth a look at who has started meanwhile, since what is
                kept back waits for the first of the others to end.

        Raises:
            StoreUnavailable: The leases were due to be read, and the store does not answer.
        """
        known_for_s = READ_EVERY_S if steps <= self._known.floor else READ_AGAIN_S
        # A clock that was set back must not keep what is known for ever.
        if self._read_at is None or not 0.0 <= now - self._read_at < known_for_s:
            self._read_at = now  # first, so that other threads go on with what is known meanwhile
            self._live = [lease for lease in self._leases() if lease.expires_at > now]
            self._make()
        return self._known

    def note(self, seconds: float) -> None:
        """A body has ended that took so long."""
        lately_s = seconds if self._lately_s is None else self._lately_s + _WEIGHT * (seconds - self._lately_s)
        self._lately_s = lately_s
        if self._made_for_s is None or not self._made_for_s / 2 <= lately_s <= self._made_for_s * 2:
            self._make()

    def _make(self) -> None:
        self._made_for_s = self._lately_s
        self._known = windows(self._live, self._known.floor, self._lately_s)


def steps_of(runs: Sequence[NewRun]) -> int:
    """Return how many steps runs begin with, ready or not."""
    return sum(len(each.plan.steps) for each in runs)


def windows(live: Sequence[Lease], floor: int, body_s: float | None = None) -> Windows:
    """Return the windows: ``PER_SLOT`` times the slots that serve a queue, and at least the floor.

    Args:
        live: Leases that have not expired.
        body_s: How long bodies take. Then less will do: one step for each slot, and what lasts for ``LASTS_S``.
    """
    slots: dict[str, int] = {}
    for lease in live:
        for queue in lease.queues:
            slots[queue] = slots.get(queue, 0) + lease.slots
    sizes = {queue: _size(number, floor, body_s) for queue, number in slots.items()}
    return Windows(floor, {queue: size for queue, size in sizes.items() if size != floor})


def _size(slots: int, floor: int, body_s: float | None) -> int:
    most = max(floor, PER_SLOT * slots)
    if body_s is None or body_s * most <= LASTS_S * slots:
        return most
    return min(most, slots + math.ceil(slots * LASTS_S / body_s))
