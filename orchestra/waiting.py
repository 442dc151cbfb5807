"""Waiting: until something in the store has ended."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from orchestra.errors import WouldDeadlock
from orchestra.lifetime import Lifetime
from orchestra.model.record import RunRecord, StepRecord
from orchestra.runtime.body import running_step
from orchestra.runtime.local import LocalWorker

logger = logging.getLogger(__name__)

R = TypeVar("R", StepRecord, RunRecord)

HINT_AFTER_S = 3.0
_FIRST_POLL_S, _LAST_POLL_S = 0.002, 0.1


def _poll_s(waited_s: float) -> float:
    """Return how long to wait for news before looking again: what ends within seconds is seen within 25 ms."""
    return min(_LAST_POLL_S, max(_FIRST_POLL_S, min(waited_s / 20, 0.025), waited_s / 200))


class Waiting:
    """Wakes who waits at each commit of this process, and polls, since other processes' commits are not heard."""

    def __init__(self, lifetime: Lifetime, local: LocalWorker | None, clock: Callable[[], float]) -> None:
        self._lifetime, self._local, self._clock = lifetime, local, clock
        self._changed = threading.Condition()

    def ring(self) -> None:
        """Say that there was a commit. Quick, from any thread."""
        with self._changed:
            self._changed.notify_all()

    def until_ended(self, read: Callable[[], R], what: str, timeout_s: float | None) -> R:
        """Read a record until it has ended, and return it.

        Raises:
            TimeoutError: It has not ended in time.
            WouldDeadlock: Called inside a step.
        """
        if running_step() is not None:
            raise WouldDeadlock(what)
        begun = time.monotonic()
        end = None if timeout_s is None else begun + timeout_s
        hint_at = begun + HINT_AFTER_S
        while not (record := read()).status.ended:
            now = time.monotonic()
            if end is not None and now >= end:
                raise TimeoutError(f"{what!r} had not ended after {timeout_s:g} s; it goes on")
            if now >= hint_at:
                hint_at = float("inf")
                self._hint()
            poll = _poll_s(now - begun)
            with self._changed:
                self._changed.wait(poll if end is None else min(poll, end - now))
        return record

    def _hint(self) -> None:
        """Somebody waits: say so if no worker serves a queue that has steps ready."""
        store = self._lifetime.store
        served = {queue for lease in store.leases() if lease.expires_at > self._clock() for queue in lease.queues}
        served |= self._local.queues if self._local is not None else set()
        for queue, depth in store.depth().items():
            if queue not in served:
                logger.warning(
                    "%d tasks are ready on queue %r and no worker serves it; start one with: "
                    "orchestra worker --app MODULE:ATTRIBUTE --queues %s",
                    depth,
                    queue,
                    queue,
                )
