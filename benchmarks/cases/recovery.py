"""Recovery: when a task of a killed worker runs elsewhere, and what a flushed broker costs."""

import time

from benchmarks.case import Case, Figure, Figures
from benchmarks.visit import Failed, Visit

SLOW_S, SHORT_S = 2.0, 0.05


def measure(visit: Visit, limit: int, count: int) -> Figures:
    """Flush the broker under some tasks; then kill all workers in the middle of one task and start others at once."""
    found: Figures = {}
    if "redis" in visit.contestant.servers and visit.offers("waits"):
        visit.ask("submit", "waits", count, SHORT_S)
        visit.ask("ticks", 1, 30.0)
        visit.servers.flush_broker()
        found["lost"] = count - _ran(visit, count, limit)
    visit.ask("submit", "slow", SLOW_S)
    visit.ask("ticks", 1, 30.0)
    killed = time.monotonic_ns()
    visit.kill_workers()
    visit.start_workers("processes")
    if _ran(visit, 2, limit) == 2:
        found["claimed_s"] = (visit.ask("ticks", 2, 1.0)[1] - killed) / 1e9
    if not found:
        raise Failed(f"the task did not start again within {limit} s")
    return found


def _ran(visit: Visit, count: int, limit: int) -> int:
    """Return how many bodies ran within the limit, at most so many."""
    try:
        visit.ask("ticks", count, float(limit))
        return count
    except Failed:
        return min(visit.ask("seen"), count)


CASE = Case(
    name="recovery",
    asks="kill -9 of all workers in a task and others started at once: seconds until it starts again, at most {limit};"
    " {count} tasks of 50 ms under which the Redis broker is flushed: how many never ran",
    sizes={
        "tiny": {"limit": 12, "count": 100},
        "quick": {"limit": 12, "count": 200},
        "full": {"limit": 60, "count": 200},
    },
    measure=measure,
    figures=(Figure("claimed_s", "s until claimed again"), Figure("lost", "tasks lost by the flush")),
    needs="slow",
)
