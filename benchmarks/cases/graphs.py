"""Graphs as they are in production, with bodies that sleep, on sixteen slots."""

import statistics
import time
from dataclasses import replace

from benchmarks.case import Case, Figure, Figures
from benchmarks.schedule import critical, drawn, lower_bound, read
from benchmarks.visit import Visit

SLOTS = 16
SETTLED_S = 0.5
"""After the last body of the first run: until everything is recorded."""


def measure(visit: Visit, count: int, milliseconds: int) -> Figures:
    """Run each graph, scaled to a lower bound, and compare with that and with a schedule that knows everything.

    Each runs twice, and the second time counts: who learns from runs how long steps take has seen one.
    """
    graphs = drawn() if visit.graphs is None else [read(path) for path in sorted(visit.graphs.glob("*.json"))]
    bounds: list[float] = []
    schedules: list[float] = []
    for jobs in graphs[:count]:
        factor = milliseconds / 1e3 / lower_bound(jobs, SLOTS)
        scaled = [replace(job, seconds=job.seconds * factor) for job in jobs]
        steps = [[job.seconds, job.after] for job in scaled]
        visit.run("graph", steps, bodies=len(steps))
        time.sleep(SETTLED_S)
        took = visit.run("graph", steps, bodies=len(steps)).seconds
        bounds.append(took / lower_bound(scaled, SLOTS))
        schedules.append(took / critical(scaled, SLOTS))
    return {
        "schedule": statistics.median(schedules),
        "bound": statistics.median(bounds),
        "worst": max(schedules),
    }


CASE = Case(
    name="graphs",
    asks="{count} graphs of 22 to 399 steps at a lower bound of {milliseconds} ms, on 16 slots",
    sizes={
        "tiny": {"count": 1, "milliseconds": 300},
        "quick": {"count": 3, "milliseconds": 2000},
        "full": {"count": 10, "milliseconds": 5000},
    },
    measure=measure,
    figures=(
        Figure("schedule", "makespan ÷ critical-path schedule, median"),
        Figure("bound", "÷ lower bound, median"),
        Figure("worst", "÷ schedule, worst graph"),
    ),
    needs="graph",
    workers="slots",
)
