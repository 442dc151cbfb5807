"""Debate: two agents argue in turns, and a third one judges."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestra.agents.agent import LlmAgent
from orchestra.agents.patterns.rounds import Pattern, PatternFunction
from orchestra.agents.patterns.talk import Failure, PatternResult, Talk
from orchestra.errors import AgentsFailed
from orchestra.model import options
from orchestra.model.options import Duration


class Verdict(BaseModel):
    """The structured answer of a judge."""

    model_config = ConfigDict(frozen=True)

    winner: Literal["pro", "con"] = Field(description="which side argued better")
    verdict: str = Field(description="why, in a few sentences")


class DebateResult(PatternResult):
    """Of ``debate``."""

    winner: Literal["pro", "con"]
    final_verdict: str


class Debate(Pattern[DebateResult], frozen=True):
    """Rounds in which both sides speak, then the verdict."""

    kind: Literal["debate"] = "debate"
    topic: str
    pro_agent: LlmAgent
    con_agent: LlmAgent
    judge: LlmAgent
    rounds: int

    @property
    def result(self) -> type[DebateResult]:
        return DebateResult

    def titles(self) -> list[str]:
        return [*(f"debate round {number}" for number in range(1, self.rounds + 1)), "debate verdict"]

    async def play(self, number: int, talk: Talk) -> DebateResult | None:
        if number > self.rounds:
            return await self._verdict(number, talk)
        for side, speaker in (("pro", self.pro_agent), ("con", self.con_agent)):
            if not talk.spent:
                about = f"Debate, round {number} of {self.rounds}. You argue {side}: {self.topic}"
                talk.say(number, side, await talk.ask(side, speaker, f"{about}\n\nSo far:\n{talk.shown()}"))
        return None

    async def _verdict(self, number: int, talk: Talk) -> DebateResult:
        spoke = {each.speaker for each in talk.entries if each.text}
        if not spoke:
            raise AgentsFailed("debate", talk.errors())
        offline = Verdict(winner="pro" if "pro" in spoke else "con", verdict="[offline] No model judged this debate.")
        prompt = f"Judge this debate on {self.topic!r}. Name the winner, pro or con, and say why.\n\n{talk.shown()}"
        verdict = await talk.ask("judge", self.judge, prompt, Verdict, offline)
        if isinstance(verdict, Failure):
            raise AgentsFailed("debate", [f"judge: {verdict}"])
        talk.say(number, "judge", verdict.verdict)
        return DebateResult(
            winner=verdict.winner, final_verdict=verdict.verdict, transcript=tuple(talk.entries), usage=talk.usage
        )


@PatternFunction
def debate(
    topic: str,
    pro_agent: LlmAgent,
    con_agent: LlmAgent,
    judge: LlmAgent,
    rounds: int = 3,
    *,
    timeout: Duration | None = None,
    max_cost: float | None = None,
) -> Debate:
    """Let two agents argue for so many rounds, and a third one name the winner."""
    return Debate(
        topic=topic,
        pro_agent=pro_agent,
        con_agent=con_agent,
        judge=judge,
        rounds=options.at_least_one("rounds", rounds),
        timeout_s=options.timeout(timeout),
        max_cost=max_cost,
    )
