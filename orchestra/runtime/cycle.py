"""The cycle: claim → run → record → hand on. Free of Celery; store, publisher and clock are passed in.

This is what the simulation drives. ``runtime.task`` and ``runtime.backend`` adapt Celery's hooks to it.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from orchestra.engine.outcome import Change, Outcome, Reopened, decide
from orchestra.errors import BrokerUnavailable
from orchestra.model.ids import MessageRef
from orchestra.model.retry import ONCE, RetryPolicy
from orchestra.runtime.observing import Measure, Observe, Sample, of_claim, of_record
from orchestra.store.contract import (
    Claimed,
    ClaimRef,
    Dispatch,
    Onward,
    Recorded,
    Refused,
    Store,
    ToClaim,
    ToRecord,
)
from orchestra.store.learning import knows_nothing

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

    def close(self) -> None:
        """Nothing is published any more; a second time does nothing."""
        ...


class Ended(NamedTuple):
    """What a claim came to, when, and the links that its message carried."""

    claimed: Claimed
    change: Change
    at: float
    following: Sequence[object] = ()


class Turn(NamedTuple):
    """What is asked of the store in one transaction: records, claims of what they hand on, and claims of messages."""

    ended: Sequence[Ended]
    onward: Onward | None = None
    messages: Sequence[MessageRef] = ()


class GoingOn(Protocol):
    """Chooses what this process goes on with by itself, and when it records."""

    def claimed(self) -> None:
        """A step was claimed, and its body begins: what that takes is counted from now."""
        ...

    def turn(self, ended: Ended, worker: str) -> Turn | None:
        """A body has ended: say what is to be asked of the store now. None: it is recorded with those that follow.

        Asked again when the store did not answer.
        """
        ...

    def settled(self, ended: Ended, recorded: Recorded | None) -> Sequence[Dispatch]:
        """It was recorded, or superseded: return what is to be published."""
        ...

    def took(self, message: MessageRef, answer: Claimed | Refused) -> None:
        """The step of a message was claimed, or not."""
        ...


class HandsOnAll:
    """Goes on with nothing, and records at once."""

    def claimed(self) -> None:
        """It counts nothing."""

    def turn(self, ended: Ended, worker: str) -> Turn | None:
        """Each is recorded alone."""
        return Turn((ended,))

    def settled(self, ended: Ended, recorded: Recorded | None) -> Sequence[Dispatch]:
        """Everything is published."""
        return recorded.dispatches if recorded is not None else ()

    def took(self, message: MessageRef, answer: Claimed | Refused) -> None:
        """It never asks for that."""


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
        self.learns = True
        """Whether windows follow what bodies take."""
        self.learned: Callable[[str], Mapping[str, float]] = knows_nothing
        """Seconds that the steps of a workflow have taken; set before the first submit."""

    def claim(self, message: MessageRef) -> Claimed | Refused:
        """Take the step that a message names, or learn why not."""
        now, begun = self.clock(), time.perf_counter()
        answer = self.store.claim(message, self.worker, now)
        if not isinstance(answer, Refused):
            if self.observe is not None:
                self.observe(of_claim(answer, now, time.perf_counter() - begun))
            self.going_on.claimed()
        return answer

    def record(self, claimed: Claimed, outcome: Outcome, following: Sequence[object] = ()) -> Recorded | None:
        """Record what a claim came to and hand on. None when a newer claim or a cancel stands; nothing changed then."""
        return self.settle(Turn((self._ended(claimed, outcome, following),)))[0]

    def finish(self, claimed: Claimed, outcome: Outcome, following: Sequence[object] = ()) -> None:
        """Do the same for a body of this process: now, or together with those that follow."""
        turn = self.going_on.turn(self._ended(claimed, outcome, following), self.worker)
        if turn is not None:
            self.settle(turn)

    def settle(self, turn: Turn) -> list[Recorded | None]:
        """Ask the store for all of a turn, and hand on what comes of it. Returns what became of what had ended."""
        begun = time.perf_counter()
        recorded, taken = self._ask(turn)
        took_s = time.perf_counter() - begun
        dispatches: list[Dispatch] = []
        for ended, its in zip(turn.ended, recorded, strict=True):
            self._tell(ended, its, took_s)
            handed_on = self.going_on.settled(ended, its)
            if ended.following:
                self.send(handed_on, ended.following)
            else:
                dispatches += handed_on
        for message, answer in zip(turn.messages, taken, strict=True):
            if self.observe is not None and not isinstance(answer, Refused):
                self.observe(of_claim(answer, self.clock()))
            self.going_on.took(message, answer)
        self.send(dispatches)
        return recorded

    def _ended(self, claimed: Claimed, outcome: Outcome, following: Sequence[object]) -> Ended:
        row = claimed.row
        retry = RetryPolicy.from_json(dict(row.retry)) if row.retry else ONCE
        change = decide(outcome, name=claimed.name, attempts=claimed.attempts, crashes=claimed.crashes, retry=retry)
        now = self.clock()
        if self.learns and claimed.started_at is not None:
            self.store.note_body(max(0.0, now - claimed.started_at))
        return Ended(claimed, change, now, following)

    def _ask(self, turn: Turn) -> tuple[list[Recorded | None], list[Claimed | Refused]]:
        if len(turn.ended) == 1 and not turn.messages:
            (claimed, change, at, _following), onward = turn.ended[0], turn.onward
            return [self.store.record(claimed.claim, change, at, onward)], []
        now = self.clock()
        wanted: list[ToClaim | ToRecord] = [ToRecord(each.claimed.claim, each.change, each.at) for each in turn.ended]
        wanted += [ToClaim(message, self.worker, now) for message in turn.messages]
        answers: list[Any] = list(self.store.together(wanted, turn.onward))
        return answers[: len(turn.ended)], answers[len(turn.ended) :]

    def _tell(self, ended: Ended, recorded: Recorded | None, took_s: float) -> None:
        claimed, change, at, _following = ended
        if recorded is None:
            logger.info("%s of %s was superseded; its outcome is not recorded", claimed.claim, claimed.name)
        if self.observe is None:
            return
        self.observe(of_record(claimed, None if recorded is None else change, at, took_s))
        for _dispatch, its in () if recorded is None else recorded.onward:
            self.observe(of_claim(its, at))

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

    def give_all_back(self, claims: Sequence[ClaimRef], reason: str) -> None:
        """Do the same with several, in one transaction."""
        now = self.clock()
        wanted = [ToRecord(claim, Reopened(reason, crashed=False), now) for claim in claims]
        for recorded in self.store.together(wanted) if wanted else ():
            if isinstance(recorded, Recorded):
                self._hand_on(recorded)

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
