"""Recovery: who is dead, and whether a worker may conclude that messages were lost. Pure questions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

UNHEARD_S = 1.0
"""A worker with a free slot that has received nothing for so long looks for steps whose messages were lost."""
RESEND_PER_SLOT = 4
DEAF_S = 5.0
"""A worker that sends steps again, hears none of them and sees that nobody claims them is deaf itself."""


class LeaseFacts(Protocol):
    """What recovery has to know of a lease."""

    @property
    def host(self) -> str: ...
    @property
    def boot_id(self) -> str: ...
    @property
    def pid(self) -> int: ...
    @property
    def pid_started(self) -> float: ...
    @property
    def expires_at(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine that asks, and which of its processes is asking."""

    host: str
    boot_id: str
    is_alive: Callable[[int, float], bool]
    """Whether a process of that id and start time lives here."""
    pid: int
    pid_started: float


def why_dead(lease: LeaseFacts, machine: Machine, *, now: float, may_expire: bool) -> str | None:
    """Return why a worker counts as dead, or None while it may be alive.

    On its own machine it is seen at once, by process id and start time. Elsewhere its lease decides, but only when the
    asker has seen the store healthy for a whole lease time (``may_expire``): an outage of the store must not turn into
    a mass of doubles.
    """
    if lease.host == machine.host and machine.boot_id:
        if lease.boot_id != machine.boot_id:
            return "its machine was started anew"
        if not machine.is_alive(lease.pid, lease.pid_started):
            return "its process is gone"
    if may_expire and lease.expires_at <= now:
        return "its lease ran out"
    return None


def to_resend(*, slots: int, busy: int, heard_ago_s: float, rounds: int = 0) -> int:
    """Return how many unheard steps an idle worker sends again at most; 0 while it is busy or has just heard.

    ``rounds`` is how often in a row it has found some: each makes the number four times as large, since a broker that
    lost one message after the other has lost them all.
    """
    free = slots - busy
    return RESEND_PER_SLOT * free << 2 * min(rounds, 4) if free > 0 and heard_ago_s >= UNHEARD_S else 0
