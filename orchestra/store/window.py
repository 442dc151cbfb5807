"""The window: how many ready steps of a queue may be with the broker, by the slots that live workers have for it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestra.store.contract import PER_SLOT, WINDOW, Lease, NewRun

READ_EVERY_S = 2.0
"""How old the knowledge of leases may be. A worker that starts is counted so much later."""
READ_AGAIN_S = 0.1
"""How old it may be where it would keep back steps of a run that is being created."""


@dataclass(frozen=True, slots=True)
class Windows:
    """The window of each queue, as it was known at some time."""

    floor: int
    above: Mapping[str, int] = field(default_factory=dict[str, int])
    """Queues whose window is greater than the floor."""

    def __call__(self, queue: str) -> int:
        """Return the window of a queue."""
        return self.above.get(queue, self.floor)

    @property
    def text(self) -> str:
        """What scripts are told: the floor and, after a space, JSON of the windows above it where there are any."""
        return f"{self.floor} {json.dumps(self.above)}" if self.above else str(self.floor)


class LiveWindow:
    """What one store object knows of live workers, shared by its threads.

    Args:
        leases: Reads all leases of the store; never called inside a transaction.
        floor: What a window is at least.
    """

    def __init__(self, leases: Callable[[], Sequence[Lease]], floor: int = WINDOW) -> None:
        self._leases = leases
        self._known = Windows(floor)
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
            self._known = windows(self._leases(), self._known.floor, now)
        return self._known


def steps_of(runs: Sequence[NewRun]) -> int:
    """Return how many steps runs begin with, ready or not."""
    return sum(len(each.plan.steps) for each in runs)


def windows(leases: Sequence[Lease], floor: int, now: float) -> Windows:
    """Return the windows: ``PER_SLOT`` times the slots that serve a queue under leases that have not expired."""
    sizes: dict[str, int] = {}
    for lease in leases:
        if lease.expires_at > now:
            for queue in lease.queues:
                sizes[queue] = sizes.get(queue, 0) + PER_SLOT * lease.slots
    return Windows(floor, {queue: size for queue, size in sizes.items() if size > floor})
