"""Adapter: between Celery's hooks and the cycle. One per process and orchestrator."""

import logging
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from billiard.exceptions import TimeLimitExceeded, WorkerLostError  # pyright: ignore[reportMissingTypeStubs]

from orchestra.engine.outcome import NotFound, Outcome
from orchestra.errors import StoreUnavailable, TaskNotFound
from orchestra.model.ids import MessageRef
from orchestra.model.piece import Piece
from orchestra.runtime.body import error_info, inside
from orchestra.runtime.current import Keeping, keeping
from orchestra.runtime.cycle import Cycle
from orchestra.runtime.interrupting import Interrupter
from orchestra.runtime.loop import stoppable
from orchestra.runtime.observing import Tracing, attempt
from orchestra.runtime.outcomes import Outcomes, of_error, of_retry
from orchestra.runtime.patience import patiently
from orchestra.runtime.quarantine import SUSPECT_FROM, Room, enter, leave
from orchestra.runtime.registry import Registry, calling_by
from orchestra.runtime.routing import HEADER
from orchestra.store.contract import Claimed, ClaimRef, Refused

logger = logging.getLogger(__name__)
T = TypeVar("T")

CLAIM = "orchestra_claim"
RETRY_AFTER = "orchestra_retry_after"
_FOLLOWING = "orchestra_following"
_SETTLED = "orchestra_settled"


@dataclass(frozen=True, slots=True)
class Held:
    """A claim whose body runs in this process."""

    claimed: Claimed
    deadline: float | None
    """Monotonic time at which its time limit is over."""
    place: int
    """Its place in the worker's quarantine."""


class Hands(Protocol):
    """What children of a pool show of what they hold."""

    def in_hand(self, message: str) -> Sequence[str]:
        """Return what the child may hold which was given a message, beside what it is at; Celery ids."""
        ...

    def is_with_others(self, message: str, ref: MessageRef) -> bool:
        """Whether a step may be with another child."""
        ...


