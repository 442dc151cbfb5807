"""Chain of thought: an agent thinks step by step, each on those before, and sums up."""

from collections.abc import Sequence
from typing import Literal

from orchestra.agents.agent import LlmAgent
from orchestra.agents.patterns.rounds import Pattern, PatternFunction
from orchestra.agents.patterns.talk import PatternResult, Talk
from orchestra.errors import AgentsFailed
from orchestra.model import options
from orchestra.model.options import Duration

_CONCLUSION = "State the final answer to the problem, on the ground of all this"


class ChainResult(PatternResult):
    """Of ``chain_of_thought``: ``reasoning_chain`` holds an answer for each step."""

    final_answer: str
    reasoning_chain: tuple[str, ...]


class ChainOfThought(Pattern[ChainResult], frozen=True):
    """A round for each step, then one for the final answer."""

    kind: Literal["chain_of_thought"] = "chain_of_thought"
    problem: str
    reasoner: LlmAgent
    steps: tuple[str, ...]

    @property
    def result(self) -> type[ChainResult]:
        return ChainResult

    def titles(self) -> list[str]:
        return [*(f"thought {number}" for number in range(1, len(self.steps) + 1)), "final answer"]

    async def play(self, number: int, talk: Talk) -> ChainResult | None:
        last = number > len(self.steps)
        if not talk.spent:
            now = _CONCLUSION if last else self.steps[number - 1]
            prompt = f"Problem: {self.problem}\n\nSo far:\n{talk.shown()}\n\nNow: {now}"
            talk.say(number, self.reasoner.name, await talk.ask(self.reasoner.name, self.reasoner, prompt))
        return self._answer(talk) if last else None

    def _answer(self, talk: Talk) -> ChainResult:
        texts = [each.text for each in talk.entries if each.text]
        if not texts:
            raise AgentsFailed(self.kind, talk.errors())
        thoughts = [each for each in talk.entries if each.round <= len(self.steps)]
        return ChainResult(
            final_answer=texts[-1],
            reasoning_chain=tuple(each.text or f"(failed: {each.error})" for each in thoughts),
            transcript=tuple(talk.entries),
            usage=talk.usage,
        )


@PatternFunction
def chain_of_thought(
    problem: str,
    reasoner: LlmAgent,
    steps: Sequence[str],
    *,
    timeout: Duration | None = None,
    max_cost: float | None = None,
) -> ChainOfThought:
    """Let an agent think in the given steps, each on those before, and give a final answer."""
    return ChainOfThought(
        problem=problem, reasoner=reasoner, steps=tuple(steps), timeout_s=options.timeout(timeout), max_cost=max_cost
    )
