"""Adapter: between Celery's hooks and the cycle. One per process and orchestrator."""

import logging
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from typing import Any, TypeVar

from billiard.exceptions import TimeLimitExceeded, WorkerLostError  # pyright: ignore[reportMissingTypeStubs]

from orchestra.engine.outcome import Done, GivenBack, NotFound, Outcome, Raised, Spread
from orchestra.engine.plan import StepInput, plan
from orchestra.engine.rows import Expansion, of_elements, of_plan
from orchestra.errors import (
    DefinitionError,
    LeftEarly,
    ModelBusy,
    StoreUnavailable,
    TaskNotFound,
    TaskTimedOut,
    TooManyRounds,
    UsageLimitReached,
)
from orchestra.model.condition import holds
from orchestra.model.function import BoundWorkflow
from orchestra.model.ids import MessageRef
from orchestra.model.piece import Piece
from orchestra.model.record import ErrorInfo
from orchestra.model.workflow import Workflow
from orchestra.runtime.body import error_info, inside
from orchestra.runtime.codec import decode, encode_output
from orchestra.runtime.current import Keeping, keeping
from orchestra.runtime.cycle import Cycle
from orchestra.runtime.interrupting import Interrupter
from orchestra.runtime.loop import stoppable
from orchestra.runtime.observing import Tracing, attempt, carried_by, carrying
from orchestra.runtime.quarantine import SUSPECT_FROM, Room, enter, leave
from orchestra.runtime.registry import GENERIC, Registry, calling_by
from orchestra.runtime.routing import HEADER
from orchestra.store.contract import Claimed, ClaimRef, Recorded, Refused

logger = logging.getLogger(__name__)
T = TypeVar("T")

CLAIM = "orchestra_claim"
RETRY_AFTER = "orchestra_retry_after"
_FOLLOWING = "orchestra_following"
_SETTLED = "orchestra_settled"
_PATIENCE_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, 5.0)


_MOST_RETURNS = 600
MOST_WAITS = 20
"""How often a step waits for a model that asks it to, before its retry policy decides."""
MAX_ROUNDS = 100
"""How deep sub-workflows may nest, where a task does not say."""


@dataclass(frozen=True, slots=True)
class Elements:
    """What the body of a map returns: the inputs of its parts."""

    inputs: Sequence[StepInput]


