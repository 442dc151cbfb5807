"""The talk of several agents: who said what, what it took, and how one of them is asked."""

import asyncio
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from orchestra.agents.agent import LlmAgent
from orchestra.agents.journal import journal
from orchestra.errors import (
    InvalidOption,
    MissingExtra,
    ModelBusy,
    NoModelConfigured,
    StoreUnavailable,
    Superseded,
    UsageLimitReached,
)
from orchestra.model.usage import Usage

_NOT_THE_AGENTS = (ModelBusy, NoModelConfigured, MissingExtra, StoreUnavailable, Superseded, UsageLimitReached)
"""What ends the step, or lets it wait, rather than being said of an agent."""


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


class Said(BaseModel):
    """What a round hands to the next one."""

    model_config = ConfigDict(frozen=True)

    open: bool = True
    """Tells it from a result, in the conditions on the ways between rounds."""
    entries: tuple[Entry, ...] = ()
    usage: Usage = Usage()


class Failure(Exception):
    """In the place of an answer: why there is none."""


class Talk:
    """A transcript in the making, within one step.

    Args:
        said: What came before.
        timeout_s: How long each answer may take.
        max_cost: In US dollars; once so much was spent, ``spent`` says so.
    """

    def __init__(self, said: Said, timeout_s: float | None, max_cost: float | None) -> None:
        self._journal, self._timeout_s, self._max_cost = journal(), timeout_s, max_cost
        self._before, self._begun_at = said.usage, self._journal.spent
        self.entries = list(said.entries)

    @property
    def usage(self) -> Usage:
        """What everything took so far."""
        return self._before + (self._journal.spent - self._begun_at)

    @property
    def spent(self) -> bool:
        """Whether the budget is used up."""
        return self._max_cost is not None and self.usage.cost >= self._max_cost

    async def ask(self, name: str, agent: LlmAgent, prompt: str, output_type: Any = None, offline: Any = None) -> Any:
        """Return an answer, or the ``Failure`` that there is in its place.

        That an agent failed is recorded like an answer: a step that runs again does not ask it anew.
        """
        place = self._journal.place(name)
        failed = await self._journal.kept(f"{place}/failed")
        if failed is not None:
            return Failure(str(failed))
        try:
            async with asyncio.timeout(self._timeout_s):
                return await agent.ask(prompt, output_type, offline, place)
        except _NOT_THE_AGENTS:
            raise
        except TimeoutError:
            reason = "it did not answer in time" + ("" if self._timeout_s is None else f" ({self._timeout_s:g} s)")
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        await self._journal.keep(f"{place}/failed", reason)
        return Failure(reason)

    def say(self, round_: int, speaker: str, answer: Any) -> str:
        """Put an answer on the transcript, and return its text."""
        if isinstance(answer, Failure):
            self.entries.append(Entry(round=round_, speaker=speaker, error=str(answer)))
            return ""
        text = answer.model_dump_json() if isinstance(answer, BaseModel) else str(answer)
        self.entries.append(Entry(round=round_, speaker=speaker, text=text))
        return text

    def shown(self) -> str:
        """Return the transcript as prompts show it."""
        lines = [f"{each.speaker}: {each.text or f'(failed: {each.error})'}" for each in self.entries]
        return "\n\n".join(lines) or "(nothing yet)"

    def errors(self) -> list[str]:
        """Return why there were no answers."""
        return [f"{each.speaker}: {each.error}" for each in self.entries if each.error is not None]

    def said(self) -> Said:
        """Return what the next round is to know."""
        return Said(entries=tuple(self.entries), usage=self.usage)


def unique_names(agents: Sequence[LlmAgent], *taken: str) -> list[str]:
    """Return a name for each agent; the second of the same name is ``name-2``."""
    if not agents:
        raise InvalidOption("agents", agents, "at least one agent")
    names = list(taken)
    for each in agents:
        name, count = each.name, 1
        while name in names:
            count += 1
            name = f"{each.name}-{count}"
        names.append(name)
    return names[len(taken) :]
