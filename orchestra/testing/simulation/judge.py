"""The judge: looks at the store after everything that changes it, and says which invariant does not hold."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from orchestra.engine.again import NOT_TAKEN
from orchestra.engine.outcome import MAX_CRASHES, Change, Completed, Expanded, Reopened
from orchestra.engine.plan import StepInput
from orchestra.engine.rows import rows
from orchestra.model.ids import MessageRef
from orchestra.model.record import StepRecord
from orchestra.model.status import AGAIN, FOLLOWS, TERMINAL, WorkflowStatus
from orchestra.model.status import TaskStatus as S
from orchestra.runtime.reconciler import INSPECT_S
from orchestra.store.contract import Claimed, ClaimRef, Created, Dispatch, Lease, NewRun, Recorded, Store
from orchestra.testing.simulation.leavers import Leavers
from orchestra.testing.simulation.script import ERRORS, Script
from orchestra.testing.simulation.view import RunView
from orchestra.testing.simulation.world import START, Process, Violation, World

LEASE_S = 5.0
LAPSE_S = 3.0
"""How long after a worker is back others may still act on what they saw before."""
_NO_NEED = "5 no doubles without need"
NOTICED_S = 2.0
"""An outage of the store that lasts so long is noticed by every reconciler."""
_MIDWAY = (S.QUEUED, S.RETRYING, S.WAITING)
"""Where a step may pass through within the transaction that takes it out of RUNNING."""


class Judge:
    """Knows all runs from the calls that it sees, whichever process made them.

    Args:
        store: The real one.
    """

    def __init__(self, world: World, store: Store) -> None:
        self._world, self._store = world, store
        self.views: dict[str, RunView] = {}
        self.holders: dict[ClaimRef, Process] = {}
        self.dropped: set[ClaimRef] = set()
        """Claims that a live worker does not know of (its child died, or the answer to its claim got lost)."""
        self.queued: Counter[MessageRef] = Counter()
        self.resent: Counter[MessageRef] = Counter()
        self.published: Counter[MessageRef] = Counter()
        self.superseded = 0
        self.ran: set[ClaimRef] = set()
        """Claims whose bodies began."""
        self.unheard = 0
        """Crashes that were counted although no body had begun."""
        self.leavers = Leavers(world, store, self.views, self.holders, self.dropped)

    # --- what is seen -------------------------------------------------------------------------------------------

    def saw(self, process: Process, name: str, args: Sequence[Any], result: Any) -> None:
        """A call of the store was committed."""
        match name:
            case "create_runs":
                self._created(args[0], result)
            case "claim" if isinstance(result, Claimed):
                self.holders[result.claim] = process
                self.leavers.claimed(process, result.claim)
                self._look(args[0].step.run_id, "claim", result.claim)
            case "record":
                if isinstance(args[1], Reopened) and result is not None:
                    self.leavers.gave_back(process, args[0])
                self._recorded(args[0], args[1], result)
            case "vanish":
                if result is not None:
                    self._check_reopened(args[0])
                self._look(args[0].ref.step.run_id, "vanish" if result is not None else "nothing", args[0])
            case "cancel" | "pause":
                self._look(args[0], name, None)
            case "resume":
                self._resumed(args[0], result)
            case "retry":
                self._retried(args[0], result)
            case "due":
                for run_id in self._retrying(args[0]):
                    self._look(run_id, "due", None)
            case "resend":
                self.resent.update(each.ref for each in result)
            case "renew":
                self._renewed(process, args[0])
            case "release_lease" if result and args[0] == process.name:
                self.leavers.released(process)
            case "release_lease" if result:
                self._check_called_dead(process, args[0])
            case _:
                pass

    def reply_lost(self, name: str, result: Any) -> None:
        """Its caller does not know that it was."""
        for each in result if name == "together" else [result]:
            if isinstance(each, Recorded):
                self.dropped.update(its.claim for _dispatch, its in each.onward)
            if isinstance(each, Claimed):
                self.dropped.add(each.claim)

    def publishing(self, process: Process, dispatch: Dispatch) -> None:
        """A message is about to be published."""
        ref = dispatch.ref
        view = self.views.get(ref.step.run_id)
        record = view.records.get(ref.step.n) if view else None
        if record is None or record.status is S.PENDING:
            status = "unknown" if record is None else record.status
            raise Violation("2 commit, then publish", f"{ref.celery_id} is published while it is {status}")
        self.published[ref] += 1
        if self.published[ref] > self.queued[ref] + self.resent[ref]:
            told = f"{self.published[ref]} messages; ready {self.queued[ref]}, resent {self.resent[ref]} times"
            raise Violation("messages are bounded", f"{ref.celery_id}: {told}")

    def body_starts(self, process: Process, claimed: Claimed) -> None:
        """A body is about to run: it must have been given what its predecessors recorded."""
        self.ran.add(claimed.claim)
        self.leavers.bodies.add(claimed.claim)
        ref = claimed.claim.ref.step
        view = self.views[ref.run_id]
        given = StepInput.from_json(claimed.row.input)
        wanted = {n: view.outputs[n] for n in given.needs() if n in view.outputs}
        if given.from_predecessors and claimed.row.waits_for is not None:
            join = view.joins[claimed.row.waits_for]
            taken = [n for n in join.parts if n in view.outputs and join.number not in view.dead.get(n, ())]
            wanted.update({n: view.outputs[n] for n in taken})
            if not join.any and sorted(claimed.predecessors) != taken:
                raise Violation("7 inputs", f"{claimed.name} got {sorted(claimed.predecessors)} instead of {taken}")
        for n, text in claimed.outputs.items():
            if wanted.get(n) != text:
                raise Violation(
                    "7 inputs", f"{claimed.name} got {text!r} as output of {n}, recorded is {wanted.get(n)}"
                )
        missing = set(wanted) - set(claimed.outputs)
        if missing and not (claimed.row.waits_for is not None and view.joins[claimed.row.waits_for].any):
            raise Violation("7 inputs", f"{claimed.name} starts without the outputs of {sorted(missing)}")

    def body_ends(self, claim: ClaimRef) -> None:
        """A body is over; what it came to has not been said yet."""
        self.leavers.bodies.discard(claim)

    # --- transactions -------------------------------------------------------------------------------------------

    def _created(self, runs: Sequence[NewRun], created: Sequence[Created]) -> None:
        for run, answer in zip(runs, created, strict=True):
            if answer.existing:
                continue
            if run.id in self.views:
                raise Violation("1 one record", f"run {run.id} was created twice")
            view = self.views[run.id] = RunView(run.id, run.single)
            step_rows, join_rows = rows(run.plan)
            view.rows = {row.n: row for row in step_rows}
            view.joins = {join.number: join for join in join_rows}
            self._look(run.id, "create", None)

    def _recorded(self, claim: ClaimRef, change: Change, result: object) -> None:
        run_id = claim.ref.step.run_id
        view = self.views[run_id]
        if result is None:
            self.superseded += 1
            self._look(run_id, "nothing", claim)
            return
        if isinstance(change, Completed):
            # What a sub-workflow or a fallback comes to is looked at by the step that makes the output.
            for n in [claim.ref.step.n, *view.ancestors(claim.ref.step.n)]:
                view.dead[n] = view.dead.get(n, frozenset()) | change.dead
        elif isinstance(change, Expanded):
            view.rows.update({row.n: row for row in change.expansion.steps})
            view.joins.update({join.number: join for join in change.expansion.joins})
        self._look(run_id, "record", claim)
        if isinstance(change, Completed) and view.outputs[claim.ref.step.n] != change.output:
            raise Violation("1 one record", f"{claim.ref.celery_id} has another output than was recorded")

    def _resumed(self, run_id: str, recorded: object) -> None:
        """What is ready of it is sent once more."""
        if recorded is None:
            return
        for record in self._store.steps(run_id):
            self.queued[MessageRef(record.ref, record.generation)] += record.status is S.QUEUED
        self._look(run_id, "resume", None)

    def _retried(self, run_id: str, recorded: object) -> None:
        """Steps of a run that had ended begin a new generation: what the earlier one came to is forgotten."""
        if recorded is None:
            return
        view = self.views[run_id]
        view.status = WorkflowStatus.RUNNING
        for record in self._store.steps(run_id):
            if record.generation != view.records[record.ref.n].generation:
                view.outputs.pop(record.ref.n, None)
                view.dead.pop(record.ref.n, None)
        self._look(run_id, "retry", None)

    def _look(self, run_id: str, operation: str, claim: ClaimRef | None) -> None:
        view = self.views.get(run_id)
        if view is None:
            return
        before = view.records
        view.records = {record.ref.n: record for record in self._store.steps(run_id)}
        for n, record in view.records.items():
            old = before.get(n)
            if old is None or old.status is not record.status or old.claims != record.claims:
                self._changed(view, old, record, operation, claim)
            elif (old.attempts, old.crashes) != (record.attempts, record.crashes):
                raise Violation("1 one record", f"counts of {record.name} changed by {operation}: {old} → {record}")
        run = self._store.run(run_id)
        assert run is not None, run_id
        if view.status.ended and run.status is not view.status:
            raise Violation("1 one record", f"run {run_id} was {view.status} and is {run.status}")
        view.status = run.status
        view.check()

    def _changed(
        self, view: RunView, old: StepRecord | None, new: StepRecord, operation: str, claim: ClaimRef | None
    ) -> None:
        is_claims = claim is not None and claim.ref.step == new.ref
        ready = MessageRef(new.ref, new.generation)
        if new.status is S.QUEUED:
            self.queued[ready] += 1
        if old is None:
            if new.status not in (S.QUEUED, S.PENDING):
                raise Violation("FOLLOWS", f"{new.name} begins as {new.status}")
            return
        if operation == "retry":
            self._check_again(old, new)
            return
        self._check_follows(old, new, operation)
        if operation == "nothing":
            raise Violation("4 only the newest claim records", f"{new.name} was changed by a refused {claim}")
        if new.status is S.RUNNING and not (operation == "claim" and is_claims and new.claims == old.claims + 1):
            raise Violation("4 only the newest claim records", f"{new.name} is RUNNING after {operation} of {claim}")
        if new.status is not S.RUNNING and new.claims != old.claims:
            raise Violation("4 only the newest claim records", f"{new.name} has {new.claims} claims after {operation}")
        if old.status is S.RUNNING and operation != "cancel":
            ends = operation in ("record", "vanish") and is_claims and claim is not None and claim.claim == old.claims
            if not ends:
                raise Violation(
                    "4 only the newest claim records", f"{new.name} under claim {old.claims} left RUNNING by {claim}"
                )
        if old.status is S.PENDING and new.status is S.QUEUED:
            view.check_released(new)
        if new.status is S.COMPLETED:
            view.outputs.update(self._store.outputs(view.id, [new.ref.n]))
        self._check_counts(old, new, operation)

    def _check_follows(self, old: StepRecord, new: StepRecord, operation: str) -> None:
        if new.status in FOLLOWS[old.status]:
            return
        passes = old.status is S.RUNNING and operation in ("record", "vanish")
        if not (passes and any(new.status in FOLLOWS[midway] for midway in _MIDWAY)):
            raise Violation("FOLLOWS", f"{new.name} went from {old.status} to {new.status} by {operation}")

    def _check_again(self, old: StepRecord, new: StepRecord) -> None:
        begins = AGAIN.get(old.status, frozenset[S]())
        if S.PENDING in begins and (new.error is None or new.error.type == NOT_TAKEN):
            begins |= {S.SKIPPED, S.COMPLETED}  # no way leads to it, or to all that it waited for
        may_begin = new.status in begins and (old.status is not S.COMPLETED or old.parent is not None)
        kept = (new.claims, new.generation) == (old.claims, old.generation + 1)
        if not (may_begin and kept) or new.attempts or new.crashes:
            raise Violation("a retry begins a new generation", f"{old} became {new}")

    def _check_counts(self, old: StepRecord, new: StepRecord, operation: str) -> None:
        crashed, attempted = new.crashes - old.crashes, new.attempts - old.attempts
        if crashed != int(operation == "vanish" and old.status is S.RUNNING) or attempted not in (0, 1):
            raise Violation("8 crashes", f"{new.name}: {crashed} crashes, {attempted} attempts more after {operation}")
        if attempted and (operation != "record" or old.status is not S.RUNNING):
            raise Violation("8 crashes", f"{new.name} has an attempt more after {operation}")
        if new.crashes >= MAX_CRASHES and new.status not in (*TERMINAL, S.WAITING):  # WAITING: for its fallback
            raise Violation("8 poison ends", f"{new.name} is {new.status} after {new.crashes} crashes")

    # --- the living ---------------------------------------------------------------------------------------------

    def _renewed(self, process: Process, lease: Lease) -> None:
        now = self._world.now
        ran_out = process.expires_at - 2 * self._world.weather.skew_s - 0.01
        if process.called_dead or (process.expires_at and now >= ran_out):
            process.lapsed_at = now
        process.called_dead = False
        process.expires_at = lease.expires_at - process.skew_s

    def _check_called_dead(self, process: Process, incarnation: str) -> None:
        """A lease was deleted: its worker must be dead, or silent for its lease time as far as others could know."""
        holder = next((each for each in self._world.processes if each.name == incarnation), None)
        if holder is None or not holder.alive:
            return
        holder.called_dead = True
        world = self._world
        # After an outage that everybody noticed, everybody gets the time to renew.
        ended = [START + end for begin, end in world.weather.store_away if end - begin > NOTICED_S]
        until = max([holder.expires_at, *(end + LEASE_S - INSPECT_S - 0.5 for end in ended if end <= world.now)])
        left = until - 2 * world.weather.skew_s - 0.01 - world.now
        if left > 0 and world.now - holder.lapsed_at > LAPSE_S:
            raise Violation(_NO_NEED, f"{incarnation} is called dead, and its lease holds {left:.2f} s more")
        together = abs(process.frozen_until - holder.frozen_until) < 0.001
        long = process.frozen_until - process.frozen_at > LEASE_S / 2
        ran_out = holder.frozen_at < holder.expires_at <= holder.frozen_until and holder.away_until <= world.now
        if together and long and ran_out and world.now < process.frozen_until + LEASE_S / 2:
            raise Violation(_NO_NEED, f"{process.name} slept as long as {incarnation}, and calls it dead")

    def _check_reopened(self, claim: ClaimRef) -> None:
        """A claim was reopened: its worker must be dead, have been called so, or not know of it."""
        holder = self.holders[claim]
        self.leavers.reopened(holder, claim)
        if not holder.alive or claim in self.dropped:
            self.unheard += claim not in self.ran
        elif not holder.called_dead and self._world.now - holder.lapsed_at > LAPSE_S:
            raise Violation(_NO_NEED, f"{claim} was taken from {holder.name}, which lives and runs it")

    # --- the end ------------------------------------------------------------------------------------------------

    def open_steps(self) -> list[str]:
        """Return what has not ended."""
        return [
            f"{record.name} {record.status}"
            for view in self.views.values()
            for record in view.records.values()
            if record.status not in TERMINAL
        ]

    def finish(self) -> None:
        """Invariants of what is left when everything has ended."""
        for view in self.views.values():
            self._look(view.id, "nothing", None)
            known = self._store.outputs(view.id, list(view.outputs))
            for n, text in view.outputs.items():
                if known.get(n) != text:
                    raise Violation(
                        "1 one record", f"output {n} of {view.id} is {known.get(n)!r}, recorded was {text!r}"
                    )
            for record in view.records.values():
                self._check_outcome(view, record)
        most = 4 + math.log2(1 + self._world.elapsed)
        for ref, count in self.resent.items():
            if count > most:
                raise Violation("messages are bounded", f"{ref.celery_id} was sent again {count} times")
        cut = any(each.cut for each in self._world.processes)
        if self._world.weather.calm and self._world.deaths == 0 and not cut and self.resent:
            raise Violation("messages are bounded", f"in calm weather {len(self.resent)} steps were sent again")

    def _check_outcome(self, view: RunView, record: StepRecord) -> None:
        if record.status is not S.FAILED or record.error is None:
            return
        row = view.rows.get(record.ref.n)
        if any(each.parent == record.ref.n for each in view.records.values()) or (row is not None and row.is_map):
            return  # it failed with its parts
        script = Script.parse(record.target)
        allowed = {"WorkerCrashed", *ERRORS.get(script.kind, set())}
        if row is None or row.timeout_s is not None:
            allowed.add("TaskTimedOut")
        if record.error.type not in allowed:
            raise Violation("9 a failure has its own reason", f"{record.name} ({script}) failed with {record.error}")
        if record.error.type == "WorkerCrashed" and record.crashes != MAX_CRASHES:
            raise Violation("8 poison ends", f"{record.name} was given up after {record.crashes} crashes")

    def innocents(self) -> list[str]:
        """Return steps that were given up as poison though their scripts kill nobody."""
        return [
            record.name
            for view in self.views.values()
            for record in view.records.values()
            if record.error is not None
            and record.status is S.FAILED
            and record.error.type == "WorkerCrashed"
            and not Script.parse(record.target).kind.startswith("kill")
            and not any(each.parent == record.ref.n for each in view.records.values())
        ]

    def _retrying(self, until: float) -> list[str]:
        """Return the runs with a retry that is due."""
        return [
            view.id
            for view in self.views.values()
            if any(
                each.status is S.RETRYING and each.due_at is not None and each.due_at <= until
                for each in view.records.values()
            )
        ]
