"""Layers in which every step waits for all of the layer before."""

from benchmarks.case import Case, Figure, Figures
from benchmarks.visit import Visit


def measure(visit: Visit, depth: int, width: int) -> Figures:
    """Run them once."""
    took = visit.run("layers", depth, width, bodies=depth * width)
    return {"ms": took.seconds * 1e3, "redis_kb": took.bytes_in / 1e3, "commands": took.commands / (depth * width)}


CASE = Case(
    name="layers",
    asks="{depth} layers of {width} steps, fully connected",
    sizes={"tiny": {"depth": 2, "width": 3}, "quick": {"depth": 10, "width": 20}, "full": {"depth": 10, "width": 20}},
    measure=measure,
    figures=(
        Figure("ms", "ms"),
        Figure("redis_kb", "kB received by Redis, as broker and as store"),
        Figure("commands", "Redis commands a step"),
    ),
    needs="layers",
)
