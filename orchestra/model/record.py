"""Records: what a store holds about runs and steps, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from orchestra.model.ids import StepRef
from orchestra.model.schedule import JobStatus, Schedule
from orchestra.model.status import TaskStatus, WorkflowStatus


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """How something failed: the class name, the message and the traceback as text. Its ``str`` is the message."""

    type: str
    message: str
    traceback: str = ""
    names: tuple[str, ...] = ()
    """Every class name that the error answers to, for RetryPolicy."""

    def __str__(self) -> str:
        return self.message or self.type


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step as the store holds it. Times are seconds since the epoch; ``output`` is JSON text."""

    ref: StepRef
    key: str
    name: str
    target: str
    status: TaskStatus
    priority: int
    queue: str
    metadata: Mapping[str, object]
    claims: int = 0
    attempts: int = 0
    crashes: int = 0
    generation: int = 0
    output: str | None = None
    error: ErrorInfo | None = None
    worker: str | None = None
    created_at: float = 0.0
    due_at: float | None = None
    started_at: float | None = None
    completed_at: float | None = None
    parent: int | None = None
    """The map that this step is a part of."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run as the store holds it. Times are seconds since the epoch; ``output`` is JSON text."""

    id: str
    name: str
    workflow_id: str
    status: WorkflowStatus
    single: bool
    """Whether the run is one submitted task rather than a workflow."""
    priority: int
    metadata: Mapping[str, object] = field(default_factory=dict[str, object])
    key: str | None = None
    input: str | None = None
    output: str | None = None
    error: ErrorInfo | None = None
    job_id: str | None = None
    scheduled_for: float | None = None
    created_at: float = 0.0
    started_at: float | None = None
    completed_at: float | None = None
    deadline: float | None = None
    """When it ends, whatever it has come to."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a body says that it is. ``at`` is seconds since the epoch."""

    share: float | None
    """From 0 to 1; None where only the text is known."""
    text: str
    at: float


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that a body logged. ``at`` is seconds since the epoch."""

    n: int
    """The step."""
    claim: int
    at: float
    level: str
    text: str


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One scheduled job as the store holds it. Times are seconds since the epoch."""

    id: str
    name: str
    schedule: Schedule
    payload: Mapping[str, object]
    """What its runs are made from: JSON that only ``runtime.jobs`` reads."""
    created_at: float
    status: JobStatus = JobStatus.ACTIVE
    next_run_at: float | None = None
    """The first time that nothing has been decided about."""
    due_at: float | None = None
    """When a beat has to look at it: that time with its jitter."""
    last_run_at: float | None = None
    """The time that its newest run stands for."""
    last_run_id: str | None = None
    runs: int = 0
    missed: int = 0
    """How many of its times became no run."""
    error: str | None = None
    """Why its last run could not begin."""
    backfills: str | None = None
    """The job whose missed runs this one creates."""
    version: int = 0
    """Rises with every change; 0 before it is stored."""


def moment(at: float | None) -> datetime | None:
    """Return a stored time as an aware datetime in UTC."""
    return None if at is None else datetime.fromtimestamp(at, UTC)