@dataclass(frozen=True, slots=True)
class Held:
    """A claim whose body runs in this process."""

    claimed: Claimed
    deadline: float | None
    """Monotonic time at which its time limit is over."""
    place: int
    """Its place in the worker's quarantine."""


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
    ) -> None:
        self.cycle, self.registry = cycle, registry
        self._monotonic, self._sleep, self._enter, self._leave = monotonic, sleep, enter, leave
        self.heard: Callable[[], object] = lambda: None
        """Called for each message; set by a reconciler that shares the process with the bodies."""
        self.say: Callable[[Piece], object] = lambda _piece: None
        """Gives what bodies say to those who follow."""
        self.held: dict[ClaimRef, Held] = {}
        """What runs in this process."""
        self._beginning: list[MessageRef] = []
        """What this process is claiming."""
        self._ahead: dict[MessageRef, Held] = {}
        """What was claimed with the record before, in the place that this had, until its body begins."""
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
        self.tracing: Tracing | None = None
        self.closed = False
        """Whether the orchestrator was closed: what still runs has nowhere to say how it went."""

    def in_one_process(self) -> None:
        """All bodies of the worker run in this process: what keeps suspects apart needs no files."""
        room = Room()
        self._enter, self._leave = room.enter, room.leave

    def forked(self) -> None:
        """Begin anew in a pool's child: another thread of the parent may have held the lock."""
        self._lock = threading.Lock()
        self.held, self._beginning, self._ahead = {}, [], {}
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
        ahead = self._ahead.pop(message, None)
        place = self._enter(self.cycle.worker, 0) if ahead is None else ahead.place
        try:
            answer = patiently(lambda: self.cycle.claim(message), self._sleep) if ahead is None else ahead.claimed
        except BaseException:
            self._leave(place)
            raise
        if isinstance(answer, Refused):
            self._leave(place)
            return answer
        if answer.crashes >= SUSPECT_FROM:
            self._leave(place)
            place = self._enter(self.cycle.worker, answer.crashes)
        self._hold(answer, place)
        return answer

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
            return len(self.held) + len(self._beginning)

    def holds(self, claim: ClaimRef) -> bool:
        """Whether this process knows of a claim: it is making it, running it, or recording what it came to."""
        with self._lock:
            return claim in self.held or claim.ref in self._beginning

    def done(self, request: Any, result: object) -> None:
        """The body returned.

        Raises:
            UnserialisableOutput: JSON cannot hold the result; nothing has been recorded.
        """
        claimed: Claimed = getattr(request, CLAIM)
        try:
            outcome = self._done(claimed, result)
        except StoreUnavailable:
            self._let_go(claimed)  # nobody's from now on: the reconciler reopens it
            raise
        self._record(request, claimed, outcome)

    def _done(self, claimed: Claimed, result: object) -> Outcome:
        if isinstance(result, Elements):
            return Spread(self._spread(claimed, result.inputs))
        if isinstance(result, Workflow | BoundWorkflow):
            return self._nested(claimed, result)
        output = encode_output(result, claimed.name, adopted=claimed.row.task != GENERIC)
        whens = claimed.row.whens or {}
        # What the condition sees is what its steps will see: the output as JSON has it.
        seen = decode(output) if whens else None
        return Done(output, frozenset(int(join) for join, when in whens.items() if not holds(when, seen)))

    def _spread(self, claimed: Claimed, inputs: Sequence[StepInput]) -> Expansion:
        run_id = claimed.claim.ref.step.run_id
        first, _join = patiently(lambda: self.cycle.store.reserve(run_id, len(inputs), 0), self._sleep)
        return of_elements(claimed.row, inputs, first)

    def _nested(self, claimed: Claimed, result: Workflow | BoundWorkflow) -> Outcome:
        """A step returned a workflow: it becomes that workflow."""
        row = claimed.row
        limit = MAX_ROUNDS if row.max_rounds is None else row.max_rounds
        if row.round >= limit:
            return Raised(error_info(TooManyRounds(row.name, limit)), final=True)
        try:
            graph = result.graph() if isinstance(result, Workflow) else result.graph
            compiled = plan(
                graph, self.registry.bind, priority=row.priority, queue=row.queue, gathered=True, alone=bool(row.whens)
            )
        except DefinitionError as error:
            return Raised(error_info(error), final=True)
        compiled = carrying(compiled, carried_by(claimed))
        run_id = claimed.claim.ref.step.run_id
        first_n, first_join = patiently(
            lambda: self.cycle.store.reserve(run_id, len(compiled.steps), len(compiled.joins)), self._sleep
        )
        return Spread(of_plan(compiled, row, first_n, first_join))

    def failed(self, request: Any, error: BaseException) -> None:
        """The body raised, or the parent process says that its child is gone or took too long."""
        claimed = getattr(request, CLAIM, None)
        if claimed is not None:
            self._record(request, claimed, self._outcome(error, claimed))
        elif isinstance(error, (WorkerLostError, TimeLimitExceeded)):
            self._child_gone(request, error)

    def _outcome(self, error: BaseException, claimed: Claimed) -> Outcome:
        outcome = _outcome(error, claimed)
        if isinstance(outcome, NotFound) and not self.registry.travels and claimed.claim.claim < _MOST_RETURNS:
            # Programs that share a state file each have functions of their own: leave the step to the one that has it.
            others = any(each.incarnation != self.cycle.worker for each in self.cycle.store.leases())
            return NotFound(outcome.error, elsewhere=others)
        return outcome

    def retried(self, request: Any, error: BaseException | None) -> None:
        """The body asked to be tried again (``self.retry``, ``autoretry_for``), with or without an error."""
        claimed = getattr(request, CLAIM, None)
        if claimed is not None:
            self._record(request, claimed, _asked(error, getattr(request, RETRY_AFTER, 0.0)))
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
        self.cycle.record(claimed, _outcome(TimeLimitExceeded(claimed.row.timeout_s), claimed))
        self._let_go(claimed)

    def _record(self, request: Any, claimed: Claimed, outcome: Outcome) -> Recorded | None:
        following = getattr(request, _FOLLOWING, ())
        # A body's process has nothing better to do than to wait for the store; threads that serve others have.
        for_ever = request is not None
        try:
            recorded = patiently(
                lambda: None if self.closed else self.cycle.record(claimed, outcome, following),
                self._sleep,
                for_ever=for_ever,
            )
            if recorded is not None and recorded.onward is not None:
                self._hand_over(claimed, recorded.onward[1])
        finally:
            self._let_go(claimed)
        if recorded is None:
            logger.info("%s of %s was superseded; its outcome is not recorded", claimed.claim, claimed.name)
        return recorded

    def _hold(self, claimed: Claimed, place: int) -> None:
        timeout_s = claimed.row.timeout_s
        with self._lock:
            deadline = None if timeout_s is None else self._monotonic() + timeout_s
            self.held[claimed.claim] = Held(claimed, deadline, place)

    def _hand_over(self, claimed: Claimed, following: Claimed) -> None:
        """What was claimed with a record gets the place of what was recorded."""
        with self._lock:
            held = self.held.pop(claimed.claim, None)
        place = self._enter(self.cycle.worker, 0) if held is None else held.place
        self._ahead[following.claim.ref] = Held(following, None, place)

    def leave_ahead(self) -> None:
        """Give back what was claimed with a record and does not begin here after all."""
        while self._ahead:
            _message, held = self._ahead.popitem()
            self._leave(held.place)
            try:
                self.cycle.give_back(held.claimed.claim, "it was not begun")
            except StoreUnavailable as away:
                logger.warning("%s cannot be given back now: %s", held.claimed.name, away)

    def _let_go(self, claimed: Claimed) -> None:
        with self._lock:
            held = self.held.pop(claimed.claim, None)
        if held is not None:
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
        message = MessageRef.parse(now_at)
        try:
            claimed = self.cycle.store.claimed(message, self.cycle.worker)
        except StoreUnavailable as away:
            # By the time that the store is back, another child may hold a newer claim: the reconciler reopens this one.
            logger.warning("It cannot be said now how %s ended: %s", request.id, away)
            return
        if claimed is None:
            return
        if isinstance(error, TimeLimitExceeded):
            self._record(None, claimed, _outcome(error, claimed))
        elif stopped is not None or self.leaving():
            patiently(lambda: self.cycle.give_back(claimed.claim, stopped or str(error)), self._sleep)
        else:
            patiently(lambda: self.cycle.vanish(claimed.claim, str(error)), self._sleep)


