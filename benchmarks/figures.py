"""What is made of samples: medians with their spread, ratios within a round, percentiles, drift. Pure."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some samples, and the smallest and largest of them."""

    median: float
    low: float
    high: float
    count: int


def spread(samples: Iterable[float]) -> Spread:
    """Return the median and the spread.

    Raises:
        ValueError: There are no samples.
    """
    ordered = sorted(samples)
    if not ordered:
        raise ValueError("no samples")
    return Spread(statistics.median(ordered), ordered[0], ordered[-1], len(ordered))


def ratios(samples: Mapping[int, float], base: Mapping[int, float]) -> list[float]:
    """Return sample ÷ base of each round that has both.

    Neighbours in time have the same machine, so this bears a machine that changes its speed from round to round, which
    a ratio of medians does not.
    """
    return [samples[each] / base[each] for each in sorted(samples.keys() & base.keys()) if base[each]]


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the smallest sample that at least this share (0 to 1) of all samples does not exceed.

    Raises:
        ValueError: There are no samples.
    """
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def drift(loops: Sequence[float]) -> float:
    """Return how much slower the slowest calibration loop was than the fastest: 1.0 is a steady machine."""
    return max(loops) / min(loops)


def shown(value: float) -> str:
    """Return a number with three digits that mean something: 5,123 and 0.0123."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"
