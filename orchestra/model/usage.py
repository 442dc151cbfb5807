"""Usage: what the calls of agents took, each of them and together."""

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestra.errors import InvalidOption, UsageLimitReached


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


LIMITS = "usage_limits"
"""Where the metadata of a run has what its agents may use."""


class UsageLimits(BaseModel):
    """What the agents of a run may use together, with the names that limits of one agent have. None: any amount."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    request_limit: int | None = Field(default=None, ge=0)
    tool_calls_limit: int | None = Field(default=None, ge=0)
    input_tokens_limit: int | None = Field(default=None, ge=0)
    output_tokens_limit: int | None = Field(default=None, ge=0)
    total_tokens_limit: int | None = Field(default=None, ge=0)
    cost_limit: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """In US dollars."""

    def check(self, used: Usage, counts: Usage) -> None:
        """Say whether one more call may be made: a tool call while there are some left, a request while all is left.

        Args:
            used: What was used so far.
            counts: What the call counts as beforehand: one request, or one tool call.

        Raises:
            UsageLimitReached: It may not.
        """
        requests = {
            "request_limit": used.requests,
            "input_tokens_limit": used.input_tokens,
            "output_tokens_limit": used.output_tokens,
            "total_tokens_limit": used.input_tokens + used.output_tokens,
            "cost_limit": used.cost,
        }
        for name, amount in (requests if counts.requests else {"tool_calls_limit": used.tool_calls}).items():
            limit = getattr(self, name)
            if limit is not None and amount >= limit:
                raise UsageLimitReached(name, limit, amount)


def usage_limits(given: object) -> UsageLimits | None:
    """Return the limits that somebody gave as a mapping, or raise InvalidOption. Limits that limit nothing are None."""
    if given is None:
        return None
    try:
        made = UsageLimits.model_validate(given)
    except ValidationError as error:
        names = ", ".join(UsageLimits.model_fields)
        raise InvalidOption(LIMITS, given, f"a mapping with some of {names}, and numbers from 0 on") from error
    return None if made == UsageLimits() else made


def limits_in(metadata: Mapping[str, object]) -> UsageLimits | None:
    """Return the limits that the metadata of a run holds, or raise InvalidOption."""
    return usage_limits(metadata.get(LIMITS))
