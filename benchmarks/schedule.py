"""A simulated schedule: what a graph takes when a free slot takes the first ready task in file order."""

import heapq
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Job:
    """One recorded task: how long it took, and the positions of its predecessors."""

    name: str
    seconds: float
    after: tuple[int, ...]


def read(path: Path) -> list[Job]:
    """Return the jobs of a file, in its order."""
    tasks = json.loads(path.read_text())["tasks"]
    position = {task["id"]: at for at, task in enumerate(tasks)}
    return [
        Job(task["id"], task["seconds"], tuple(sorted({position[each] for each in task["after"]}))) for task in tasks
    ]


def longest_path(jobs: Sequence[Job]) -> float:
    """Return the seconds along the longest path."""
    end: dict[int, float] = {}

    def ends(at: int) -> float:
        stack = [at]
        while stack:
            top = stack[-1]
            missing = [each for each in jobs[top].after if each not in end]
            if missing:
                stack += missing
            else:
                end[top] = jobs[top].seconds + max((end[each] for each in jobs[top].after), default=0.0)
                stack.pop()
        return end[at]

    return max(ends(at) for at in range(len(jobs)))


def lower_bound(jobs: Sequence[Job], slots: int) -> float:
    """No schedule is shorter than the longest path, or than the work divided by the slots."""
    return max(longest_path(jobs), sum(job.seconds for job in jobs) / slots)


def greedy(jobs: Sequence[Job], slots: int) -> float:
    """Return the makespan of the greedy schedule in file order."""
    waiting = [len(job.after) for job in jobs]
    followers: list[list[int]] = [[] for _ in jobs]
    for at, job in enumerate(jobs):
        for before in job.after:
            followers[before].append(at)
    ready = [at for at, count in enumerate(waiting) if not count]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < slots:
            at = heapq.heappop(ready)
            heapq.heappush(running, (now + jobs[at].seconds, at))
        now, done = heapq.heappop(running)
        for follower in followers[done]:
            waiting[follower] -= 1
            if not waiting[follower]:
                heapq.heappush(ready, follower)
    return now
