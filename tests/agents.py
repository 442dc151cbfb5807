"""Agents and tools for tests; workers import this module."""

import os
import time
from pathlib import Path
from typing import Any

import pydantic_ai

from orchestra import agent, current, task, workflow
from orchestra.agents.base import Agent, AgentConfig
from orchestra.agents.durable import Durable
from orchestra.agents.patterns.debate import Verdict
from orchestra.testing import Calls, ScriptedModel
from tests.bodies import HOLD_AT, TRACE, hold, lines_of, note

TOOL_CALLS = 10


def slow_note(what: str) -> None:
    """Note, and take long enough for a killer to hit: for ever, where so many notes were ordered and made."""
    note(what)
    time.sleep(0.03)
    while HOLD_AT in os.environ and len(lines_of(Path(os.environ[TRACE]))) >= int(os.environ[HOLD_AT]):
        time.sleep(0.01)


async def add_up(number: int) -> int:
    """A tool."""
    slow_note(f"tool {number}")
    return number * number


def count() -> int:
    """Count."""
    return 1


@task
def tell() -> str:
    """Say something, word by word; end when the test has heard it, since nothing waits for what is on its way."""
    words = ("one ", "two ", "three ", "four ")
    for each in words:
        current().say(each)
    hold("told")
    return "".join(words)


@task
def shout(scored: dict[str, Any]) -> str:
    return str(scored["output"]["of"]).upper()


@task
def whisper(scored: dict[str, Any]) -> str:
    return f"({scored['output']['of']})"


class Greeter(Agent):
    """Greets."""

    class Config(AgentConfig):
        greeting: str = "Hello"

    def exec(self, prepared: Any) -> Any:
        return f"{self.config.greeting}, {prepared}"


@workflow
def told() -> Any:
    return tell()


MODEL = ScriptedModel(
    *(Calls(("add_up", {"number": n})) for n in range(TOOL_CALLS)),
    "all added up",
    cost="0.01",
    asked=lambda number: slow_note(f"model {number}"),
)
SELLER = ScriptedModel(Calls(("price", {"item": "pen"})), "the price is known")
ADDER = agent("You add up", model="script:tests.agents:MODEL", tools=[add_up])
SPEAKER = ScriptedModel("I have a point.", cost="0.01", asked=lambda _number: slow_note("speech"))
JUDGE = ScriptedModel(Verdict(winner="con", verdict="con was calmer"), asked=lambda _number: slow_note("verdict"))
PLAIN = pydantic_ai.Agent(MODEL, name="plain", tools=[add_up], capabilities=[Durable()])


@task
async def ask_plain(goal: str) -> str:
    """An ordinary task, with an agent of pydantic-ai in it."""
    return (await PLAIN.run(goal)).output