def _asked(error: BaseException | None, after_s: float) -> Outcome:
    """What it means that a body asked to be run again."""
    match error:
        case None:
            return Raised(ErrorInfo("Retry", "the body asked to be tried again"), retry_after_s=after_s)
        case LeftEarly():
            return GivenBack(str(error))
        case _:
            return Raised(error_info(error), retry_after_s=after_s)


def is_step(request: Any) -> bool:
    """Whether a request carries a step."""
    return bool(getattr(request, HEADER, None))


def patiently(operation: Callable[[], T], sleep: Callable[[float], None] = time.sleep, *, for_ever: bool = False) -> T:
    """Do a store operation, again and again while the store is away: a body that finished must not run twice for it."""
    for wait in chain(_PATIENCE_S, repeat(_PATIENCE_S[-1]) if for_ever else ()):
        try:
            return operation()
        except StoreUnavailable as error:
            logger.warning("%s; trying again in %g s", error, wait)
            sleep(wait)
    return operation()


def _outcome(error: BaseException, claimed: Claimed) -> Outcome:
    match error:
        case TaskNotFound():
            return NotFound(error_info(error))
        case TimeLimitExceeded(args=(float() | int() as limit_s, *_)):
            return Raised(error_info(TaskTimedOut(claimed.name, limit_s)))
        case UsageLimitReached():  # what was used stays used
            return Raised(error_info(error), final=True)
        case ModelBusy(retry_after_s=seconds) if claimed.attempts < MOST_WAITS:
            return Raised(error_info(error), retry_after_s=seconds)
        case _:
            return Raised(error_info(error))
