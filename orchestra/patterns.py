"""The patterns as people call them: ``AgentPatterns``."""

from collections.abc import Iterable, Iterator
from typing import ParamSpec, TypeVar, cast

from orchestra.agents.agent import LlmAgent
from orchestra.agents.patterns.chain import chain_of_thought
from orchestra.agents.patterns.consensus import consensus
from orchestra.agents.patterns.debate import debate
from orchestra.agents.patterns.rounds import PatternFunction
from orchestra.agents.patterns.supervisor import supervisor
from orchestra.agents.patterns.talk import PatternResult
from orchestra.client import default
from orchestra.errors import CannotTravel
from orchestra.model.current import in_step
from orchestra.model.graph import current_builder

P = ParamSpec("P")
R = TypeVar("R", bound=PatternResult)


class StaticPattern(PatternFunction[P, R]):
    """A pattern that, called outside a step, runs on the default orchestrator and is waited for."""

    def __init__(self, pattern: PatternFunction[P, R]) -> None:
        super().__init__(pattern.make)
        self.body = pattern.body  # workers find it where that is

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if in_step() or current_builder() is not None:
            return super().__call__(*args, **kwargs)
        pattern = self.make(*args, **kwargs)
        orch = default()
        if orch.parts.local is None:
            _check_travel(value for _name, value in pattern)
        run = orch.submit_workflow(pattern.workflow()).wait()
        return pattern.result.model_validate(run.raise_for_status().output)


class AgentPatterns:
    """What several agents do together: each is a workflow whose rounds are steps, and each call is recorded once.

    Called in a program, a pattern is a run of the default orchestrator, and the call waits for it. As a task
    (``orch.submit(AgentPatterns.debate, kwargs={…})``) and in an ``@workflow`` it is a step that becomes its rounds.
    Called inside a step, it is part of that step; in a coroutine there, it has to be awaited.

    All take ``timeout``, which bounds each answer: an agent that takes longer has failed; and ``max_cost`` in US
    dollars: once so much was spent, nobody is asked any more but who has to conclude. A pattern raises ``AgentsFailed``
    when too many agents failed for a result.
    """

    supervisor = StaticPattern(supervisor)
    consensus = StaticPattern(consensus)
    debate = StaticPattern(debate)
    chain_of_thought = StaticPattern(chain_of_thought)


def _check_travel(values: Iterable[object]) -> None:
    for each in _agents(values):
        if (problem := each.as_path()[1]) is not None:
            raise CannotTravel(each.name, problem)


def _agents(values: Iterable[object]) -> Iterator[LlmAgent]:
    for value in values:
        if isinstance(value, LlmAgent):
            yield value
        elif isinstance(value, tuple):
            yield from _agents(cast(tuple[object, ...], value))
