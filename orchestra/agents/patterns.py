"""Patterns: what several agents do together. Each is one step whose calls are kept one by one.

A crash in the third round of a debate goes on in the third round. Votes, verdicts and delegations are structured
answers. A participant that fails or takes too long is said to have failed, and the others go on.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestra.agents.agent import LlmAgent
from orchestra.agents.usage import Usage
from orchestra.errors import AgentsFailed, InvalidOption, ModelBusy
from orchestra.model.function import task

APPROVED, REJECTED = "approved", "rejected"


class Entry(BaseModel):
    """One line of a transcript. ``error`` says why there is no text."""

    model_config = ConfigDict(frozen=True)

    round: int
    speaker: str
    text: str = ""
    error: str | None = None


class PatternResult(BaseModel):
    """What every pattern gives: the transcript in order, and what it took."""

    model_config = ConfigDict(frozen=True)

    transcript: tuple[Entry, ...]
    usage: Usage = Usage()


class Vote(BaseModel):
    """The structured answer of a voter."""

    model_config = ConfigDict(frozen=True)

    approve: bool = Field(description="whether you approve")
    reasoning: str = Field(description="why, in one or two sentences")


class ConsensusResult(PatternResult):
    """Of ``consensus``: ``votes`` by the voter's name, in order; None of one that failed."""

    decision: Literal["approved", "rejected"]
    votes: dict[str, bool | None]
    reasoning: str


class Verdict(BaseModel):
    """The structured answer of a judge."""

    model_config = ConfigDict(frozen=True)

    winner: Literal["pro", "con"] = Field(description="which side argued better")
    verdict: str = Field(description="why, in a few sentences")


class DebateResult(PatternResult):
    """Of ``debate``."""

    winner: Literal["pro", "con"]
    final_verdict: str


class ChainResult(PatternResult):
    """Of ``chain_of_thought``: ``reasoning_chain`` holds an answer for each step."""

    final_answer: str
    reasoning_chain: tuple[str, ...]


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


class _Talk:
    """A transcript in the making."""

    def __init__(self, timeout_s: float | None, max_cost: float | None) -> None:
        self._timeout_s, self._max_cost = timeout_s, max_cost
        self.entries: list[Entry] = []
        self.usage = Usage()

    @property
    def spent(self) -> bool:
        """Whether the budget is used up."""
        return self._max_cost is not None and self.usage.cost >= self._max_cost

    async def ask(self, speaker: LlmAgent, prompt: str, output_type: Any = None, offline: Any = None) -> Any:
        """Return an answer, or the exception that there is in its place. A model that asks to wait is none of these."""
        try:
            async with asyncio.timeout(self._timeout_s):
                answer, used = await speaker.ask(prompt, output_type, offline)
        except ModelBusy:
            raise  # the step is tried again, from here
        except TimeoutError:
            return TimeoutError(f"no answer within {self._timeout_s:g} s")
        except Exception as error:
            return error
        self.usage += used
        return answer

    def say(self, round_: int, speaker: str, answer: Any) -> str:
        """Put an answer on the transcript, and return its text."""
        if isinstance(answer, Exception):
            self.entries.append(Entry(round=round_, speaker=speaker, error=f"{type(answer).__name__}: {answer}"))
            return ""
        text = (
            answer
            if isinstance(answer, str)
            else answer.model_dump_json()
            if isinstance(answer, BaseModel)
            else str(answer)
        )
        self.entries.append(Entry(round=round_, speaker=speaker, text=text))
        return text

    def shown(self) -> str:
        """Return the transcript as prompts show it."""
        return (
            "\n\n".join(f"{each.speaker}: {each.text or f'(failed: {each.error})'}" for each in self.entries)
            or "(nothing yet)"
        )


@task(name="consensus")
async def consensus(
    task: str, agents: list[LlmAgent], threshold: float, timeout_s: float | None = None, max_cost: float | None = None
) -> ConsensusResult:
    """Ask all agents to vote at once, and decide by the share of all that approve."""
    talk = _Talk(timeout_s, max_cost)
    names = unique_names(agents)
    votes: dict[str, bool | None] = dict.fromkeys(names)
    reasons: dict[str, str] = {}
    prompt = f"Vote on this question. Answer whether you approve, and why.\n\n{task}"

    async def one(name: str, voter: LlmAgent) -> tuple[str, Any]:
        said = Vote(approve=True, reasoning=f"[offline] {name} has no objection.")
        return name, await talk.ask(voter.model_copy(update={"name": name}), prompt, Vote, said)

    pending = {asyncio.ensure_future(one(name, voter)) for name, voter in zip(names, agents, strict=True)}
    answers: dict[str, Any] = {}
    try:
        while pending and decided(votes, answers, threshold) is None:
            ready, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for each in ready:
                name, answer = each.result()
                answers[name] = answer
                votes[name] = answer.approve if isinstance(answer, Vote) else None
                reasons[name] = answer.reasoning if isinstance(answer, Vote) else f"failed: {answer}"
    finally:
        for each in pending:
            each.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    for name in names:  # in the order given, whoever was faster
        talk.say(1, name, answers.get(name, TimeoutError("the outcome was fixed before it answered")))
    decision = decided(votes, answers, threshold) or REJECTED
    reasoning = "\n".join(f"{name}: {reasons[name]}" for name in names if name in reasons)
    return ConsensusResult(
        decision=decision, votes=votes, reasoning=reasoning, transcript=tuple(talk.entries), usage=talk.usage
    )


