"""The store contract. Normative: an implementer needs no other page, and ``orchestra.testing`` ships the suite.

Every method is atomic: it happens as a whole or not at all, also when the process dies in the middle. A method that
changes the status of something writes the events of that change in the same transaction. Methods may be called from
any thread and process at the same time. A store that loses its connection retries inside, with back-off, and raises
``StoreUnavailable`` only when it gave up; an operation that was retried is not done twice.

*Dispatch.* A method that makes steps ready returns what is to be published now, and has marked it as being with the
broker. The caller publishes after the method has returned, and only then. It may die before it does: ``resend`` is
for that. How many steps of a queue are with the broker is bounded by its *window*: ``PER_SLOT`` times the slots of the
unexpired leases that serve it, as they were at most two seconds ago, and at least a floor. Whoever has been told by
``note_body`` that bodies are long sends less: one step for each slot, and what lasts for ``LASTS_S``. Those beyond wait
in the store and come one for one, best first: priority, then the longest remaining path, then age. A step of higher
priority than all that are with the broker is let through although the window is full, so that a backlog never delays
it.
Where several transactions may be on their way at the same time, each of them may fill the same room, with steps of its
own, still the best first and none twice. Then nothing more is sent until there is room again. A record may leave
up to an eighth of a window to the records after it, each of which then sends more than it made room for.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from orchestra.engine.outcome import Change
from orchestra.model.event import Event, Wanted
from orchestra.model.ids import MessageRef, StepRef
from orchestra.model.record import RunRecord, StepRecord
from orchestra.model.status import TaskStatus
from orchestra.store.control import Control
from orchestra.store.cursors import Cursor, Cursors
from orchestra.store.jobs import Fired, Firing, Jobs
from orchestra.store.notes import Notes
from orchestra.store.values import (
    LASTS_S,
    MOST_LEARNED,
    MOST_TOGETHER,
    PER_SLOT,
    WINDOW,
    Backlog,
    Census,
    Claimed,
    ClaimRef,
    Created,
    Dispatch,
    Lease,
    NewRun,
    Onward,
    Recorded,
    Refused,
    RunFilter,
    ToClaim,
    ToRecord,
)


class Store(Control, Jobs, Notes, Cursors, Protocol):
    """Where runs, steps, results, joins and events are kept."""

    url: str
    """How it was opened, without its password."""

    # --- writing -----------------------------------------------------------------------------------------------

    def create_runs(self, runs: Sequence[NewRun], now: float) -> list[Created]:
        """Create runs with all their steps and joins, and fill the windows of their queues.

        A run whose ``key`` exists is not created: with the same fingerprint the earlier run is returned.
        Events: workflow.started (not for single tasks), task.submitted, task.queued.

        Raises:
            KeyConflict: A key belongs to a run with another fingerprint, or a run of that id exists. No run of the
                call is created.
        """
        ...

    def claim(self, message: MessageRef, worker: str, now: float) -> Claimed | Refused:
        """Give a QUEUED step to a worker (an incarnation), or say why not.

        The event task.started is written by ``announce`` or, for a step that is over before, by the transaction that
        ends the claim; either way before the event of its end.

        A step that is not QUEUED, or a message of an older generation, is refused and nothing changes: doubles of a
        message cost a read.
        """
        ...

    def claimed(self, message: MessageRef, worker: str) -> Claimed | None:
        """Return the claim that an incarnation holds on a step, without its inputs; None when it holds none.

        For a parent process that has to say how the claim of its child ended.
        """
        ...

    def announce(self, worker: str, started_before: float, now: float) -> int:
        """Write task.started of what a worker has been running since before a time; returns how many there were."""
        ...

    def reserve(self, run_id: str, steps: int, joins: int) -> tuple[int, int]:
        """Set numbers aside for steps and joins that will be added to a run; returns the first of each."""
        ...

    def record(self, claim: ClaimRef, change: Change, now: float, onward: Onward | None = None) -> Recorded | None:
        """Record what a claim came to: outcome, joins, releases, run end and events; None when superseded.

        Superseded means that the step is no longer RUNNING under this claim. Nothing changes then.
        ``engine.join.verdict`` says what an arrival at a join means. Steps that are skipped count at their own joins
        in the same transaction. In a run that fails at the first failure, what has not started is SKIPPED with the
        reason, running steps go on to their end, then the run is FAILED; in one that continues, only what depends on
        the failure is. A step with a fallback does not fail: the fallback is added and its output taken; what it had
        turned into goes on meanwhile like a run that continues. The fallback of a map is for each of its parts.
        ``Expanded`` adds steps; their parent is WAITING until the last of them have ended, and takes their output.
        Last, for a parent and for a run, are steps that feed nothing, or only joins of *any*, which may not wait.
        Every record also refills the windows that it made room in. That of a completion claims, in the same
        transaction and as ``claim`` would do it next, what ``onward`` names.
        """
        ...

    def together(
        self, wanted: Sequence[ToClaim | ToRecord], onward: Onward | None = None
    ) -> list[Claimed | Refused | Recorded | None]:
        """Make claims and records in one transaction: all of them, or none when it raises.

        Each has the answer that ``claim`` or ``record`` would give, as if they were made one after the other, in this
        order. They belong to the caller's many claims that are under way at the same time: at most ``MOST_TOGETHER``.
        Last, ``onward`` is claimed of what the completions hand on, as with ``record``.
        """
        ...

    def vanish(self, claim: ClaimRef, reason: str, now: float) -> Recorded | None:
        """Record that a claim ended without an outcome: ``decide(Vanished(reason))`` for its step."""
        ...

    def due(self, now: float) -> tuple[Sequence[Dispatch], float | None]:
        """Make RETRYING steps whose time has come QUEUED. Return what to publish and when to ask again.

        A run whose deadline has come, or whose expiry has while nothing of it was ever claimed, has FAILED with that
        reason; what was open of it is CANCELLED.
        """
        ...

    def refill(self, queues: Sequence[str], now: float) -> Sequence[Dispatch]:
        """Fill the windows of these queues; for callers that find a window unexpectedly empty."""
        ...

    def resend(self, queues: Sequence[str], unheard_since: float, limit: int, now: float) -> Sequence[Dispatch]:
        """Take the oldest steps that were sent before ``unheard_since`` and never claimed, to be sent again.

        A step that was sent again k times waits 2^k times as long (32 s at most), so that nothing is flooded.
        """
        ...

    def emit(
        self,
        event_type: str,
        data: Mapping[str, object],
        now: float,
        *,
        worker: str | None = None,
        of: StepRef | None = None,
        single: bool = False,
    ) -> None:
        """Append an event that no change of a run makes: custom ones, worker.online, worker.offline.

        Args:
            of: The step that it is about; ``single`` says whether its run is a single task.
        """
        ...

    # --- workers -----------------------------------------------------------------------------------------------

    def note_body(self, seconds: float) -> None:
        """A body of this process has ended that took so long: windows that this object fills follow its bodies.

        Nothing is written.
        """
        ...

    def renew(self, lease: Lease) -> None:
        """Insert or renew a lease."""
        ...

    def leases(self) -> list[Lease]:
        """Return all leases, expired ones included."""
        ...

    def release_lease(self, incarnation: str, expires_at: float | None = None) -> bool:
        """Delete a lease; False when it was gone. What the worker holds is not touched: see ``held``.

        With ``expires_at`` only the lease that ends at that time is deleted: who was stopped between seeing it expired
        and deleting it must not take one that has been renewed meanwhile.
        """
        ...

    def held(self, incarnation: str) -> list[ClaimRef]:
        """Return the claims that are RUNNING under an incarnation."""
        ...

    def orphans(self) -> list[ClaimRef]:
        """Return the claims that are RUNNING under an incarnation that has no lease."""
        ...

    # --- reading -----------------------------------------------------------------------------------------------

    def run(self, run_id: str) -> RunRecord | None:
        """Return a run."""
        ...

    def runs(self, where: RunFilter) -> list[RunRecord]:
        """Return runs, newest first."""
        ...

    def step(self, ref: StepRef) -> StepRecord | None:
        """Return a step with its output."""
        ...

    def find_step(self, key: str) -> StepRecord | None:
        """Return the step with this key in the newest run that has one."""
        ...

    def steps(self, run_id: str, status: TaskStatus | None = None) -> list[StepRecord]:
        """Return the steps of a run by number, without their outputs."""
        ...

    def counts(self, run_id: str) -> dict[TaskStatus, int]:
        """Return how many steps of a run have each status."""
        ...

    def outputs(self, run_id: str, numbers: Sequence[int]) -> dict[int, str]:
        """Return JSON texts of outputs; steps without one are left out."""
        ...

    def result_template(self, run_id: str) -> object:
        """Return the template of a run's output."""
        ...

    def depth(self) -> dict[str, int]:
        """Return the number of QUEUED steps of each queue."""
        ...

    def backlog(self) -> list[Backlog]:
        """Return what is ready, by queue and priority in this order."""
        ...

    def predecessors(self, run_id: str) -> dict[int, Sequence[int]]:
        """Return the numbers of the steps that each step of a run waits for, or waited for, by its own number.

        Steps that wait for none are left out. Those that wait for the same ones share the sequence.
        """
        ...

    def durations(self, name: str) -> Mapping[str, float]:
        """Return the seconds that steps took in the run of a workflow of this name that completed last, by name.

        Those of steps of the same name are averaged. Steps that others turned into, and all but the first
        ``MOST_LEARNED`` steps, are left out: it is asked for on the way of a submit. Empty where there is no such
        run, where it has been pruned, and for tasks that were submitted alone.
        """
        ...

    def open_queues(self) -> list[str]:
        """Return the queues of all open steps; empty when there is no work. Looks at every open step."""
        ...

    def last_event(self) -> int:
        """Return a cursor behind which only events come that are not there yet, and so far no others."""
        ...

    def events(
        self,
        after: int,
        limit: int = 1000,
        *,
        run_id: str | None = None,
        newest: bool = False,
        wanted: Wanted | None = None,
    ) -> tuple[list[Event], int]:
        """Return events after a cursor, and the cursor to go on from; causes come before what they caused.

        One transaction appends all its events or none. ``newest`` returns the last ones instead of the first. A reader
        that goes on from the cursor misses nothing: an event is held back while a smaller one may still be committed.
        ``limit`` counts transactions. With ``wanted`` only events of types that it wants are made; ids and cursor are
        those of all.
        """
        ...

    # --- keeping and looking after -----------------------------------------------------------------------------

    def prune(self, ended_before: float, limit: int) -> int:
        """Delete the oldest runs that ended before a time, with all that belongs to them; returns how many.

        Never more than ``limit``, and fewer where they are large, so that nobody waits long: go on until it says 0.
        A run disappears as a whole, though its events may go before it, and its ``key`` is free again. What has not
        ended is not touched, however old. The oldest events that belong to no run are deleted by the same time.
        Any number of callers at the same time is safe. Cursors of the log stay good, and numbers are not used again.
        """
        ...

    def prunable(self, ended_before: float) -> int:
        """Return how many runs ended before a time."""
        ...

    def census(self) -> Census:
        """Count what the store holds; for people, since it looks at everything."""
        ...

    # --- life --------------------------------------------------------------------------------------------------

    def watch(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` after each commit made through this object that wrote events. Returns how to stop that.

        Listeners must be quick. Commits of other processes are not heard: readers poll for those.
        """
        ...

    def close(self) -> None:
        """Close; a second time does nothing."""
        ...


__all__ = [
    "LASTS_S",
    "MOST_LEARNED",
    "MOST_TOGETHER",
    "PER_SLOT",
    "WINDOW",
    "Backlog",
    "Census",
    "ClaimRef",
    "Claimed",
    "Created",
    "Cursor",
    "Dispatch",
    "Event",
    "Fired",
    "Firing",
    "Jobs",
    "Lease",
    "NewRun",
    "Onward",
    "Recorded",
    "Refused",
    "RunFilter",
    "Store",
    "ToClaim",
    "ToRecord",
]
