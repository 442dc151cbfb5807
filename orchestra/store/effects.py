"""Effects: what one transaction does to one run beside its main change, and the windows that it fills."""

from collections.abc import Callable, Sequence

from orchestra.store.entries import Entry
from orchestra.store.primitives import Hot, Transaction
from orchestra.store.values import Dispatch

Window = Callable[[str], int]
"""How many ready steps of a queue and priority may be with the broker."""


class Effects:
    """What one transaction does to one run beside its main change: events, and queues whose windows may have room."""

    def __init__(self, tx: Transaction, run_id: str, single: bool, window: Window, now: float) -> None:
        self.tx, self.run_id, self.single, self.window, self.now = tx, run_id, single, window, now
        self.entries: list[Entry] = []
        self.queues: dict[str, None] = {}
        self.dispatches: list[Dispatch] = []

    def say(self, event: str, numbers: Sequence[int] = (), **data: object) -> None:
        """Add an event of the run that the transaction is about."""
        self.entries.append((event, numbers, data))

    def release(self, join: int, bodies: int, queue: str) -> None:
        """The steps behind a join became ready."""
        at_once = self.window(queue) if bodies == 1 else None
        released, sent = self.tx.release(self.run_id, join, at_once, self.now)
        self.released(released)
        self.dispatches += sent

    def released(self, steps: Sequence[tuple[int, str]]) -> None:
        """Steps became ready."""
        if steps:
            self.say("task.queued", [n for n, _queue in steps])
            self.touch(*(queue for _n, queue in steps))

    def meet(self, hot: Hot) -> Hot:
        """A step is concerned: the first one of a single run says by its key that the run is one."""
        self.single = self.single or hot.key == self.run_id
        return hot

    def touch(self, *queues: str) -> None:
        """The windows of these queues may have room."""
        self.queues.update(dict.fromkeys(queues))

    def commit(self) -> list[Dispatch]:
        """Write the events and fill the windows; the last thing in a transaction."""
        if self.entries:
            self.tx.append(self.run_id, self.single, None, self.entries, self.now)
        return self.dispatches + fill(self.tx, list(self.queues), self.window, self.now)


def fill(tx: Transaction, queues: Sequence[str], window: Window, now: float) -> list[Dispatch]:
    """Send the best waiting steps of each queue as far as its window has room for their priority."""
    dispatches: list[Dispatch] = []
    for queue in queues:
        picked, has_room = tx.pick(queue, window(queue), now)
        dispatches += picked
        while picked and has_room:  # nothing picked although something waits: another transaction is picking it
            picked, has_room = tx.pick(queue, window(queue), now)
            dispatches += picked
    return dispatches
