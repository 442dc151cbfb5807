"""Values: what is given to a store, and what it answers, beside the records of ``model.record``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from orchestra.engine.outcome import Change
from orchestra.engine.plan import Plan
from orchestra.engine.rows import StepRow
from orchestra.model.ids import MessageRef
from orchestra.model.record import ErrorInfo
from orchestra.model.status import TaskStatus, WorkflowStatus

WINDOW = 64
"""Default of the floor: ready steps of one queue and priority that may be with the broker, whoever serves it."""
MOST_TOGETHER = 64
"""Claims and records of one transaction: others wait for its end."""
MOST_LEARNED = 2000
"""Steps of a run, the first ones, of which is read what they took."""
PER_SLOT = 4
"""Ready steps that may be with the broker for each live slot of a queue."""
LASTS_S = 0.05
"""How long what is with the broker lasts, beside one step for each slot, where bodies are long."""


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to be created."""

    id: str
    name: str
    workflow_id: str
    plan: Plan
    single: bool = False
    priority: int = 5
    metadata: Mapping[str, object] = field(default_factory=dict[str, object])
    key: str | None = None
    fingerprint: str | None = None
    """Digest of what runs with which input: the same key with another fingerprint is a conflict."""
    job_id: str | None = None
    scheduled_for: float | None = None
    deadline: float | None = None
    """When it ends, whatever it has come to."""
    expires_at: float | None = None
    """When it ends if nothing of it has begun."""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One message to be published: everything that it says."""

    ref: MessageRef
    task: str
    name: str
    queue: str
    priority: int
    timeout_s: float | None = None
    chain: Sequence[Sequence[object]] = ()
    """The links that follow in the same segment: ``[n, task, name, queue, priority]`` each."""
    is_single: bool = False
    parent: str | None = None
    """Celery id of the step whose record released this one."""
    target: str = ""
    """What the step calls, as ``StepRow.target``."""


@dataclass(frozen=True, slots=True)
class Created:
    """A run was created, or an earlier one with the same key was found (then there is nothing to dispatch)."""

    run_id: str
    dispatches: Sequence[Dispatch]
    existing: bool = False


class ClaimRef(NamedTuple):
    """One claim of one step: only the newest claim of a step records."""

    ref: MessageRef
    claim: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a worker needs to run a step."""

    claim: ClaimRef
    row: StepRow
    """The step as it was created; its templates are filled in with ``outputs``."""
    attempts: int
    crashes: int
    outputs: Mapping[int, str] = field(default_factory=dict[int, str])
    """JSON texts of the outputs that the templates name, and of the predecessors where these are the input.
    What was not taken has none."""
    predecessors: Mapping[int, str] = field(default_factory=dict[int, str])
    """Names of the predecessors on the ways that were taken, where their outputs are the input."""
    ready_at: float | None = None
    """Since when it was ready: its making where it waited for nothing, else the sending of its message."""
    started_at: float | None = None
    """When it was claimed."""

    @property
    def name(self) -> str:
        """The step's name."""
        return self.row.name


def ready_at_once(row: StepRow, generation: int, attempts: int, crashes: int) -> bool:
    """Whether a step is ready since it was made: it waited for nothing, and nothing has become of it before."""
    return row.waits_for is None and row.parent is None and not generation + attempts + crashes


@dataclass(frozen=True, slots=True)
class Refused:
    """The step is not to be run by this message. ``status`` is None when the store does not know the step."""

    status: TaskStatus | None
    reason: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """The change was recorded. ``ended_run`` is set when it ended the run."""

    dispatches: Sequence[Dispatch] = ()
    ended_run: WorkflowStatus | None = None
    onward: Sequence[tuple[Dispatch, Claimed]] = ()
    """What of it was claimed in the same transaction, if that was asked for, each with what would have been published.
    None of these is among the dispatches."""


@dataclass(frozen=True, slots=True)
class Onward:
    """What a worker goes on with by itself: it is claimed with the records before.

    Those are, of what a record hands on, the first steps of the same run which are of this queue, not less urgent, have
    no time limit of their own, and call one of the targets.
    """

    worker: str
    queue: str
    priority: int
    targets: frozenset[str] = frozenset()
    most: int = 1
    """How many are claimed with all records of the transaction."""

    def takes(self, run_id: str, dispatch: Dispatch) -> bool:
        """Whether it goes on with a step that a record of that run hands on."""
        return (
            dispatch.ref.step.run_id == run_id
            and dispatch.queue == self.queue
            and dispatch.priority <= self.priority
            and dispatch.timeout_s is None
            and dispatch.target in self.targets
        )


@dataclass(frozen=True, slots=True)
class ToClaim:
    """A claim that is to be made: the arguments of ``claim``."""

    message: MessageRef
    worker: str
    now: float


@dataclass(frozen=True, slots=True)
class ToRecord:
    """What is to be recorded of a claim: the arguments of ``record``."""

    claim: ClaimRef
    change: Change
    now: float


@dataclass(frozen=True, slots=True)
class Lease:
    """One start of one worker process tree. A worker that stops renewing it is dead when ``expires_at`` has passed.

    ``host``, ``boot_id``, ``pid`` and ``pid_started`` let others on the same machine see at once that it is gone.
    """

    incarnation: str
    worker: str
    """Name for people: the Celery node name."""
    host: str
    boot_id: str
    pid: int
    pid_started: float
    queues: Sequence[str]
    slots: int
    started_at: float
    expires_at: float
    renewed_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is ready on a queue at one priority."""

    queue: str
    priority: int
    ready: int
    sent: int
    """How many of them are with the broker; the others wait in the store."""
    sent_since: float | None
    """When the message was sent that has been with the broker for longest; None when all of them wait in the store."""
    ready_since: float | None
    """Since when the first of them is ready, as ``Claimed.ready_at`` has it; None where the store cannot say."""


@dataclass(frozen=True, slots=True)
class Census:
    """How much a store holds."""

    runs: Mapping[WorkflowStatus, int]
    steps: int
    events: int
    """Rows of the log: what one transaction did to one run is one."""
    size: int | None = None
    """Bytes, where that is cheap to say."""


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs to list. All given conditions must hold."""

    status: WorkflowStatus | None = None
    name: str | None = None
    metadata: Mapping[str, object] = field(default_factory=dict[str, object])
    since: float | None = None
    limit: int = 100
    job_id: str | None = None
    error_type: str | None = None
    """A class name that the run's error answers to."""

    def has_error(self, error: ErrorInfo | None) -> bool:
        """Whether the error of a run is of the type that is looked for."""
        return self.error_type is None or (error is not None and self.error_type in (error.type, *error.names))
