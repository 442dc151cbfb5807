"""Usage: what the calls of agents took, each of them and together."""

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Usage(BaseModel):
    """Requests, tool calls and tokens, and their price in US dollars as far as it is known."""

    model_config = ConfigDict(frozen=True)

    requests: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return self._each(other, operator.add)

    def __sub__(self, other: "Usage") -> "Usage":
        return self._each(other, operator.sub)

    def _each(self, other: "Usage", operation: Callable[[Any, Any], Any]) -> "Usage":
        values = {name: operation(getattr(self, name), getattr(other, name)) for name in _FIELDS}
        return Usage.model_construct(**{**values, "cost": round(values["cost"], _DECIMALS)})

    def __bool__(self) -> bool:
        return self != NOTHING_USED


_DECIMALS = 12
"""Sums of prices are rounded to so many: the same prices in another order give the same."""
_FIELDS: tuple[str, ...] = tuple(Usage.model_fields)
NOTHING_USED = Usage()


@dataclass(frozen=True, slots=True)
class Call:
    """One call that an agent made, and that is recorded."""

    step_id: str
    """The step: ``run_id.n``."""
    agent: str
    run: int
    """Which run of that agent in the step it was, from 1."""
    kind: Literal["model", "tool"]
    request: int
    """Which request of that run it was, or belongs to, from 1."""
    name: str
    """Of the model or the tool."""
    usage: Usage
    """With that of calls that this one stands in the place of, since the run diverged."""


def total(calls: Iterable[Call]) -> Usage:
    """Return what calls took together."""
    used = NOTHING_USED
    for each in calls:
        used += each.usage
    return used
