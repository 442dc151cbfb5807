"""Throughput: how many tasks that do nothing go through two worker processes."""

from benchmarks.case import Case, Figure, Figures
from benchmarks.visit import Visit


def measure(visit: Visit, count: int) -> Figures:
    """Submit them one by one, while workers are up."""
    took = visit.run("noop", count, bodies=count)
    thousands = count / 1000
    return {
        "rate": count / took.seconds,
        "submit_rate": count / took.submit_s,
        "cpu_s": took.cpu_s / thousands,
        "server_cpu_s": took.server_cpu_s / thousands,
        "memory_mb": took.memory_mb,
    }


CASE = Case(
    name="noop",
    asks="{count} tasks that do nothing, submitted one by one",
    sizes={"tiny": {"count": 50}, "quick": {"count": 2000}, "full": {"count": 5000}},
    measure=measure,
    figures=(
        Figure("rate", "tasks/s, first submit to last body", more=True),
        Figure("submit_rate", "submits/s", more=True),
        Figure("cpu_s", "CPU s per 1,000, producer and workers"),
        Figure("server_cpu_s", "CPU s per 1,000, servers"),
        Figure("memory_mb", "MB of workers"),
    ),
    needs="noop",
)
