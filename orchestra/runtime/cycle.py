"""The cycle: claim → run → record → hand on. Free of Celery; store, publisher and clock are passed in.

This is what the simulation drives. ``runtime.task`` and ``runtime.backend`` adapt Celery's hooks to it.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from orchestra.engine.outcome import Outcome, decide
from orchestra.errors import BrokerUnavailable
from orchestra.model.ids import MessageRef
from orchestra.model.retry import ONCE, RetryPolicy
from orchestra.store.contract import Claimed, ClaimRef, Dispatch, Recorded, Refused, Store

logger = logging.getLogger(__name__)


class Publisher(Protocol):
    """Sends messages."""

    def check(self) -> None:
        """Say whether there is a broker at all, before the first work is stored for it.

        Raises:
            BrokerUnavailable: The broker does not answer, and has not answered before; if it has, it will be back.
        """
        ...

    def publish(self, dispatches: Sequence[Dispatch], following: Sequence[object] = ()) -> None:
        """Send one message for each. ``following`` are the links that the message just handled carried.

        Raises:
            BrokerUnavailable: The broker does not take them.
        """
        ...


class Cycle:
    """What one worker does with messages.

    Args:
        worker: The incarnation that claims. May be changed until the first claim.
        clock: Returns seconds since the epoch.
    """

    def __init__(self, store: Store, publisher: Publisher, clock: Callable[[], float], worker: str) -> None:
        self.store, self.publisher, self.clock, self.worker = store, publisher, clock, worker

    def claim(self, message: MessageRef) -> Claimed | Refused:
        """Take the step that a message names, or learn why not."""
        return self.store.claim(message, self.worker, self.clock())

    def record(self, claimed: Claimed, outcome: Outcome, following: Sequence[object] = ()) -> Recorded | None:
        """Record what a claim came to and hand on. None when a newer claim or a cancel stands; nothing changed then."""
        row = claimed.row
        retry = RetryPolicy.from_json(dict(row.retry)) if row.retry else ONCE
        change = decide(outcome, name=claimed.name, attempts=claimed.attempts, crashes=claimed.crashes, retry=retry)
        recorded = self.store.record(claimed.claim, change, self.clock())
        self._hand_on(recorded, following)
        return recorded

    def vanish(self, claim: ClaimRef, reason: str) -> Recorded | None:
        """Record that a claim ended without an outcome, and hand on."""
        recorded = self.store.vanish(claim, reason, self.clock())
        self._hand_on(recorded)
        return recorded

    def cancel(self, run_id: str, n: int | None) -> Recorded | None:
        """Cancel a run or one of its steps, and hand on."""
        recorded = self.store.cancel(run_id, n, self.clock())
        self._hand_on(recorded)
        return recorded

    def send(self, dispatches: Sequence[Dispatch], following: Sequence[object] = ()) -> None:
        """Publish after a commit. What the broker does not take is found again by the reconciler."""
        if not dispatches:
            return
        try:
            self.publisher.publish(dispatches, following)
        except BrokerUnavailable as error:
            logger.warning("%d messages could not be published and will be sent again: %s", len(dispatches), error)

    def perform(self, message: MessageRef, body: Callable[[Claimed], Outcome]) -> Recorded | Refused | None:
        """Do the whole cycle for one message."""
        claimed = self.claim(message)
        if isinstance(claimed, Refused):
            return claimed
        return self.record(claimed, body(claimed))

    def _hand_on(self, recorded: Recorded | None, following: Sequence[object] = ()) -> None:
        if recorded is not None:
            self.send(recorded.dispatches, following)
