"""The patterns as people call them: ``AgentPatterns``."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar, cast

from orchestra.agents import patterns
from orchestra.agents.agent import LlmAgent, agent
from orchestra.agents.patterns import ChainResult, ConsensusResult, DebateResult, PatternResult, SupervisorResult
from orchestra.client import default
from orchestra.errors import CannotTravel, InvalidOption, NotInStep
from orchestra.model import options
from orchestra.model.current import current
from orchestra.model.function import TaskFunction
from orchestra.model.options import Duration
from orchestra.runtime.loop import in_coroutine, wait

R = TypeVar("R", bound=PatternResult)


class AgentPatterns:
    """What several agents do together, durably: each call is recorded once, and a crash goes on where it was.

    Called in a program, a pattern is a task of the default orchestrator, and the call waits for it. Called inside a
    step, it is part of that step; in a coroutine there, it has to be awaited.

    ``timeout`` bounds each answer: an agent that takes longer has failed. ``max_cost`` is in US dollars: once so much
    was spent, no further round is begun.
    """

    @staticmethod
    def supervisor(
        task: str,
        agents: Sequence[LlmAgent],
        supervisor_instructions: str,
        *,
        max_rounds: int = 10,
        timeout: Duration | None = None,
        max_cost: float | None = None,
        model: Any = None,
    ) -> SupervisorResult:
        """Let a supervisor hand work to the agents, see what they did, ask for more, and end."""
        leader = agent(supervisor_instructions, name="supervisor", model=model)
        given = {"task": task, "agents": list(agents), "supervisor": leader, "max_rounds": max_rounds}
        return _call(patterns.supervisor, SupervisorResult, given, timeout, max_cost)

    @staticmethod
    def consensus(
        task: str,
        agents: Sequence[LlmAgent],
        threshold: float = 0.5,
        *,
        timeout: Duration | None = None,
        max_cost: float | None = None,
    ) -> ConsensusResult:
        """Let all agents vote: approved when at least the share ``threshold`` approves. One that fails does not."""
        if not 0 < threshold <= 1:
            raise InvalidOption("threshold", threshold, "a share above 0 and up to 1")
        given = {"task": task, "agents": list(agents), "threshold": threshold}
        return _call(patterns.consensus, ConsensusResult, given, timeout, max_cost)

    @staticmethod
    def debate(
        topic: str,
        pro_agent: LlmAgent,
        con_agent: LlmAgent,
        judge: LlmAgent,
        rounds: int = 3,
        *,
        timeout: Duration | None = None,
        max_cost: float | None = None,
    ) -> DebateResult:
        """Let two agents argue for so many rounds, and a third one name the winner."""
        sides = {"pro_agent": pro_agent, "con_agent": con_agent, "judge": judge}
        given = {"topic": topic, **sides, "rounds": options.at_least_one("rounds", rounds)}
        return _call(patterns.debate, DebateResult, given, timeout, max_cost)

    @staticmethod
    def chain_of_thought(
        problem: str,
        reasoner: LlmAgent,
        steps: Sequence[str],
        *,
        timeout: Duration | None = None,
        max_cost: float | None = None,
    ) -> ChainResult:
        """Let an agent think in the given steps, each on those before, and give a final answer."""
        given = {"problem": problem, "reasoner": reasoner, "steps": list(steps)}
        return _call(patterns.chain_of_thought, ChainResult, given, timeout, max_cost)


def _call(
    pattern: TaskFunction[..., Any],
    kind: type[R],
    given: Mapping[str, Any],
    timeout: Duration | None,
    max_cost: float | None,
) -> R:
    arguments = {**given, "timeout_s": options.timeout(timeout), "max_cost": max_cost}
    with suppress(NotInStep):
        current()
        body = cast(Callable[..., Awaitable[R]], pattern.body)
        running = body(**arguments)
        return cast(R, running) if in_coroutine() else wait(running)
    orch = default()
    if orch.parts.local is None:
        for each in _agents(given.values()):
            if (problem := each.as_path()[1]) is not None:
                raise CannotTravel(each.name, problem)
    done = orch.submit(pattern, kwargs=arguments).wait()
    done.raise_for_status()
    return kind.model_validate(done.output)


def _agents(values: Iterable[object]) -> Iterator[LlmAgent]:
    for value in values:
        if isinstance(value, LlmAgent):
            yield value
        elif isinstance(value, list):
            yield from _agents(cast(list[object], value))
