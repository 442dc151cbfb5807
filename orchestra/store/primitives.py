"""Primitives: what a backend does within a transaction, so that ``orchestra.store.transitions`` runs over it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from orchestra.engine.join import Arrivals, Way
from orchestra.engine.rows import JoinRow, StepRow
from orchestra.model.ids import MessageRef, StepRef
from orchestra.model.record import ErrorInfo
from orchestra.model.status import TaskStatus as S
from orchestra.model.status import WorkflowStatus
from orchestra.store.contract import Claimed, ClaimRef, Dispatch, NewRun
from orchestra.store.entries import Entry


class Counted(NamedTuple):
    """What a run was told by one more step that it waits for."""

    ended: WorkflowStatus | None
    """The status that it ended with, if that was the last one."""
    single: bool


@dataclass(frozen=True, slots=True)
class Hot:
    """What a transaction needs to know of a step that has just changed."""

    n: int
    key: str
    name: str
    queue: str
    feeds: Sequence[Sequence[int]]
    """Joins that it is a part of: number, how many parts, how many bodies, whether any way releases them."""
    parent: int | None
    is_map: bool
    attempts: int
    crashes: int
    retry: Mapping[str, object] | None
    fallback: Sequence[str] | None
    claims: int
    announced: int
    """The newest claim whose start is in the log."""
    started_at: float | None
    worker: str | None
    counted: Counted | None = None
    """Where the step was counted at its run in the same statement; see ``end``."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a claim, or a step that waited for others, is left."""

    status: S
    output: str | None = None
    error: ErrorInfo | None = None
    attempted: bool = False
    crashed: bool = False
    due_at: float | None = None
    parts_left: int | None = None
    collects: int | None = None
    completed_at: float | None = None


@dataclass(frozen=True, slots=True)
class RunState:
    """Where a run stands, as far as transitions care. A run that does not exist has ended."""

    ended: bool
    ending: WorkflowStatus | None
    """The status that it will have when what is running has ended."""
    single: bool
    goes_on: bool
    """Whether a failure leaves the rest of the run going."""
    status: WorkflowStatus = WorkflowStatus.RUNNING

    @property
    def paused(self) -> bool:
        """Whether what becomes ready is offered to nobody."""
        return self.status is WorkflowStatus.PAUSED


