"""What recording costs: 20 scripted model requests with a tool call each, by pydantic-ai alone and as a durable agent.

    python benchmarks/agents.py

Both run as steps of an embedded orchestrator, in the same process, interleaved. A durable run makes
two checkpoints for each model request: its answer, and the tool call, which are two recorded calls.
"""

import statistics
import tempfile
import time
from pathlib import Path

from pydantic_ai import Agent

from orchestra import Orchestrator, agent
from orchestra.testing import Calls, ScriptedModel

CALLS, ROUNDS = 20, 15


async def same(number: int) -> int:
    """A tool."""
    return number


MODEL = ScriptedModel(*(Calls(("same", {"number": n})) for n in range(CALLS)), "end")


async def alone() -> float:
    """Return the seconds of pydantic-ai alone."""
    begun = time.perf_counter()
    await Agent(MODEL, instructions="Count", tools=[same]).run("go")
    return time.perf_counter() - begun


async def durable() -> float:
    """Return the seconds of the same agent, recorded."""
    begun = time.perf_counter()
    await agent("Count", model=MODEL, tools=[same]).run("go")
    return time.perf_counter() - begun


def main() -> None:
    """Print the medians and the difference for each recorded call, on each store."""
    with tempfile.TemporaryDirectory() as folder:
        for store in (None, Path(folder) / "state.db"):
            with Orchestrator(state_file=store) as orch:
                pairs = [(orch.submit(alone).wait().output, orch.submit(durable).wait().output) for _ in range(ROUNDS)]
            plain, kept = (statistics.median(each) for each in zip(*pairs, strict=True))
            cost = (kept - plain) / (2 * CALLS + 1)
            print(
                f"{'in memory' if store is None else 'SQLite file'}: alone {plain * 1e3:.1f} ms, durable"
                f" {kept * 1e3:.1f} ms: {cost * 1e3:.2f} ms for each call that is recorded"
            )


if __name__ == "__main__":
    main()