class Adapter:
    """What Celery's hooks call: begin a step, and say how it went."""

    def __init__(
        self,
        cycle: Cycle,
        registry: Registry,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        enter: Callable[[str, int], int] = enter,
        leave: Callable[[int], None] = leave,
        is_wanted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.cycle, self.registry = cycle, registry
        self._outcomes = Outcomes(cycle, registry, sleep)
        self._monotonic, self._sleep, self._enter, self._leave = monotonic, sleep, enter, leave
        self._is_wanted = is_wanted
        self.heard: Callable[[], object] = lambda: None
        """Called for each message; set by a reconciler that shares the process with the bodies."""
        self.say: Callable[[Piece], object] = lambda _piece: None
        """Gives what bodies say to those who follow."""
        self.held: dict[ClaimRef, Held] = {}
        """What runs in this process."""
        self._beginning: list[MessageRef] = []
        """What this process is claiming."""
        self.ahead: Claimed | None = None
        """What has been claimed before its tracer begins, if it was."""
        self.stays = False
        """Whether a child goes on with other steps in the place that it has."""
        self._place: int | None = None
        """The place that it has between two of them."""
        self._followers: dict[MessageRef, Claimed] = {}
        """What was claimed with the records of other steps, until it begins."""
        self._expected: dict[ClaimRef, list[MessageRef | str]] = {}
        """What is being claimed with a record: a step, or some step of a run. Behind it, what others were claiming that
        are settled by now: records that are made together share what is claimed with them."""
        self._lock = threading.Lock()
        self._interrupter = Interrupter(self._standing)
        self.lease_s = 5.0
        """How long workers' leases last."""
        self.monitored = registry.travels
        """Whether monitors see what happens to messages; for embedded workers there is none, as a rule."""
        self.leaving: Callable[[], bool] = lambda: False
        """Whether the worker was told to go."""
        self.now_at: Callable[[str], str | None] = lambda message: message
        """Which step a child of this process is at that was given a message, if that can be said; Celery ids both."""
        self.is_coming: Callable[[MessageRef], bool] = lambda _ref: True
        """Whether the worker has a message of a step."""
        self.hands: Hands | None = None
        """What else the children of this process show, if they do."""
        self.tracing: Tracing | None = None
        self.closed = False
        """Whether the orchestrator was closed: what still runs has nowhere to say how it went."""

    def in_one_process(self) -> None:
        """All bodies of the worker run in this process: what keeps suspects apart needs no files."""
        room = Room()
        self._enter, self._leave, self._is_wanted = room.enter, room.leave, room.is_wanted

    def forked(self) -> None:
        """Begin anew in a pool's child: another thread of the parent may have held the lock."""
        self._lock = threading.Lock()
        self.held, self._beginning, self.ahead, self._place = {}, [], None, None
        self._followers, self._expected = {}, {}
        self._interrupter = Interrupter(self._standing)

    def begin(self, request: Any) -> Claimed | Refused:
        """Claim the step of a request. What Celery would publish by itself is taken from it and kept for later."""
        self.heard()
        message = MessageRef.parse(request.id)
        with self._lock:
            self._beginning.append(message)
        try:
            answer = self._claim(message)
        finally:
            with self._lock:
                self._beginning.remove(message)
        if isinstance(answer, Refused):
            return answer
        setattr(request, CLAIM, answer)
        setattr(request, _FOLLOWING, request.chain or ())
        request.chain = request.callbacks = None
        request.retries = answer.attempts
        return answer

    def _claim(self, message: MessageRef) -> Claimed | Refused:
        """Claim in the room where bodies run, so that nothing is held while a suspect keeps others waiting outside."""
        ahead, self.ahead = self.ahead, None
        place, self._place = self._place, None
        if place is None:
            place = self._enter(self.cycle.worker, 0)
        if ahead is None:
            with self._lock:  # a suspect that ran until now may have sent it away
                ahead = self._followers.pop(message, None)
        try:
            answer = patiently(lambda: self.cycle.claim(message), self._sleep) if ahead is None else ahead
        except BaseException:
            self._leave(place)
            raise
        if isinstance(answer, Refused):
            self._leave(place)
            return answer
        if answer.crashes >= SUSPECT_FROM:
            self._leave(place)
            place = self._enter(self.cycle.worker, answer.crashes)
            self._send_away()
        self._hold(answer, place)
        return answer

    # --- what follows a step on its slot, where bodies are threads of this process ------------------------------

    def may_be_followed(self, claim: ClaimRef) -> bool:
        """Whether what follows on the slot of a body that has ended may be claimed with its record."""
        with self._lock:
            held = self.held.get(claim)
        trusted = held is not None and held.claimed.crashes < SUSPECT_FROM
        return trusted and not (self.closed or self.leaving() or self._is_wanted())

    def expect(self, claim: ClaimRef, follower: MessageRef | str) -> None:
        """Something is about to be claimed with the record of a claim: a step, or some step of a run."""
        with self._lock:
            self._expected.setdefault(claim, []).insert(0, follower)

    def follow(self, claimed: Claimed) -> bool:
        """A step was claimed with the record of another, and is begun soon; not while a suspect wants to be alone."""
        if self._is_wanted():
            return False
        with self._lock:
            self._followers[claimed.claim.ref] = claimed
        return True

    def settled(self, claim: ClaimRef) -> None:
        """It is known what was claimed with the record of a claim."""
        with self._lock:
            self._settle(claim)

    def _settle(self, claim: ClaimRef) -> None:
        for its in self._expected.pop(claim, ())[:1]:
            for each in self._expected.values():
                each.append(its)

    def unfollow(self, claimed: Claimed) -> None:
        """A step that was claimed cannot be begun."""
        with self._lock:
            self._followers.pop(claimed.claim.ref, None)

    def _send_away(self) -> None:
        """A suspect runs alone: nothing is to be claimed that would die with it."""
        with self._lock:
            claims = [each.claim for each in self._followers.values()]
            self._followers.clear()
        try:
            patiently(lambda: self.cycle.give_all_back(claims, "another step is to run alone"), self._sleep)
        except StoreUnavailable as away:
            logger.warning("%d steps that were not begun are reopened later: %s", len(claims), away)

    @contextmanager
    def running(self, claimed: Claimed) -> Generator[None]:
        """Mark this thread or coroutine as running the body of a step, which may ask for its ``current()``."""
        cycle, timeout_s = self.cycle, claimed.row.timeout_s

        def make() -> Keeping:
            superseded = lambda: not self.holds(claimed.claim)  # noqa: E731
            return Keeping(cycle.store, claimed, cycle.clock, cycle.worker, superseded, self.leaving, self.say)

        ends_at = None if timeout_s is None else cycle.clock() + timeout_s
        stopping = stoppable(partial(self._interrupter.over, claimed.claim))
        traced = attempt(self.tracing, claimed)
        with traced, calling_by(self.registry), keeping(make, claimed, ends_at), inside(claimed), stopping:
            yield

    def _standing(self) -> Sequence[ClaimRef]:
        """Return the claims of this worker that still count."""
        return [] if self.closed else self.cycle.store.held(self.cycle.worker)

    def busy(self) -> int:
        """How many messages are being worked on in this process, with a claim that still stands or without."""
        with self._lock:
            return len(self.held) + len(self._beginning) + len(self._followers)

    def holds(self, claim: ClaimRef) -> bool:
        """Whether this process knows of a claim: it is making it, running it, or recording what it came to."""
        with self._lock:
            if claim in self.held or claim.ref in self._beginning:
                return True
            if any(claim.ref in each or claim.ref.step.run_id in each for each in self._expected.values()):
                return True
            follows = claim.ref in self._followers
        return follows and self.is_coming(claim.ref)

    def done(self, request: Any, result: object) -> None:
        """The body returned.

        Raises:
            UnserialisableOutput: JSON cannot hold the result; nothing has been recorded.
        """
        claimed: Claimed = getattr(request, CLAIM)
        try:
            outcome = self._outcomes.of_result(claimed, result)
        except StoreUnavailable:
            self._let_go(claimed)  # nobody's from now on: the reconciler reopens it
            raise
        self._record(request, claimed, outcome)

    def failed(self, request: Any, error: BaseException) -> None:
        """The body raised, or the parent process says that its child is gone or took too long."""
        claimed = getattr(request, CLAIM, None)
        if claimed is not None:
            self._record(request, claimed, self._outcomes.of_error(claimed, error))
        elif isinstance(error, (WorkerLostError, TimeLimitExceeded)):
            self._child_gone(request, error)

    def retried(self, request: Any, error: BaseException | None) -> None:
        """The body asked to be tried again (``self.retry``, ``autoretry_for``), with or without an error."""
        claimed = getattr(request, CLAIM, None)
        if claimed is not None:
            self._record(request, claimed, of_retry(error, getattr(request, RETRY_AFTER, 0.0)))
        else:
            # The parent stopped its child, because it lost the broker or is told to go.
            self._child_gone(request, error, "its worker stopped it")

    def revoked(self, request: Any) -> None:
        """Celery refused to run the step, or stopped it, because somebody revoked its id."""
        message = MessageRef.parse(request.id)
        record = patiently(lambda: self.cycle.store.step(message.step), self._sleep)
        if record is not None and record.generation == message.generation:
            patiently(lambda: self.cycle.cancel(message.step.run_id, message.step.n), self._sleep)
        with self._lock:
            self._followers.pop(message, None)
            stopped = [held.claimed for claim, held in self.held.items() if claim.ref == message]
        for claimed in stopped:
            self._let_go(claimed)

    def unknown(self, message: MessageRef, task: str) -> None:
        """The worker has no Celery task of that name."""
        answer = patiently(lambda: self.cycle.claim(message), self._sleep)
        if not isinstance(answer, Refused):
            reason = "the worker's Celery application has none of that name; is its module imported there?"
            self._record(None, answer, NotFound(error_info(TaskNotFound(task, reason))))

    def overdue(self, now: float) -> list[Claimed]:
        """Return what runs here longer than its time limit allows (``now`` is monotonic)."""
        with self._lock:
            return [each.claimed for each in self.held.values() if each.deadline is not None and each.deadline <= now]

    def time_out(self, claimed: Claimed) -> None:
        """Record that a body ran too long. It may run on; what it says later is refused.

        Not patiently: the reconciler that calls this has a lease to renew, and calls again.
        """
        self.cycle.record(claimed, of_error(claimed, TimeLimitExceeded(claimed.row.timeout_s)))
        self._let_go(claimed)

    def _record(self, request: Any, claimed: Claimed, outcome: Outcome) -> None:
        following = getattr(request, _FOLLOWING, ())
        # A body's process has nothing better to do than to wait for the store; threads that serve others have.
        for_ever = request is not None
        record = self.cycle.finish if for_ever else self.cycle.record
        try:
            patiently(
                lambda: None if self.closed else record(claimed, outcome, following), self._sleep, for_ever=for_ever
            )
        finally:
            self._let_go(claimed)

    def _hold(self, claimed: Claimed, place: int) -> None:
        timeout_s = claimed.row.timeout_s
        with self._lock:
            deadline = None if timeout_s is None else self._monotonic() + timeout_s
            self.held[claimed.claim] = Held(claimed, deadline, place)

    def insist(self, operation: Callable[[], T]) -> T:
        """Do a store operation, for as long as that takes: the process of a body has nothing better to do."""
        return patiently(operation, self._sleep, for_ever=True)

    def leave_place(self) -> None:
        """A child does not go on."""
        self.stays, self.ahead = False, None
        place, self._place = self._place, None
        if place is not None:
            self._leave(place)

    def _let_go(self, claimed: Claimed) -> None:
        with self._lock:
            held = self.held.pop(claimed.claim, None)
            self._settle(claimed.claim)
        if held is None:
            return
        if self.stays and claimed.crashes < SUSPECT_FROM and self._place is None:
            self._place = held.place
        else:
            self._leave(held.place)

    def _child_gone(self, request: Any, error: BaseException | None, stopped: str | None = None) -> None:
        """Say in the parent how the claim of its child ended, if the child still held one.

        Args:
            stopped: Why the parent itself ended the child, if it did.
        """
        if getattr(request, _SETTLED, False):
            return  # Celery reports a time limit twice, and a new claim may stand by now
        setattr(request, _SETTLED, True)
        now_at = self.now_at(request.id)
        if now_at is None:
            return  # several children were given this message: the reconciler reopens the claim that nobody is at
        try:
            claimed = self._held_by_worker(now_at)
            self._give_hand_back(request.id, now_at)
        except StoreUnavailable as away:
            # By the time that the store is back, another child may hold a newer claim: the reconciler reopens this one.
            logger.warning("It cannot be said now how %s ended: %s", request.id, away)
            return
        if claimed is None:
            return
        if isinstance(error, TimeLimitExceeded):
            self._record(None, claimed, of_error(claimed, error))
        elif stopped is not None or self.leaving():
            patiently(lambda: self.cycle.give_back(claimed.claim, stopped or str(error)), self._sleep)
        else:
            patiently(lambda: self.cycle.vanish(claimed.claim, str(error)), self._sleep)

    def _give_hand_back(self, message: str, now_at: str) -> None:
        """What a child that is gone had claimed and was not at is nobody's."""
        if self.hands is None:
            return
        found = [self._held_by_worker(each) for each in self.hands.in_hand(message) if each != now_at]
        claims = [each.claim for each in found if each is not None]
        left = [claim for claim in claims if not self.hands.is_with_others(message, claim.ref)]
        self.cycle.give_all_back(left, "the process that had it in hand is gone")

    def _held_by_worker(self, celery_id: str) -> Claimed | None:
        return self.cycle.store.claimed(MessageRef.parse(celery_id), self.cycle.worker)


def is_step(request: Any) -> bool:
    """Whether a request carries a step."""
    return bool(getattr(request, HEADER, None))