def decided(votes: dict[str, bool | None], answers: dict[str, Any], threshold: float) -> Any:
    """Return the decision once no vote that is missing can change it; None before."""
    approving = sum(vote is True for vote in votes.values())
    missing = len(votes) - len(answers)
    wanted = threshold * len(votes) - 1e-9
    if approving >= wanted:
        return APPROVED
    return REJECTED if approving + missing < wanted else None


@task(name="debate")
async def debate(
    topic: str, pro_agent: LlmAgent, con_agent: LlmAgent, judge: LlmAgent, rounds: int,
    timeout_s: float | None = None, max_cost: float | None = None,
) -> DebateResult:  # fmt: skip
    """Let two agents argue in turns, and a third one judge."""
    talk = _Talk(timeout_s, max_cost)
    for round_ in range(1, rounds + 1):
        for side, speaker in (("pro", pro_agent), ("con", con_agent)):
            if talk.spent:
                break
            prompt = f"Debate, round {round_} of {rounds}. You argue {side}: {topic}\n\nSo far:\n{talk.shown()}"
            talk.say(round_, side, await talk.ask(speaker, prompt))
    failed = {side for side in ("pro", "con") if not any(each.text for each in talk.entries if each.speaker == side)}
    if len(failed) == 2:
        raise AgentsFailed("debate", [each.error or "" for each in talk.entries])
    said = Verdict(winner="con" if "pro" in failed else "pro", verdict="[offline] No model judged this debate.")
    prompt = f"Judge this debate on {topic!r}. Name the winner, pro or con, and say why.\n\n{talk.shown()}"
    verdict = await talk.ask(judge, prompt, Verdict, said)
    talk.say(rounds + 1, "judge", verdict if isinstance(verdict, Exception) else verdict.verdict)
    if isinstance(verdict, Exception):
        raise AgentsFailed("debate", [f"judge: {verdict}"])
    return DebateResult(
        winner=verdict.winner, final_verdict=verdict.verdict, transcript=tuple(talk.entries), usage=talk.usage
    )


@task(name="chain_of_thought")
async def chain_of_thought(
    problem: str, reasoner: LlmAgent, steps: list[str], timeout_s: float | None = None, max_cost: float | None = None
) -> ChainResult:
    """Let an agent think step by step, each on those before, and sum up."""
    talk = _Talk(timeout_s, max_cost)
    for number, step in enumerate([*steps, "State the final answer to the problem, on the ground of all this"], 1):
        if talk.spent:
            break
        answer = await talk.ask(reasoner, f"Problem: {problem}\n\nSo far:\n{talk.shown()}\n\nNow: {step}")
        talk.say(number, step, answer)
    texts = [each.text for each in talk.entries if each.text]
    if not texts:
        raise AgentsFailed("chain_of_thought", [each.error or "" for each in talk.entries])
    chain = tuple(each.text or f"(failed: {each.error})" for each in talk.entries[: len(steps)])
    return ChainResult(final_answer=texts[-1], reasoning_chain=chain, transcript=tuple(talk.entries), usage=talk.usage)


@task(name="supervisor")
async def supervisor(
    task: str, agents: list[LlmAgent], supervisor: LlmAgent, max_rounds: int,
    timeout_s: float | None = None, max_cost: float | None = None,
) -> SupervisorResult:  # fmt: skip
    """Let a supervisor decide who does what next, see the results, ask for rework, and end."""
    talk = _Talk(timeout_s, max_cost)
    team = dict(zip(unique_names(agents), agents, strict=True))
    about = "\n".join(f"- {name}: {each.instructions}" for name, each in team.items())
    output, names = "", list(team)
    for round_ in range(1, max_rounds + 1):
        last = talk.entries[-1].text if talk.entries else ""
        offline = (
            Delegation(done=False, agent=names[round_ - 1], text=task)
            if round_ <= len(names)
            else Delegation(done=True, text=last)
        )
        prompt = f"Task: {task}\n\nYour team:\n{about}\n\nSo far:\n{talk.shown()}\n\nWho does what next, or is it done?"
        decision = await talk.ask(supervisor, prompt, Delegation, offline)
        if isinstance(decision, Exception):
            talk.say(round_, "supervisor", decision)
            continue
        if decision.done:
            talk.say(round_, "supervisor", decision.text)
            return SupervisorResult(
                output=decision.text, rounds=round_, finished=True, transcript=tuple(talk.entries), usage=talk.usage
            )
        talk.say(round_, "supervisor", f"to {decision.agent}: {decision.text}")
        if decision.agent not in team:
            talk.say(
                round_, decision.agent or "nobody", LookupError(f"there is nobody of that name; there are {names}")
            )
            continue
        given = f"{decision.text}\n\nWhat others have done so far:\n{talk.shown()}"
        output = talk.say(round_, decision.agent, await talk.ask(team[decision.agent], given)) or output
        if talk.spent:
            break
    if not output:
        raise AgentsFailed("supervisor", [each.error for each in talk.entries if each.error])
    return SupervisorResult(
        output=output, rounds=max_rounds, finished=False, transcript=tuple(talk.entries), usage=talk.usage
    )


def unique_names(agents: Sequence[LlmAgent]) -> list[str]:
    """Return a name for each agent; the second of the same name is ``name-2``."""
    if not agents:
        raise InvalidOption("agents", agents, "at least one agent")
    names: list[str] = []
    for each in agents:
        name, count = each.name, 1
        while name in names:
            count += 1
            name = f"{each.name}-{count}"
        names.append(name)
    return names
