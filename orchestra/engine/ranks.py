"""Ranks: how far steps are from the end of their run, by what they took before, else by their number.

Ranks order what waits, of all runs: so they are not seconds, which are known of some runs only, but say how many steps
of average length the longest path from a step has. Of a run of which nothing is known that is the number of its steps.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Protocol

UNIT = 1000
"""Rank of one step of average length: ranks are whole numbers."""
BESIDE_S = 0.005
"""What a step takes beside its body, about: so that bodies that take next to nothing count by their number."""


class Joining(Protocol):
    """What is looked at of a join."""

    @property
    def bodies(self) -> Sequence[int]:
        """The steps that wait for it."""
        ...


def weights(
    names: Sequence[str], targets: Sequence[str], durations: Mapping[str, float] | None = None
) -> Sequence[int] | None:
    """Return how long each step takes, in parts of the average of all; None where nothing is known.

    Args:
        durations: Seconds by name. What has none takes as long as others that call the same; if these have none, as
            long as all others.
    """
    known = [(durations or {}).get(name) for name in names]
    by_target: dict[str, list[float]] = {}
    for target, seconds in zip(targets, known, strict=True):
        if seconds is not None:
            by_target.setdefault(target, []).append(seconds)
    if not by_target:
        return None
    usual = {target: fmean(each) for target, each in by_target.items()}
    rest = fmean(each for each in known if each is not None)
    whole = [
        (usual.get(target, rest) if seconds is None else seconds) + BESIDE_S
        for target, seconds in zip(targets, known, strict=True)
    ]
    average = fmean(whole)
    return [max(1, round(UNIT * each / average)) for each in whole]


def ranks(
    joins: Sequence[Joining], feeds: Sequence[Sequence[int]], weights: Sequence[int] | None = None
) -> Sequence[int]:
    """Return how long the longest path from each step is, itself included, in parts of a step of average length.

    Args:
        feeds: The joins that each step is a part of; steps are in an order that they could run in.
        weights: What each step counts; ``UNIT`` for all where nothing is known.
    """
    rank = list(weights) if weights is not None else [UNIT] * len(feeds)
    behind: dict[int, int] = {}  # per join, so that a layer of 200 × 200 edges costs 200 steps
    for n in reversed(range(len(feeds))):
        for j in feeds[n]:
            if j not in behind:
                behind[j] = max(rank[body] for body in joins[j].bodies)
        rank[n] += max((behind[j] for j in feeds[n]), default=0)
    return rank
