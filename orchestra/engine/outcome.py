"""Outcome: what one attempt came to, and the one change that it means for its step."""

from dataclasses import dataclass
from typing import TypeAlias, assert_never

from orchestra.engine.rows import Expansion
from orchestra.errors import WorkerCrashed
from orchestra.model.record import ErrorInfo
from orchestra.model.retry import RetryPolicy

ELSEWHERE_S = 1.0
"""How long a step waits before it is offered again, when the worker that took it has nothing of its name."""
MAX_CRASHES = 5
"""How many workers a step may take down before it is given up."""


@dataclass(frozen=True, slots=True)
class Done:
    """The body returned. ``output`` is JSON text."""

    output: str
    dead: frozenset[int] = frozenset()
    """Joins whose condition on the output does not hold."""


@dataclass(frozen=True, slots=True)
class Raised:
    """The body raised. ``retry_after_s`` is set when the body itself asked for a retry (Celery's ``self.retry``)."""

    error: ErrorInfo
    retry_after_s: float | None = None
    final: bool = False
    """Whether the body said that it must not be tried again."""


@dataclass(frozen=True, slots=True)
class NotFound:
    """The worker has nothing of that name to call: no attempt was made."""

    error: ErrorInfo
    elsewhere: bool = False
    """Whether another worker may have it: then the step is left to that one."""


@dataclass(frozen=True, slots=True)
class Vanished:
    """The worker is gone, or its pool child: the claim ended without an outcome."""

    reason: str


@dataclass(frozen=True, slots=True)
class GivenBack:
    """The worker was told to go, and leaves the step to another one. Neither an attempt nor a crash."""

    reason: str


@dataclass(frozen=True, slots=True)
class Spread:
    """The step turned into others: the parts of a map, or a sub-workflow."""

    expansion: Expansion


Outcome: TypeAlias = Done | Raised | NotFound | Vanished | GivenBack | Spread


@dataclass(frozen=True, slots=True)
class Completed:
    """The step has completed."""

    output: str
    dead: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Failed:
    """The step has failed for good."""

    error: ErrorInfo
    attempted: bool = True
    crashed: bool = False


@dataclass(frozen=True, slots=True)
class Rescheduled:
    """The step is tried again after a while."""

    error: ErrorInfo
    after_s: float
    attempted: bool = True


@dataclass(frozen=True, slots=True)
class Reopened:
    """The step is ready again at once."""

    reason: str
    crashed: bool = True
    """Whether its worker did not survive it. One that was given back has no error."""


@dataclass(frozen=True, slots=True)
class Expanded:
    """The step waits for others, which are added to the run."""

    expansion: Expansion


Change: TypeAlias = Completed | Failed | Rescheduled | Reopened | Expanded


def decide(
    outcome: Outcome, *, name: str, attempts: int, crashes: int, retry: RetryPolicy, max_crashes: int = MAX_CRASHES
) -> Change:
    """Say what one attempt means for its step. ``attempts`` and ``crashes`` are those before this one. Pure."""
    match outcome:
        case Done(output, dead):
            return Completed(output, dead)
        case Spread(expansion):
            return Expanded(expansion)
        case Raised(error, retry_after_s, final):
            if final:
                return Failed(error)
            if retry_after_s is not None:
                return Rescheduled(error, retry_after_s)
            delay = retry.delay_after(attempts + 1, error.names)
            return Failed(error) if delay is None else Rescheduled(error, delay)
        case NotFound(error, elsewhere):
            return Rescheduled(error, ELSEWHERE_S, attempted=False) if elsewhere else Failed(error, attempted=False)
        case GivenBack(reason):
            return Reopened(reason, crashed=False)
        case Vanished(reason):
            if crashes + 1 < max_crashes:
                return Reopened(reason)
            given_up = WorkerCrashed(name, crashes + 1)
            return Failed(ErrorInfo("WorkerCrashed", f"{given_up} (last: {reason})"), attempted=False, crashed=True)
        case _:
            assert_never(outcome)
