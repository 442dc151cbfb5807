"""Supervisor: one agent decides who does what next, sees what came of it, asks for more, and ends."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestra.agents.agent import LlmAgent, agent
from orchestra.agents.patterns.rounds import Pattern, PatternFunction
from orchestra.agents.patterns.talk import Failure, PatternResult, Talk, unique_names
from orchestra.errors import AgentsFailed
from orchestra.model import options
from orchestra.model.options import Duration

LEADER = "supervisor"


class Delegation(BaseModel):
    """The structured answer of a supervisor: what happens next."""

    model_config = ConfigDict(frozen=True)

    done: bool = Field(description="whether the task is done; then `text` is the final result")
    agent: str = Field(default="", description="who works next: one of the names given; empty when done")
    text: str = Field(description="what that agent is to do, with all it has to know; or the final result")


class SupervisorResult(PatternResult):
    """Of ``supervisor``: ``finished`` is False when rounds or budget ran out before it was done."""

    output: str
    rounds: int
    finished: bool


class Supervision(Pattern[SupervisorResult], frozen=True):
    """In each round the supervisor decides, and whom it named works."""

    kind: Literal["supervisor"] = "supervisor"
    task: str
    agents: tuple[LlmAgent, ...]
    leader: LlmAgent
    max_rounds: int

    @property
    def result(self) -> type[SupervisorResult]:
        return SupervisorResult

    def titles(self) -> list[str]:
        return [f"supervisor round {number}" for number in range(1, self.max_rounds + 1)]

    async def play(self, number: int, talk: Talk) -> SupervisorResult | None:
        team = dict(zip(unique_names(self.agents, LEADER), self.agents, strict=True))
        decision = await self._decision(number, talk, team)
        match decision:
            case Failure():
                talk.say(number, LEADER, decision)
            case Delegation(done=True, text=text):
                talk.say(number, LEADER, text)
                return self._result(number, talk, text, finished=True)
            case Delegation(agent=name, text=text):
                talk.say(number, LEADER, f"to {name}: {text}")
                await self._work(number, talk, team, name, text)
        if number < self.max_rounds and not talk.spent:
            return None
        worked = [each.text for each in talk.entries if each.speaker in team and each.text]
        if not worked:
            raise AgentsFailed(self.kind, talk.errors())
        return self._result(number, talk, worked[-1], finished=False)

    async def _decision(self, number: int, talk: Talk, team: dict[str, LlmAgent]) -> Delegation | Failure:
        about = "\n".join(f"- {name}: {each.instructions}" for name, each in team.items())
        prompt = (
            f"Task: {self.task}\n\nYour team:\n{about}\n\nSo far:\n{talk.shown()}\n\nWho does what next, or is it done?"
        )
        return await talk.ask(LEADER, self.leader, prompt, Delegation, self._offline(number, talk, list(team)))

    def _offline(self, number: int, talk: Talk, names: Sequence[str]) -> Delegation:
        """Return what the offline model decides: everybody works once, in order."""
        if number <= len(names):
            return Delegation(done=False, agent=names[number - 1], text=self.task)
        return Delegation(done=True, text=talk.entries[-1].text)

    async def _work(self, number: int, talk: Talk, team: dict[str, LlmAgent], name: str, text: str) -> None:
        if name in team:
            prompt = f"{text}\n\nWhat others have done so far:\n{talk.shown()}"
            talk.say(number, name, await talk.ask(name, team[name], prompt))
        else:
            talk.say(number, name or "nobody", Failure(f"there is nobody of that name; there are {list(team)}"))

    def _result(self, number: int, talk: Talk, output: str, *, finished: bool) -> SupervisorResult:
        return SupervisorResult(
            output=output, rounds=number, finished=finished, transcript=tuple(talk.entries), usage=talk.usage
        )


@PatternFunction
def supervisor(
    task: str,
    agents: Sequence[LlmAgent],
    supervisor_instructions: str,
    *,
    max_rounds: int = 10,
    timeout: Duration | None = None,
    max_cost: float | None = None,
    model: Any = None,
) -> Supervision:
    """Let a supervisor hand work to the agents, see what they did, ask for more, and end.

    ``model`` is that of the supervisor.
    """
    return Supervision(
        task=task,
        agents=tuple(agents),
        leader=agent(supervisor_instructions, name=LEADER, model=model),
        max_rounds=options.at_least_one("max_rounds", max_rounds),
        timeout_s=options.timeout(timeout),
        max_cost=max_cost,
    )
