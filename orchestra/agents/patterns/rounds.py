"""Rounds: how a pattern becomes a workflow whose rounds are steps, or is played out within one step.

A crash in the third round of a debate goes on in the third round, and there with the call that was in flight.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar, cast

from pydantic import BaseModel

from orchestra.agents.patterns.talk import PatternResult, Said, Talk
from orchestra.model import template
from orchestra.model.function import BoundWorkflow, TaskFunction
from orchestra.model.graph import Graph, GraphStep, StepOptions, current_builder
from orchestra.runtime.loop import in_coroutine, wait

P = ParamSpec("P")
R = TypeVar("R", bound=PatternResult)
_TAKE = "orchestra.agents.patterns.steps:take"
_CONCLUDE = "orchestra.agents.patterns.steps:conclude"


class Pattern(BaseModel, ABC, Generic[R], frozen=True):
    """What a pattern is played with: who takes part in what, on what terms. It travels to each of its rounds."""

    kind: str
    timeout_s: float | None = None
    max_cost: float | None = None

    @property
    @abstractmethod
    def result(self) -> type[R]:
        """What comes out."""

    @abstractmethod
    def titles(self) -> list[str]:
        """Return what its rounds are called, in order; it may be over before the last one."""

    @abstractmethod
    async def play(self, number: int, talk: Talk) -> R | None:
        """Play a round, from 1; returns the result when this was the last one."""

    async def take(self, number: int, said: Said) -> R | Said:
        """Play a round on what was said before."""
        talk = Talk(said, self.timeout_s, self.max_cost)
        return await self.play(number, talk) or talk.said()

    async def play_out(self) -> R:
        """Play all rounds here."""
        said, number = Said(), 1
        while isinstance(came := await self.take(number, said), Said):
            said, number = came, number + 1
        return came

    def workflow(self) -> BoundWorkflow:
        """Return the workflow whose steps are the rounds."""
        titles = self.titles()
        data = template.encode(self, _no_step)
        steps = [_round(title, position, data) for position, title in enumerate(titles)]
        if len(steps) > 1:
            steps.append(_end(self.kind, len(steps)))
        return BoundWorkflow(Graph(self.kind, self.kind, steps))


def _round(title: str, position: int, data: object) -> GraphStep:
    before = position - 1
    args = [data, position + 1] if position == 0 else [data, position + 1, template.reference_to(before)]
    after = frozenset[int]() if position == 0 else frozenset({before})
    return GraphStep(title, title, _TAKE, args, {}, after, whens=dict.fromkeys(after, "output.open"))


def _end(kind: str, rounds: int) -> GraphStep:
    every = [template.reference_to(position) for position in range(rounds)]
    whens = dict.fromkeys(range(rounds), "not output.open")
    name = f"{kind} result"
    return GraphStep(name, name, _CONCLUDE, [every], {}, frozenset(range(rounds)), whens=whens)


def _no_step(_value: object) -> None:
    return None


class PatternFunction(TaskFunction[P, R]):
    """A pattern as a task: its step becomes the workflow of its rounds. Called in a step, it is played there.

    Args:
        make: Checks what is given, and returns the pattern.
    """

    def __init__(self, make: Callable[P, Pattern[R]]) -> None:
        @functools.wraps(make)
        def body(*args: P.args, **kwargs: P.kwargs) -> Any:
            return make(*args, **kwargs).workflow()

        body.__annotations__ = {name: each for name, each in make.__annotations__.items() if name != "return"}
        self.make = make
        super().__init__(body, None, StepOptions())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if current_builder() is not None:
            return super().__call__(*args, **kwargs)
        playing = self.make(*args, **kwargs).play_out()
        return cast(R, playing) if in_coroutine() else wait(playing)
