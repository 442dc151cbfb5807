"""Learning: what the steps of workflows have taken, read from the store now and then."""

from collections.abc import Callable, Iterable, Mapping
from statistics import fmean

READ_EVERY_S = 30.0
"""How old it may be: submitting many runs of a workflow reads once."""
ASK_AGAIN_S = 1.0
"""The same where nothing is known: the first run may end at any moment."""
_MOST_KNOWN = 64
"""How many workflows are known at a time."""
_NEVER: tuple[float, Mapping[str, float]] = float("-inf"), {}


class Learning:
    """What one process knows of how long steps take, by the name of their workflow; shared by its threads.

    Args:
        read: ``Store.durations``.
        monotonic: Returns seconds.
    """

    def __init__(self, read: Callable[[str], Mapping[str, float]], monotonic: Callable[[], float]) -> None:
        self._read, self._monotonic = read, monotonic
        self._known: dict[str, tuple[float, Mapping[str, float]]] = {}  # no lock: it would not survive a fork

    def __call__(self, name: str) -> Mapping[str, float]:
        """Return seconds by the names of steps; empty where no run of the workflow is known to have completed.

        Raises:
            StoreUnavailable: It was due to be read, and the store does not answer.
        """
        now = self._monotonic()
        read_at, known = self._known.get(name, _NEVER)
        if now - read_at < (READ_EVERY_S if known else ASK_AGAIN_S):
            return known
        if name not in self._known and len(self._known) >= _MOST_KNOWN:
            self._known = {}
        self._known[name] = now, known  # first, so that other threads go on with what is known meanwhile
        known = self._read(name)
        self._known[name] = now, known
        return known


def took(ended: Iterable[tuple[str, float | None, float | None]]) -> dict[str, float]:
    """Return the seconds from the start to the end of steps, by name; an average where several have the same."""
    found: dict[str, list[float]] = {}
    for name, started_at, ended_at in ended:
        if started_at is not None and ended_at is not None:  # what a fork kept was not run
            found.setdefault(name, []).append(max(0.0, ended_at - started_at))
    return {name: fmean(seconds) for name, seconds in found.items()}


def knows_nothing(_name: str) -> Mapping[str, float]:
    """Stands for it where nothing is learned."""
    return {}
