"""Collaboration: agents take turns on one shared text, until all of them are content with it."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestra.agents.agent import LlmAgent
from orchestra.agents.patterns.rounds import Pattern, PatternFunction
from orchestra.agents.patterns.talk import Failure, PatternResult, Talk, unique_names
from orchestra.errors import AgentsFailed
from orchestra.model import options
from orchestra.model.options import Duration


class Contribution(BaseModel):
    """The structured answer of one whose turn it is."""

    model_config = ConfigDict(frozen=True)

    content: bool = Field(description="whether the shared text is good as it stands; then `text` may be empty")
    text: str = Field(default="", description="the whole shared text, as you would have it")


class CollaborationResult(PatternResult):
    """Of ``collaboration``: ``finished`` is False when rounds or budget ran out before all were content.

    An entry of the transcript without text says that the shared text was left as it was.
    """

    output: str
    rounds: int
    finished: bool


class Collaboration(Pattern[CollaborationResult], frozen=True):
    """In each round everybody has a turn."""

    kind: Literal["collaboration"] = "collaboration"
    task: str
    agents: tuple[LlmAgent, ...]
    max_rounds: int

    @property
    def result(self) -> type[CollaborationResult]:
        return CollaborationResult

    def titles(self) -> list[str]:
        return [f"collaboration round {number}" for number in range(1, self.max_rounds + 1)]

    async def play(self, number: int, talk: Talk) -> CollaborationResult | None:
        content = True
        for name, each in zip(unique_names(self.agents), self.agents, strict=True):
            if not talk.spent:
                content = await self._turn(number, talk, name, each) and content
        shared = _shared(talk)
        finished = content and bool(shared) and not talk.spent
        if not finished and number < self.max_rounds and not talk.spent:
            return None
        if not shared:
            raise AgentsFailed(self.kind, talk.errors())
        return CollaborationResult(
            output=shared, rounds=number, finished=finished, transcript=tuple(talk.entries), usage=talk.usage
        )

    async def _turn(self, number: int, talk: Talk, name: str, speaker: LlmAgent) -> bool:
        """Let one have its turn; returns whether it is content."""
        shared = _shared(talk)
        prompt = f"You work with others on one text: {self.task}\n\nThe text so far:\n{shared or '(nothing yet)'}"
        offline = Contribution(content=bool(shared), text=f"{shared or f'[offline] {self.task}'}\n(by {name})")
        if number > 1:
            offline = Contribution(content=True)
        said = await talk.ask(name, speaker, f"{prompt}\n\nIt is your turn: improve it.", Contribution, offline)
        if isinstance(said, Failure):
            talk.say(number, name, said)
            return True  # others do not wait for it
        talk.say(number, name, "" if said.text == shared else said.text)
        return said.content


def _shared(talk: Talk) -> str:
    return next((each.text for each in reversed(talk.entries) if each.text), "")


@PatternFunction
def collaboration(
    task: str,
    agents: Sequence[LlmAgent],
    *,
    max_rounds: int = 3,
    timeout: Duration | None = None,
    max_cost: float | None = None,
) -> Collaboration:
    """Let agents take turns on one shared text, until all are content with it or the rounds are over."""
    unique_names(agents)
    return Collaboration(
        task=task,
        agents=tuple(agents),
        max_rounds=options.at_least_one("max_rounds", max_rounds),
        timeout_s=options.timeout(timeout),
        max_cost=max_cost,
    )
