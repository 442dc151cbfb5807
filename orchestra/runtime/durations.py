"""Durations: how long bodies have taken in this process, and how many steps a child therefore takes at a time."""

from collections import OrderedDict
from itertools import islice
from typing import Protocol

SHORT_S = 0.01
"""What calls a function may take at most, as measured, to be begun by a child by itself."""
TOGETHER_S = 0.005
"""What the steps that a child takes at a time may take together, as measured."""
MOST_IN_HAND = 16
"""How many those are at most."""
_MOST_KNOWN, _MOST_TOLD = 1000, 16
_WEIGHT = 0.2
"""Of the newest duration among those before."""


class Known(Protocol):
    """What is known of how long calls take."""

    def note(self, target: str, seconds: float) -> None:
        """One more call has ended."""
        ...

    def of(self, target: str) -> float | None:
        """Return what its calls take; None when it was not called lately."""
        ...

    def short(self) -> frozenset[str]:
        """Return what was called lately and is short."""
        ...


class Durations:
    """How long bodies have taken in this process, by what they call."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, float] = OrderedDict()

    def note(self, target: str, seconds: float) -> None:
        """One more call has ended."""
        known = self._known.pop(target, seconds)
        self._known[target] = known + _WEIGHT * (seconds - known)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)

    def of(self, target: str) -> float | None:
        """Return what its calls take; None when it was not called lately."""
        return self._known.get(target)

    def is_short(self, target: str) -> bool:
        """Whether calls have been short. Of what has not been called it is not known, so they are not."""
        return self._known.get(target, SHORT_S + 1) <= SHORT_S

    def short(self) -> frozenset[str]:
        """Return what was called lately and is short."""
        return frozenset(each for each in islice(reversed(self._known), _MOST_TOLD) if self.is_short(each))


class Reach:
    """How many steps a child takes at a time: twice as many each time that it went well, down to one when it did not.

    Never more than take ``TOGETHER_S`` by what is known.

    Args:
        late_s: After how long nothing waits for others any more.
    """

    def __init__(self, late_s: float, most: int = MOST_IN_HAND) -> None:
        self._late_s, self._most, self._now = late_s, most, 1

    def next(self, seconds: float | None) -> int:
        """Return how many to take now of steps that take so long each."""
        self._now = min(self._most, 2 * self._now)
        if seconds is None:
            return 1
        return max(1, min(self._now, int(TOGETHER_S / max(seconds, 1e-6))))

    def is_near(self, seconds: float) -> bool:
        """Whether what has waited for so long may wait for one more."""
        return seconds < self._late_s

    def was_too_far(self) -> None:
        """One took so long that others were given back."""
        self._now = 1
