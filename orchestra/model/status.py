"""Status of steps and runs: one transition table, from which everything else derives."""

from collections.abc import Mapping
from enum import StrEnum


class TaskStatus(StrEnum):
    """Where a task stands."""

    PENDING = "PENDING"
    """Waits for predecessors."""
    QUEUED = "QUEUED"
    """Ready; waits for a worker, whether its message is with the broker or it still waits in the store."""
    RUNNING = "RUNNING"
    """Claimed by a worker."""
    RETRYING = "RETRYING"
    """Failed, and will be tried again at a known time."""
    WAITING = "WAITING"
    """Waits for its parts (a map), a timer, a limit or a person."""
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"
    """Never ran, because of what happened before it; ``error`` says what."""

    @property
    def ended(self) -> bool:
        """Whether this status is final."""
        return self in TERMINAL


class WorkflowStatus(StrEnum):
    """Where a run stands."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def ended(self) -> bool:
        """Whether this status is final."""
        return self in ENDED_RUN


_S = TaskStatus

FOLLOWS: Mapping[TaskStatus, frozenset[TaskStatus]] = {
    _S.PENDING: frozenset({_S.QUEUED, _S.SKIPPED, _S.CANCELLED}),
    _S.QUEUED: frozenset({_S.RUNNING, _S.SKIPPED, _S.CANCELLED}),
    # RUNNING → QUEUED is a crash: the claim ended without an outcome.
    _S.RUNNING: frozenset({_S.QUEUED, _S.RETRYING, _S.WAITING, _S.COMPLETED, _S.FAILED, _S.CANCELLED}),
    _S.RETRYING: frozenset({_S.QUEUED, _S.SKIPPED, _S.CANCELLED}),
    _S.WAITING: frozenset({_S.QUEUED, _S.COMPLETED, _S.FAILED, _S.SKIPPED, _S.CANCELLED}),
    _S.COMPLETED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.SKIPPED: frozenset(),
}
"""Which status may follow which. Nothing else ever happens to a step."""

AGAIN: Mapping[TaskStatus, frozenset[TaskStatus]] = {
    **{each: frozenset({_S.PENDING, _S.QUEUED, _S.WAITING}) for each in (_S.FAILED, _S.CANCELLED, _S.SKIPPED)},
    _S.COMPLETED: frozenset({_S.QUEUED}),
}
"""What a retry by hand makes of a step whose run has ended; it begins a new generation of the step.

What completed runs again only where it was the last part of a step that was cancelled meanwhile, to give it its output.
"""

TERMINAL = frozenset(status for status, nexts in FOLLOWS.items() if not nexts)
OPEN = frozenset(TaskStatus) - TERMINAL
IDLE = OPEN - {_S.RUNNING}
"""Open, with no body running: what a failed run skips and what cancel ends at once."""

ENDED_RUN = frozenset({WorkflowStatus.COMPLETED, WorkflowStatus.FAILED, WorkflowStatus.CANCELLED})
