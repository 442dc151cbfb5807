"""Outcomes: what the results and errors of bodies come to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from billiard.exceptions import TimeLimitExceeded  # pyright: ignore[reportMissingTypeStubs]

from orchestra.engine.outcome import Done, GivenBack, NotFound, Outcome, Raised, Spread
from orchestra.engine.plan import StepInput, plan
from orchestra.engine.rows import of_elements, of_plan
from orchestra.errors import (
    DefinitionError,
    LeftEarly,
    ModelBusy,
    TaskNotFound,
    TaskTimedOut,
    TooManyRounds,
    UsageLimitReached,
)
from orchestra.model.condition import holds
from orchestra.model.function import BoundWorkflow
from orchestra.model.record import ErrorInfo
from orchestra.model.workflow import Workflow
from orchestra.runtime.body import error_info
from orchestra.runtime.codec import decode, encode_output
from orchestra.runtime.cycle import Cycle
from orchestra.runtime.observing import carried_by, carrying
from orchestra.runtime.patience import patiently
from orchestra.runtime.registry import GENERIC, Registry
from orchestra.store.contract import Claimed

_MOST_RETURNS = 600
_MOST_WAITS = 20
"""How often a step waits for a model that asks it to, before its retry policy decides."""
_MAX_ROUNDS = 100
"""How deep sub-workflows may nest, where a task does not say."""


@dataclass(frozen=True, slots=True)
class Elements:
    """What the body of a map returns: the inputs of its parts."""

    inputs: Sequence[StepInput]


class Outcomes:
    """Says what a body came to. What it becomes needs numbers, which the store gives."""

    def __init__(self, cycle: Cycle, registry: Registry, sleep: Callable[[float], None]) -> None:
        self._cycle, self._registry, self._sleep = cycle, registry, sleep

    def of_result(self, claimed: Claimed, result: object) -> Outcome:
        """The body returned.

        Raises:
            UnserialisableOutput: JSON cannot hold the result.
            StoreUnavailable: The store gave no numbers for what the step becomes.
        """
        if isinstance(result, Elements):
            first, _join = self._reserve(claimed, len(result.inputs), 0)
            return Spread(of_elements(claimed.row, result.inputs, first))
        if isinstance(result, Workflow | BoundWorkflow):
            return self._nested(claimed, result)
        output = encode_output(result, claimed.name, adopted=claimed.row.task != GENERIC)
        whens = claimed.row.whens or {}
        # What the condition sees is what its steps will see: the output as JSON has it.
        seen = decode(output) if whens else None
        return Done(output, frozenset(int(join) for join, when in whens.items() if not holds(when, seen)))

    def _nested(self, claimed: Claimed, result: Workflow | BoundWorkflow) -> Outcome:
        """A step returned a workflow: it becomes that workflow."""
        row = claimed.row
        limit = _MAX_ROUNDS if row.max_rounds is None else row.max_rounds
        if row.round >= limit:
            return Raised(error_info(TooManyRounds(row.name, limit)), final=True)
        bind = self._registry.bind
        try:
            graph = result.graph() if isinstance(result, Workflow) else result.graph
            compiled = plan(graph, bind, priority=row.priority, queue=row.queue, gathered=True, alone=bool(row.whens))
        except DefinitionError as error:
            return Raised(error_info(error), final=True)
        compiled = carrying(compiled, carried_by(claimed))
        return Spread(of_plan(compiled, row, *self._reserve(claimed, len(compiled.steps), len(compiled.joins))))

    def _reserve(self, claimed: Claimed, steps: int, joins: int) -> tuple[int, int]:
        run_id = claimed.claim.ref.step.run_id
        return patiently(lambda: self._cycle.store.reserve(run_id, steps, joins), self._sleep)

    def of_error(self, claimed: Claimed, error: BaseException) -> Outcome:
        """The body raised, or took too long."""
        outcome = of_error(claimed, error)
        if isinstance(outcome, NotFound) and not self._registry.travels and claimed.claim.claim < _MOST_RETURNS:
            # Programs that share a state file each have functions of their own: leave the step to the one that has it.
            others = any(each.incarnation != self._cycle.worker for each in self._cycle.store.leases())
            return NotFound(outcome.error, elsewhere=others)
        return outcome


def of_error(claimed: Claimed, error: BaseException) -> Outcome:
    """Return what an error means, whoever else may be able to run the step."""
    match error:
        case TaskNotFound():
            return NotFound(error_info(error))
        case TimeLimitExceeded(args=(float() | int() as limit_s, *_)):
            return Raised(error_info(TaskTimedOut(claimed.name, limit_s)))
        case UsageLimitReached():  # what was used stays used
            return Raised(error_info(error), final=True)
        case ModelBusy(retry_after_s=seconds) if claimed.attempts < _MOST_WAITS:
            return Raised(error_info(error), retry_after_s=seconds)
        case _:
            return Raised(error_info(error))


def of_retry(error: BaseException | None, after_s: float) -> Outcome:
    """Return what it means that a body asked to be run again."""
    match error:
        case None:
            return Raised(ErrorInfo("Retry", "the body asked to be tried again"), retry_after_s=after_s)
        case LeftEarly():
            return GivenBack(str(error))
        case _:
            return Raised(error_info(error), retry_after_s=after_s)
