"""Tasks that wait: many slots in one process."""

from benchmarks.case import Case, Figure, Figures
from benchmarks.visit import Visit


def measure(visit: Visit, count: int) -> Figures:
    """Submit them all at once to workers that can hold them all."""
    took = visit.run("waits", count, 1.0, bodies=count)
    return {"seconds": took.seconds, "cpu_s": took.cpu_s, "memory_mb": took.memory_mb}


CASE = Case(
    name="waits",
    asks="{count} tasks that wait for a second, one worker process with 1,000 slots",
    sizes={"tiny": {"count": 20}, "quick": {"count": 1000}, "full": {"count": 1000}},
    measure=measure,
    figures=(Figure("seconds", "s"), Figure("cpu_s", "CPU s"), Figure("memory_mb", "MB")),
    needs="waits",
    workers="waits",
)