class Transaction(Protocol):
    """The primitives. Each is one statement, or none when there is nothing to do."""

    def lock_run(self, run_id: str, *, alone: bool) -> None:
        """Until the transaction ends, keep out those who ask to be alone with a run, or everybody who asks.

        Who changes what runs of one run do holds it together with others; who ends a run must see all that they did,
        and so holds it alone. Where only one transaction writes at a time there is nothing to do.
        """
        ...

    def taken(self, run_id: str, key: str | None) -> tuple[str, str | None, bool] | None:
        """Return (run id, fingerprint, whether by key) of the run that has this key or id."""
        ...

    def add_run(self, run: NewRun, remaining: int, steps: int, joins: int, now: float) -> bool:
        """Insert a RUNNING run that waits for ``remaining`` steps and has used so many numbers.

        False when its key or its id is taken.
        """
        ...

    def add_steps(self, run_id: str, steps: Sequence[StepRow], now: float, *, parked: bool = False) -> None: ...
    def add_joins(self, run_id: str, joins: Sequence[JoinRow]) -> None: ...
    def reserve(self, run_id: str, steps: int, joins: int) -> tuple[int, int]: ...
    def claim(self, message: MessageRef, worker: str, now: float) -> Claimed | None:
        """Take a QUEUED step: everything but its inputs."""
        ...

    def status(self, ref: StepRef) -> S | None: ...
    def outputs(self, run_id: str, numbers: Sequence[int]) -> dict[int, str]: ...
    def predecessors(self, run_id: str, join: int) -> dict[int, tuple[str, str]]:
        """Return (name, output) of the parts of a join whose ways were taken, by number."""
        ...

    def held_step(self, claim: ClaimRef) -> Hot | None: ...
    def end(self, claim: ClaimRef, ending: Ending) -> Hot | None:
        """Leave RUNNING, if the claim is the newest.

        Where the step completed, feeds nothing and is a part of nothing, a backend that can do so in the same statement
        has also done ``count_run``, and says so.
        """
        ...

    def end_waiting(self, run_id: str, n: int, ending: Ending) -> Hot | None:
        """Leave WAITING."""
        ...

    def waiting_step(self, run_id: str, n: int) -> Hot | None: ...
    def is_caught(self, run_id: str, parent: int) -> bool:
        """Whether a WAITING step, or one that it is a part of, has a fallback and is no map."""
        ...

    def add_fallback(self, run_id: str, like: int, n: int, fallback: Sequence[str], now: float, *, parked: bool) -> str:
        """Insert a QUEUED step with the input and the conditions of another one, and that as its parent.

        The other one waits for this part alone, collects its output, and has no fallback any more. Returns the queue.
        """
        ...

    def count_join(self, run_id: str, join: int, way: Way, part: int, parts: int | None) -> Arrivals:
        """Count a part of a join of so many; None where one of them alone may release it."""
        ...

    def release(
        self, run_id: str, join: int, at_once: int | None, now: float
    ) -> tuple[list[tuple[int, str]], list[Dispatch]]:
        """Make the bodies of a join QUEUED: (number, queue) of each.

        Where ``at_once`` (a window) is given and has room, with nothing waiting, they are sent as well.
        """
        ...

    def skip(self, run_id: str, join: int, error: ErrorInfo, now: float) -> list[Hot]:
        """Make the PENDING bodies of a join SKIPPED; returns them by number, so that all stores go on alike."""
        ...

    def count_part(self, run_id: str, parent: int, broken: bool) -> tuple[int, int, int | None, int | None] | None:
        """Return (parts left, parts broken, collects, max_parallel) of a WAITING step after one more part."""
        ...

    def release_part(self, run_id: str, parent: int) -> list[tuple[int, str]]: ...
    def part_outputs(self, run_id: str, parent: int) -> str:
        """Return the JSON text of the list of outputs of a step's parts."""
        ...

    def count_run(self, run_id: str, now: float) -> Counted:
        """Count one more step that a run waits for. The last one ends it, unless it had ended before.

        It ends as it was to end early; else as FAILED where an error is noted, or as COMPLETED.
        """
        ...

    def run_state(self, run_id: str) -> RunState: ...
    def begin_ending(self, run_id: str, ending: WorkflowStatus, error: ErrorInfo) -> bool: ...
    def note_error(self, run_id: str, error: ErrorInfo) -> None:
        """Keep the first error of a run that goes on."""
        ...

    def stop(
        self, run_id: str, status: S, error: ErrorInfo, now: float, *, running_too: bool
    ) -> list[tuple[int, str]]: ...
    def stop_one(self, ref: StepRef, status: S, error: ErrorInfo, now: float) -> tuple[str, str] | None: ...
    def count_running(self, run_id: str) -> int: ...
    def wait_for(self, run_id: str, remaining: int) -> None: ...
    def end_run(self, run_id: str, status: WorkflowStatus, now: float) -> bool | None:
        """End a run, and return whether it is a single one; None when it had ended before."""
        ...

    def pick(self, queue: str, window: int, now: float) -> tuple[list[Dispatch], bool]:
        """Send the best steps that wait, all of one priority, as far as the window has room for that priority.

        Returns them, and whether there was room for more that waits.
        """
        ...

    def due(self, now: float) -> list[tuple[StepRef, str, bool]]: ...
    def unannounced(self, worker: str, started_before: float) -> list[tuple[StepRef, bool, Entry]]:
        """Mark the starts of a worker's claims as being in the log; returns the step, whether single, and the event."""
        ...

    def starts(self, run_id: str, n: int | None) -> list[Entry]:
        """Mark the starts of all RUNNING steps of a run, or of one, as being in the log; returns their events."""
        ...

    def blame_job(self, run_id: str, error: str) -> tuple[str, str, float | None] | None:
        """Write an error into the job of a run: (id, name, time of the run); None when no job made it."""
        ...

    def append(
        self, run_id: str | None, single: bool, worker: str | None, entries: Sequence[Entry], now: float
    ) -> None: ...
