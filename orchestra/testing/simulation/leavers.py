"""Leavers: workers that were told to go, and what they may do from then on."""

from collections.abc import Mapping, Set

from orchestra.model.status import TaskStatus as S
from orchestra.store.contract import ClaimRef, Store
from orchestra.testing.simulation.view import RunView
from orchestra.testing.simulation.world import Process, Violation, World

SLACK_S = 2.5
"""How long a worker may take to go after its bodies' time is over."""
TAKES = "who goes takes nothing new"
LETS_FINISH = "who goes lets bodies finish"
HOLDS = "who goes holds nothing"
GOES = "who is told to go goes"


class Leavers:
    """Judges them.

    Args:
        holders: Who made each claim.
        dropped: Claims whose bodies are gone while their workers live.
    """

    def __init__(
        self, world: World, store: Store, views: Mapping[str, RunView], holders: Mapping[ClaimRef, Process],
        dropped: Set[ClaimRef],
    ) -> None:  # fmt: skip
        self._world, self._store, self._views = world, store, views
        self._holders, self._dropped = holders, dropped
        self.bodies: set[ClaimRef] = set()
        """Claims whose bodies run."""
        self.killed: set[ClaimRef] = set()
        """Claims whose bodies were ended because their worker goes."""
        self.went = 0

    def claimed(self, process: Process, claim: ClaimRef) -> None:
        """Whoever was told to go finishes what it had taken, and begins nothing else."""
        goes_on = claim.ref.step.run_id in process.goes_on_in
        if process.told_at is not None and claim.ref.celery_id not in process.may_begin and not goes_on:
            raise Violation(TAKES, f"{process.name} claims {claim.ref.celery_id}")

    def gave_back(self, process: Process, claim: ClaimRef) -> None:
        """Only what has no body, or has left it by itself, is given back before the time of bodies is over."""
        told_at, grace_s = process.told_at, self._world.weather.grace_s
        if claim not in self.bodies or claim in self._dropped:
            return
        if told_at is None:
            raise Violation(LETS_FINISH, f"{process.name} gives {claim} back, and nobody told it to go")
        left_s = told_at + grace_s - self._world.now
        if left_s > 0:
            raise Violation(LETS_FINISH, f"{process.name} gives {claim} back, whose body has {left_s:.2f} s more")

    def released(self, process: Process) -> None:
        """A lease was given back: what its worker still had counts as crashed now."""
        left = [claim for claim, holder in self._holders.items() if holder is process and self._stands(claim)]
        if left and not self._is_excused(process):
            raise Violation(HOLDS, f"{process.name} gives its lease back and has {left}")

    def reopened(self, holder: Process, claim: ClaimRef) -> None:
        """A claim was reopened as crashed."""
        if claim in self.killed and holder.alive:
            raise Violation(HOLDS, f"{holder.name} ends the body of {claim}, and counts that as a crash")
        if holder.went and not self._is_excused(holder):
            raise Violation(HOLDS, f"{claim} was left behind by {holder.name}")

    def gone(self, process: Process) -> None:
        """A worker has gone by itself."""
        self.went += 1
        self.released(process)
        if self._is_excused(process) or process.told_at is None:
            return
        if any(lease.incarnation == process.name for lease in self._store.leases()):
            raise Violation(HOLDS, f"{process.name} has gone and left its lease behind")
        took_s = self._world.now - process.told_at
        if process.waited_at < process.told_at and took_s > self._world.weather.grace_s + SLACK_S:
            raise Violation(GOES, f"{process.name} took {took_s:.1f} s")

    def _stands(self, claim: ClaimRef) -> bool:
        step = claim.ref.step
        record = self._views[step.run_id].records[step.n]
        return (record.status, record.generation, record.claims) == (S.RUNNING, claim.ref.generation, claim.claim)

    def _is_excused(self, process: Process) -> bool:
        """Whether it was kept from going in order: the store did not answer it, or it was stopped meanwhile."""
        told_at = process.told_at or 0.0
        return process.refused_at >= told_at or process.frozen_until > told_at
