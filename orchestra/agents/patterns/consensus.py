"""Consensus: all agents vote at once, and the share that approves decides."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestra.agents.agent import LlmAgent
from orchestra.agents.patterns.rounds import Pattern, PatternFunction
from orchestra.agents.patterns.talk import Failure, PatternResult, Talk, unique_names
from orchestra.errors import AgentsFailed, InvalidOption
from orchestra.model import options
from orchestra.model.options import Duration

Decision = Literal["approved", "rejected"]


class Vote(BaseModel):
    """The structured answer of a voter."""

    model_config = ConfigDict(frozen=True)

    approve: bool = Field(description="whether you approve")
    reasoning: str = Field(description="why, in one or two sentences")


class ConsensusResult(PatternResult):
    """Of ``consensus``: ``votes`` by the voter's name, in order; None of one that failed or was not waited for."""

    decision: Decision
    votes: dict[str, bool | None]
    reasoning: str


class Consensus(Pattern[ConsensusResult], frozen=True):
    """One round, in which everybody votes."""

    kind: Literal["consensus"] = "consensus"
    task: str
    agents: tuple[LlmAgent, ...]
    threshold: float

    @property
    def result(self) -> type[ConsensusResult]:
        return ConsensusResult

    def titles(self) -> list[str]:
        return ["consensus votes"]

    async def play(self, number: int, talk: Talk) -> ConsensusResult:
        names = unique_names(self.agents)
        answers = await self._answers(names, talk)
        votes = {name: _approval(answers.get(name)) for name in names}
        if all(vote is None for vote in votes.values()):
            raise AgentsFailed(self.kind, [f"{name}: {answer}" for name, answer in answers.items()])
        for name in names:  # in the order given, whoever was faster
            talk.say(number, name, answers.get(name, Failure("the outcome was fixed before it answered")))
        reasons = [f"{name}: {_reason(answers[name])}" for name in names if name in answers]
        return ConsensusResult(
            decision=decided(votes, len(answers), self.threshold) or "rejected",
            votes=votes,
            reasoning="\n".join(reasons),
            transcript=tuple(talk.entries),
            usage=talk.usage,
        )

    async def _answers(self, names: Sequence[str], talk: Talk) -> Mapping[str, Vote | Failure]:
        """Ask all at once, until the outcome is fixed."""
        prompt = f"Vote on this question. Answer whether you approve, and why.\n\n{self.task}"
        answers: dict[str, Vote | Failure] = {}

        async def one(name: str, voter: LlmAgent) -> None:
            offline = Vote(approve=True, reasoning=f"[offline] {name} has no objection.")
            answers[name] = await talk.ask(name, voter, prompt, Vote, offline)

        asked = [asyncio.ensure_future(one(name, voter)) for name, voter in zip(names, self.agents, strict=True)]
        pending = set(asked)
        try:
            while pending and self._open(names, answers):
                ready, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for each in ready:
                    each.result()
        finally:
            for each in asked:
                each.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        return answers

    def _open(self, names: Sequence[str], answers: Mapping[str, Vote | Failure]) -> bool:
        votes = {name: _approval(answers.get(name)) for name in names}
        nobody_voted = all(vote is None for vote in votes.values())
        return nobody_voted or decided(votes, len(answers), self.threshold) is None


def decided(votes: Mapping[str, bool | None], answered: int, threshold: float) -> Decision | None:
    """Return the decision once no vote that is missing can change it; None before. Pure."""
    approving = sum(vote is True for vote in votes.values())
    wanted = threshold * len(votes) - 1e-9
    if approving >= wanted:
        return "approved"
    return "rejected" if approving + len(votes) - answered < wanted else None


def _approval(answer: Vote | Failure | None) -> bool | None:
    return answer.approve if isinstance(answer, Vote) else None


def _reason(answer: Vote | Failure) -> str:
    return answer.reasoning if isinstance(answer, Vote) else f"failed: {answer}"


@PatternFunction
def consensus(
    task: str,
    agents: Sequence[LlmAgent],
    threshold: float = 0.5,
    *,
    timeout: Duration | None = None,
    max_cost: float | None = None,
) -> Consensus:
    """Let all agents vote: approved when at least the share ``threshold`` approves. One that fails does not.

    It ends as soon as no missing vote can change the outcome.
    """
    if not 0 < threshold <= 1:
        raise InvalidOption("threshold", threshold, "a share above 0 and up to 1")
    return Consensus(
        task=task,
        agents=tuple(agents),
        threshold=threshold,
        timeout_s=options.timeout(timeout),
        max_cost=max_cost,
    )
