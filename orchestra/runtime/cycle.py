"""The cycle: claim → run → record → hand on. Free of Celery; store, publisher and clock are passed in.

This is what the simulation drives. ``runtime.task`` and ``runtime.backend`` adapt Celery's hooks to it.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from orchestra.engine.outcome import Outcome, Reopened, decide
from orchestra.errors import BrokerUnavailable
from orchestra.model.ids import MessageRef
from orchestra.model.retry import ONCE, RetryPolicy
from orchestra.runtime.observing import Measure, Observe, Sample, of_claim, of_record
from orchestra.store.contract import Claimed, ClaimRef, Dispatch, Onward, Recorded, Refused, Store

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


class GoingOn(Protocol):
    """Chooses what this process goes on with by itself, of what a record hands on."""

    def onward(self, claimed: Claimed, seconds: float, worker: str) -> Onward | None:
        """A claim is about to be recorded whose body took so long: say what may be claimed with that."""
        ...

    def keep(self, claimed: Claimed, recorded: Recorded, following: Sequence[object]) -> Sequence[Dispatch]:
        """It was recorded: return what is to be published."""
        ...


class HandsOnAll:
    """Goes on with nothing."""

    def onward(self, claimed: Claimed, seconds: float, worker: str) -> Onward | None:
        """Nothing is claimed with a record."""

    def keep(self, claimed: Claimed, recorded: Recorded, following: Sequence[object]) -> Sequence[Dispatch]:
        """Everything is published."""
        return recorded.dispatches


class Cycle:
    """What one worker does with messages.

    Args:
        worker: The incarnation that claims. May be changed until the first claim.
        clock: Returns seconds since the epoch.
    """

    def __init__(self, store: Store, publisher: Publisher, clock: Callable[[], float], worker: str) -> None:
        self.store, self.publisher, self.clock, self.worker = store, publisher, clock, worker
        self.observe: Observe | None = None
        """Told what happens; set before the first claim."""
        self.going_on: GoingOn = HandsOnAll()
        """Set before the first claim."""

    def claim(self, message: MessageRef) -> Claimed | Refused:
        """Take the step that a message names, or learn why not."""
        now, begun = self.clock(), time.perf_counter()
        answer = self.store.claim(message, self.worker, now)
        if self.observe is not None and not isinstance(answer, Refused):
            self.observe(of_claim(answer, now, time.perf_counter() - begun))
        return answer

    def record(self, claimed: Claimed, outcome: Outcome, following: Sequence[object] = ()) -> Recorded | None:
        """Record what a claim came to and hand on. None when a newer claim or a cancel stands; nothing changed then."""
        row = claimed.row
        retry = RetryPolicy.from_json(dict(row.retry)) if row.retry else ONCE
        change = decide(outcome, name=claimed.name, attempts=claimed.attempts, crashes=claimed.crashes, retry=retry)
        now, begun = self.clock(), time.perf_counter()
        seconds = 0.0 if claimed.started_at is None else now - claimed.started_at
        onward = self.going_on.onward(claimed, seconds, self.worker)
        recorded = self.store.record(claimed.claim, change, now, onward)
        if self.observe is not None:
            took_s = time.perf_counter() - begun
            self.observe(of_record(claimed, None if recorded is None else change, now, took_s))
            if recorded is not None and recorded.onward is not None:
                self.observe(of_claim(recorded.onward[1], now))
        if recorded is not None:
            self.send(self.going_on.keep(claimed, recorded, following), following)
        return recorded

    def vanish(self, claim: ClaimRef, reason: str) -> Recorded | None:
        """Record that a claim ended without an outcome, and hand on."""
        recorded = self.store.vanish(claim, reason, self.clock())
        self._hand_on(recorded)
        return recorded

    def give_back(self, claim: ClaimRef, reason: str) -> Recorded | None:
        """Leave a claimed step to another worker, and hand on. None when the claim counts no more."""
        recorded = self.store.record(claim, Reopened(reason, crashed=False), self.clock())
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

    def count(self, measure: Measure, number: int = 1) -> None:
        """Tell whoever observes that something happened so many times."""
        if self.observe is not None and number:
            self.observe([Sample(measure, number)])

    def _hand_on(self, recorded: Recorded | None) -> None:
        if recorded is not None:
            self.send(recorded.dispatches)
