"""Agents and tools for tests; workers import this module."""

import time

from orchestra import agent
from orchestra.agents.patterns import Verdict
from orchestra.testing import Calls, ScriptedModel
from tests.bodies import note

TOOL_CALLS = 10


def slow_note(what: str) -> None:
    """Note, and take long enough for a killer to hit."""
    note(what)
    time.sleep(0.03)


async def add_up(number: int) -> int:
    """A tool."""
    slow_note(f"tool {number}")
    return number * number


MODEL = ScriptedModel(
    *(Calls(("add_up", {"number": n})) for n in range(TOOL_CALLS)),
    "all added up",
    cost="0.01",
    asked=lambda number: slow_note(f"model {number}"),
)
ADDER = agent("You add up", model="script:tests.agents:MODEL", tools=[add_up])
SPEAKER = ScriptedModel("I have a point.", cost="0.01", asked=lambda _number: slow_note("speech"))
JUDGE = ScriptedModel(Verdict(winner="con", verdict="con was calmer"), asked=lambda _number: slow_note("verdict"))
