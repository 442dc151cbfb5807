"""Joins: what the arrival of a predecessor means for the steps that wait. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Way(StrEnum):
    """How an edge ended."""

    LIVE = "live"
    """The predecessor completed and the edge's condition held."""
    DEAD = "dead"
    """The condition did not hold, or the predecessor was itself not taken."""
    BROKEN = "broken"
    """The predecessor failed, or was skipped because something before it failed."""


class Verdict(StrEnum):
    """What becomes of the steps behind a join."""

    WAIT = "wait"
    RELEASE = "release"
    SKIP = "skip"
    """No way into them was taken."""
    BREAK = "break"
    """Something before them failed."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What has arrived at a join so far."""

    remaining: int
    live: int
    broken: int
    any: bool = False


def verdict(arrivals: Arrivals) -> Verdict:
    """Say what becomes of the steps behind a join.

    A join of *all* waits until every predecessor has ended and then runs on the ways that were taken, unless something
    broke. A join of *any* runs on the first way taken.
    """
    if arrivals.any and arrivals.live:
        return Verdict.RELEASE
    if arrivals.remaining > 0:
        return Verdict.WAIT
    if arrivals.broken:
        return Verdict.BREAK
    return Verdict.RELEASE if arrivals.live else Verdict.SKIP


Edges = tuple[int, int | None, Sequence[Sequence[int]] | None]
"""A step's number, the join that it waits for, and the joins that it feeds (as ``StepRow.feeds``)."""


def predecessors(steps: Iterable[Edges]) -> dict[int, Sequence[int]]:
    """Return what each step waits for, by number; steps behind the same join share the list."""
    every = list(steps)
    parts: dict[int, list[int]] = {}
    for n, _waits_for, feeds in every:
        for join, *_about in feeds or ():
            parts.setdefault(join, []).append(n)
    return {n: parts.get(join, []) for n, join, _feeds in every if join is not None}
