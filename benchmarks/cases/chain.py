"""Chains: what one step after another costs, alone and beside others."""

from benchmarks.case import Case, Figure, Figures
from benchmarks.visit import Visit


def measure(visit: Visit, length: int, chains: int, each: int) -> Figures:
    """Run one long chain, then many short ones at once."""
    one = visit.run("chain", length, 1, bodies=length)
    many = visit.run("chain", each, chains, bodies=chains * each)
    return {"step_ms": one.seconds / length * 1e3, "many_s": many.seconds}


CASE = Case(
    name="chain",
    asks="one chain of {length} steps; then {chains} chains of {each} at once",
    sizes={
        "tiny": {"length": 10, "chains": 3, "each": 5},
        "quick": {"length": 100, "chains": 50, "each": 20},
        "full": {"length": 100, "chains": 50, "each": 20},
    },
    measure=measure,
    figures=(Figure("step_ms", "ms a step of the one chain"), Figure("many_s", "s for the many")),
    needs="chain",
)
