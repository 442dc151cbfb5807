"""The desk: what producers and workers do with a store, in one line each."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from orchestra.engine.outcome import Change, Completed, Expanded, Failed, Rescheduled
from orchestra.engine.plan import Plan, StepInput, Target, plan
from orchestra.engine.rows import of_elements, of_plan
from orchestra.model.graph import Graph, GraphStep, Mapped, StepOptions
from orchestra.model.ids import MessageRef, StepRef, new_id
from orchestra.model.record import ErrorInfo, RunRecord, StepRecord
from orchestra.model.status import WorkflowStatus
from orchestra.store.contract import Claimed, ClaimRef, Dispatch, Lease, NewRun, Recorded, Refused, Store
from orchestra.testing.clock import Clock

BOOM = ErrorInfo("ValueError", "boom")
T = TypeVar("T")
WITH_FALLBACK = StepOptions(fallback="other")


def graph(
    *after: Sequence[int], on_failure: str = "fail", result: object = None, **changes: Mapping[str, Any]
) -> Graph:
    """Return a graph whose step n, called ``s<n>``, waits for the steps ``after[n]``.

    ``s3={"any": True}`` changes fields of the step of that name.
    """

    def step(n: int, before: Sequence[int]) -> GraphStep:
        plain: dict[str, Any] = {"key": f"s{n}", "name": f"s{n}", "agent": f"agent{n}", "args": [], "kwargs": {}}
        plain.update(after=frozenset(before), **changes.get(f"s{n}", {}))
        return GraphStep(**plain)

    return Graph("w", "work", [step(n, before) for n, before in enumerate(after)], result, on_failure)


def a_map(max_parallel: int | None = None, **fields: Any) -> dict[str, Any]:
    """Return the fields of a step that is a map over a list that is given when it runs."""
    return {"mapped": Mapped([], max_parallel), **fields}


def compiled(shape: Graph, *, queue: str = "q", priority: int = 5, gathered: bool = False, alone: bool = False) -> Plan:
    """Compile a graph whose agents are names."""
    return plan(
        shape,
        lambda agent: Target("task", f"m:{agent}"),
        queue=queue,
        priority=priority,
        gathered=gathered,
        alone=alone,
    )


def lease(incarnation: str = "w1", *, expires_at: float = 0.0, slots: int = 1, queues: Sequence[str] = ("q",)) -> Lease:
    """Return a lease."""
    return Lease(incarnation, f"{incarnation}@host", "host", "boot", 1, 2.0, list(queues), slots, 3.0, expires_at)


def must(value: T | None) -> T:
    """Return what must be there."""
    assert value is not None
    return value


class Desk:
    """A store under test, and its time."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store, self.clock = store, clock
        self.sent: list[Dispatch] = []
        """Everything that was to be published, in that order."""

    # --- producers ----------------------------------------------------------------------------------------------

    def new(self, shape: Graph, *, queue: str = "q", priority: int = 5, **fields: Any) -> NewRun:
        """Return a run that is not created yet."""
        plain: dict[str, Any] = {"id": new_id(), "name": shape.name, "workflow_id": shape.id}
        plain.update(plan=compiled(shape, queue=queue, priority=priority), **fields)
        return NewRun(**plain)

    def create(self, shape: Graph, **fields: Any) -> str:
        """Create a run and return its id."""
        return self.create_all([self.new(shape, **fields)])[0]

    def create_all(self, runs: list[NewRun]) -> list[str]:
        """Create runs in one call and return their ids."""
        created = self.store.create_runs(runs, self.clock())
        self.sent += [each for one in created for each in one.dispatches]
        return [one.run_id for one in created]

    def single(self, **fields: Any) -> str:
        """Create the run of one task that is submitted alone, and return its id."""
        run_id = new_id()
        one = graph([], s0={"key": run_id, **fields})
        return self.create(one, id=run_id, workflow_id=run_id, single=True)

    def cancel(self, run_id: str, n: int | None = None) -> Recorded | None:
        """Cancel a run or a step."""
        return self._kept(self.store.cancel(run_id, n, self.clock()))

    def pause(self, run_id: str) -> bool:
        """Pause a run."""
        return self._kept(self.store.pause(run_id, self.clock())) is not None

    def resume(self, run_id: str) -> bool:
        """Resume a run."""
        return self._kept(self.store.resume(run_id, self.clock())) is not None

    def retry_run(self, run_id: str) -> bool:
        """Let a run that has ended run again."""
        return self._kept(self.store.retry(run_id, self.clock())) is not None

    def fork(self, run_id: str, n: int) -> str | None:
        """Fork a run from a step, and return the id of the new one."""
        created = self.store.fork(run_id, new_id(), n, self.clock())
        self.sent += created.dispatches if created else ()
        return created.run_id if created else None

    # --- workers ------------------------------------------------------------------------------------------------

    def try_claim(self, run_id: str, n: int, worker: str = "w1", generation: int = 0) -> Claimed | Refused:
        """Handle the message of a step as far as its claim."""
        return self.store.claim(MessageRef(StepRef(run_id, n), generation), worker, self.clock())

    def claim(self, run_id: str, n: int, worker: str = "w1") -> Claimed:
        """Claim a step that must be free."""
        claimed = self.try_claim(run_id, n, worker)
        assert isinstance(claimed, Claimed), claimed
        return claimed

    def claim_again(self, run_id: str, n: int, worker: str = "w1") -> Claimed:
        """Claim a step of whatever generation that must be free."""
        claimed = self.try_claim(run_id, n, worker, self.step(run_id, n).generation)
        assert isinstance(claimed, Claimed), claimed
        return claimed

    def go_on(self, run_id: str, n: int) -> None:
        """Let a step of whatever generation return."""
        assert self.record(self.claim_again(run_id, n), Completed("null")) is not None

    def record(self, claim: Claimed | ClaimRef, change: Change) -> Recorded | None:
        """Record what a claim came to."""
        ref = claim.claim if isinstance(claim, Claimed) else claim
        return self._kept(self.store.record(ref, change, self.clock()))

    def do(self, run_id: str, n: int, change: Change) -> Recorded:
        """Claim a step and record what it came to."""
        recorded = self.record(self.claim(run_id, n), change)
        assert recorded is not None
        return recorded

    def complete(self, run_id: str, *numbers: int, output: str = "null", dead: Sequence[int] = ()) -> Recorded:
        """Let steps return one after the other."""
        recorded = Recorded()
        for n in numbers:
            recorded = self.do(run_id, n, Completed(output, frozenset(dead)))
        return recorded

    def fail(self, run_id: str, n: int, error: ErrorInfo = BOOM) -> Recorded:
        """Let a step fail for good."""
        return self.do(run_id, n, Failed(error))

    def retry(self, run_id: str, n: int, after_s: float = 5.0) -> Recorded:
        """Let a step fail, and be tried again."""
        return self.do(run_id, n, Rescheduled(BOOM, after_s))

    def vanish(self, claim: Claimed, reason: str = "its worker died") -> Recorded | None:
        """Let a claim end without an outcome."""
        return self._kept(self.store.vanish(claim.claim, reason, self.clock()))

    def spread(self, run_id: str, n: int, size: int) -> list[int]:
        """Let a map turn into parts, and return their numbers."""
        return self.spread_of(self.claim(run_id, n), size)

    def spread_of(self, claimed: Claimed, size: int) -> list[int]:
        """Let the claim of a map turn into parts, and return their numbers."""
        first, _join = self.store.reserve(claimed.claim.ref.step.run_id, size, 0)
        inputs = [StepInput([at]) for at in range(size)]
        self.record(claimed, Expanded(of_elements(claimed.row, inputs, first)))
        return list(range(first, first + size))

    def turn(self, run_id: str, n: int, shape: Graph) -> list[int]:
        """Let a step turn into a sub-workflow, and return the numbers of its steps."""
        return self.turn_of(self.claim(run_id, n), shape)

    def turn_of(self, claimed: Claimed, shape: Graph) -> list[int]:
        """Let the claim of a step turn into a sub-workflow, and return the numbers of its steps."""
        run_id = claimed.claim.ref.step.run_id
        its = compiled(shape, gathered=True, alone=bool(claimed.row.whens))
        first, first_join = self.store.reserve(run_id, len(its.steps), len(its.joins))
        self.record(claimed, Expanded(of_plan(its, claimed.row, first, first_join)))
        return list(range(first, first + len(its.steps)))

    def due(self) -> float | None:
        """Make due what is; return when the next one is."""
        dispatches, following = self.store.due(self.clock())
        self.sent += dispatches
        return following

    def work(self) -> int:
        """Complete everything that has been sent and what that releases; return how many steps that were."""
        done = 0
        while self.sent:
            claimed = self.store.claim(self.sent.pop().ref, "w1", self.clock())
            if isinstance(claimed, Claimed):
                self.record(claimed, Completed("null"))
                done += 1
        return done

    def _kept(self, recorded: Recorded | None) -> Recorded | None:
        self.sent += recorded.dispatches if recorded else ()
        return recorded

    # --- readers ------------------------------------------------------------------------------------------------

    def step(self, run_id: str, n: int) -> StepRecord:
        """Return a step."""
        return must(self.store.step(StepRef(run_id, n)))

    def run(self, run_id: str) -> RunRecord:
        """Return a run."""
        return must(self.store.run(run_id))

    def statuses(self, run_id: str) -> str:
        """Return the first two letters of the status of each step, by number: ``CO RU PE``."""
        return " ".join(step.status[:2] for step in self.store.steps(run_id))

    def ended(self, run_id: str) -> WorkflowStatus:
        """Return the status of a run."""
        return self.run(run_id).status

    def sent_of(self, run_id: str) -> list[int]:
        """Return the numbers of the steps of a run that were to be published, in that order."""
        return [each.ref.step.n for each in self.sent if each.ref.step.run_id == run_id]

    def told(self, run_id: str, *types: str) -> list[str]:
        """Return the log of a run: ``queued 0``, ``workflow.completed``; of some types when these are named."""
        events, _cursor = self.store.events(0, 100_000, run_id=run_id)
        return [
            each.type if each.task_id is None else f"{each.type[5:]} {_number(run_id, each.task_id)}"
            for each in events
            if not types or each.type in types
        ]


def _number(run_id: str, task_id: str) -> str:
    return "alone" if task_id == run_id else task_id.removeprefix(f"{run_id}.")
