"""Graphs of jobs, recorded or drawn, and what they take at least and when scheduled by one who knows everything."""

import heapq
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path

# Width of each layer, and a median of seconds, of ten kinds of scientific workflows: fork and join, lanes side by side,
# funnels, long tails.
SHAPES: dict[str, Sequence[tuple[int, float]]] = {
    "genome": ((110, 60), (10, 40), (140, 60)),
    "search": ((1, 1), (300, 100), (2, 1)),
    "binding": ((18, 2), (7, 20), (24, 5), (6, 60), (24, 2), (22, 10), (38, 2), (13, 40), (7, 120)),
    "crops": ((96, 40), (192, 50), (102, 40), (9, 5)),
    "lanes": ((2, 40), (28, 10), (28, 20), (28, 10), (28, 80), (2, 20), (1, 40), (1, 60), (1, 10)),
    "mosaic": ((48, 1), (198, 0.2), (3, 8), (48, 0.2), (3, 4), (4, 15)),
    "expression": ((15, 2), (6, 120), (11, 5), (12, 20), (86, 2), (35, 30), (11, 3)),
    "quakes": ((200, 0.5), (1, 4)),
    "soy": ((10, 140), (10, 300), (10, 80), (10, 600), (10, 100), (100, 60), (11, 200), (1, 900), (2, 30)),
    "archive": ((11, 100), (10, 2000), (1, 5)),
}


@dataclass(frozen=True, slots=True)
class Job:
    """One task: how long it takes, and the positions of its predecessors, which all come before it."""

    name: str
    seconds: float
    after: tuple[int, ...]


def read(path: Path) -> list[Job]:
    """Return the jobs of a file ``{"tasks": [{"id", "seconds", "after"}]}``, in an order that they could run in."""
    tasks = {task["id"]: task for task in json.loads(path.read_text())["tasks"]}
    order = list(TopologicalSorter({name: task["after"] for name, task in tasks.items()}).static_order())
    position = {name: at for at, name in enumerate(order)}
    return [
        Job(name, tasks[name]["seconds"], tuple(sorted({position[each] for each in tasks[name]["after"]})))
        for name in order
    ]


def drawn(seed: int = 0) -> list[list[Job]]:
    """Return a graph of each shape; the same for the same seed."""
    return [draw(shape, random.Random(f"{seed}-{name}")) for name, shape in SHAPES.items()]


def draw(shape: Sequence[tuple[int, float]], dice: random.Random) -> list[Job]:
    """Return a graph whose layers split evenly, go on in lanes, or come together evenly."""
    layers: list[list[int]] = []
    jobs: list[Job] = []
    for width, _ in shape:
        begin = sum(map(len, layers))
        layers.append(list(range(begin, begin + width)))
    after: dict[int, set[int]] = {}
    for before, layer in pairwise(layers):
        for at in range(max(len(before), len(layer))):
            after.setdefault(layer[at * len(layer) // max(len(before), len(layer))], set()).add(
                before[at * len(before) // max(len(before), len(layer))]
            )
    for (_, median), layer in zip(shape, layers, strict=True):
        for at in layer:
            jobs.append(Job(f"t{at}", median * dice.lognormvariate(0, 0.5), tuple(sorted(after.get(at, ())))))
    return jobs


def remaining(jobs: Sequence[Job]) -> list[float]:
    """Return for each job the seconds along the longest path from its begin to the end."""
    found = [job.seconds for job in jobs]
    for at in range(len(jobs) - 1, -1, -1):
        for before in jobs[at].after:
            found[before] = max(found[before], jobs[before].seconds + found[at])
    return found


def lower_bound(jobs: Sequence[Job], slots: int) -> float:
    """No schedule is shorter than the longest path, or than the work divided by the slots."""
    return max(*remaining(jobs), sum(job.seconds for job in jobs) / slots)


def critical(jobs: Sequence[Job], slots: int) -> float:
    """Return the makespan when a free slot takes the ready job with the longest remaining path, at no cost."""
    urgency = remaining(jobs)
    waiting = [len(job.after) for job in jobs]
    followers: list[list[int]] = [[] for _ in jobs]
    for at, job in enumerate(jobs):
        for before in job.after:
            followers[before].append(at)
    ready = [(-urgency[at], at) for at, count in enumerate(waiting) if not count]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < slots:
            _, at = heapq.heappop(ready)
            heapq.heappush(running, (now + jobs[at].seconds, at))
        now, done = heapq.heappop(running)
        for follower in followers[done]:
            waiting[follower] -= 1
            if not waiting[follower]:
                heapq.heappush(ready, (-urgency[follower], follower))
    return now
