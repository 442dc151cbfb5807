"""Changes: what a claim came to, as arguments of the function ``record``."""

from typing import assert_never

from orchestra.engine.outcome import Change, Completed, Expanded, Failed, Reopened, Rescheduled
from orchestra.engine.rows import Expansion
from orchestra.model.record import ErrorInfo
from orchestra.store.redis.creation import SLICE, Addition, addition
from orchestra.store.redis.rows import error_parts, text_of


def arguments(change: Change, now: float) -> list[object]:
    """Return the kind of a change and what the function needs to know of it; of an expansion not its rows."""
    match change:
        case Completed(output, dead):
            return ["completed", output, ",".join(map(str, dead))]
        case Failed(error, attempted, crashed):
            return ["failed", *error_parts(error), int(attempted), int(crashed)]
        case Rescheduled(error, after_s, attempted):
            times = (text_of(now + after_s), text_of(round(after_s, 3)))
            return ["rescheduled", *error_parts(error), *times, int(attempted)]
        case Reopened(reason, crashed):
            return ["reopened", *error_parts(ErrorInfo("WorkerLost", reason)), int(crashed)]
        case Expanded(expansion):
            first = expansion.steps[0].n if expansion.steps else 0
            collects = "" if expansion.collects is None else expansion.collects
            return ["expanded", expansion.parts, collects, first, len(expansion.steps)]
        case _:
            assert_never(change)


def parts(expansion: Expansion, now: float) -> Addition:
    """Return what is written of the steps that an expansion adds.

    Raises:
        ValueError: Their numbers are not one after the other, as ``reserve`` gives them.
    """
    numbers = [step.n for step in expansion.steps]
    if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise ValueError(f"the numbers of added steps must follow each other; these do not: {numbers[:20]}")
    return addition(expansion.steps, expansion.joins, now)


def fits(added: Addition) -> bool:
    """Whether the rows go with the change itself."""
    return sum(map(len, added.slices)) <= 6 * SLICE


__all__ = ["arguments", "fits", "parts"]
