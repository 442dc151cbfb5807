"""Observing: what a worker says of its work, for metrics, and what somebody who watches it may ask."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from enum import StrEnum
from typing import NamedTuple, Protocol

from orchestra.engine.outcome import Change, Completed, Expanded, Failed, Reopened, Rescheduled
from orchestra.engine.plan import Plan
from orchestra.store.contract import Claimed

_NOTHING: Mapping[str, str] = {}
_CARRIED = ("traceparent", "tracestate")
"""The names of W3C Trace Context."""


class Measure(StrEnum):
    """What is measured. The values are part of metric names; after each: its labels."""

    STORE = "store"
    """Seconds that the store took. operation"""
    RECEIVED = "received"
    """Messages that arrived: of steps and of plain calls. queue"""
    STARTED = "started"
    """Steps that were claimed. queue, task"""
    LAG = "lag"
    """Seconds between ready and claimed. queue"""
    ENDED = "ended"
    """Seconds from claim to record, of each claim. queue, task, outcome"""
    TAKEN_OVER = "taken_over"
    """Claims of dead workers that were reopened."""
    LOST = "lost"
    """Messages that were found lost and sent again."""
    FIRED = "fired"
    """Runs of jobs."""


class Sample(NamedTuple):
    """One measurement."""

    measure: Measure
    value: float
    labels: tuple[str, ...] = ()


Observe = Callable[[Sequence[Sample]], None]
"""Takes samples: quickly, from any thread and any process of a worker, raising nothing."""


def of_claim(claimed: Claimed, now: float, took_s: float | None = None) -> list[Sample]:
    """Return what a claim says; ``took_s`` is None where it was made with the record before."""
    row = claimed.row
    found = [Sample(Measure.STARTED, 1, (row.queue, row.target))]
    if took_s is not None:
        found.append(Sample(Measure.STORE, took_s, ("claim",)))
    if claimed.ready_at is not None:
        found.append(Sample(Measure.LAG, max(0.0, now - claimed.ready_at), (row.queue,)))
    return found


def of_record(claimed: Claimed, change: Change | None, now: float, took_s: float) -> list[Sample]:
    """Return what the end of a claim says; ``change`` is None when a newer claim or a cancel stands."""
    row = claimed.row
    lasted = max(0.0, now - (now if claimed.started_at is None else claimed.started_at))
    return [
        Sample(Measure.STORE, took_s, ("record",)),
        Sample(Measure.ENDED, lasted, (row.queue, row.target, outcome_of(change))),
    ]


def outcome_of(change: Change | None) -> str:
    """Return what metrics call the end of a claim."""
    match change:
        case Completed() | Expanded():
            return "completed"
        case Failed():
            return "failed"
        case Rescheduled() | Reopened():
            return "retried"
        case None:
            return "superseded"


class Health(Protocol):
    """What probes ask a worker or a beat."""

    def live(self) -> str | None:
        """Return why it should be started anew; None while it may well go on."""
        ...

    def ready(self) -> str | None:
        """Return why it does no work at the moment; None while it does."""
        ...


class Watch(Protocol):
    """Who watches a worker or a beat from the same process, and tells others of it."""

    def prepare(self, health: Health) -> Observe | None:
        """Get ready, before a pool forks. Returns what takes samples; None when nobody wants any.

        Raises:
            SettingsError: What was asked for is not possible.
        """
        ...

    def start(self) -> None:
        """Begin to answer those who ask."""
        ...

    def child_ends(self) -> None:
        """A child of the pool is about to end: hand on what it has measured. Called in that child."""
        ...

    def stop(self) -> None:
        """Stop; a second time does nothing."""
        ...


class Tracing(Protocol):
    """Makes spans of submits and attempts."""

    def submitting(self, name: str, run_id: str) -> AbstractContextManager[Mapping[str, str]]:
        """Be around the creation of a run. Gives what the metadata of its steps has to hold for their attempts."""
        ...

    def attempt(self, claimed: Claimed) -> AbstractContextManager[None]:
        """Be around the body of a step."""
        ...

    def flush(self) -> None:
        """Hand on all spans, since the process is about to end."""
        ...


def submitting(tracing: Tracing | None, name: str, run_id: str) -> AbstractContextManager[Mapping[str, str]]:
    """See ``Tracing``; nothing where nobody traces."""
    return nullcontext(_NOTHING) if tracing is None else tracing.submitting(name, run_id)


def attempt(tracing: Tracing | None, claimed: Claimed) -> AbstractContextManager[None]:
    """See ``Tracing``; nothing where nobody traces."""
    return nullcontext() if tracing is None else tracing.attempt(claimed)


def carrying(plan: Plan, carried: Mapping[str, str]) -> Plan:
    """Return a plan whose steps hold what their attempts need to find their place in a trace."""
    if not carried:
        return plan
    return replace(plan, steps=[replace(each, metadata={**each.metadata, **carried}) for each in plan.steps])


def carried_by(claimed: Claimed) -> Mapping[str, str]:
    """Return what a step holds for its place in a trace, for those that it turns into."""
    return {name: str(value) for name, value in (claimed.row.metadata or {}).items() if name in _CARRIED}
