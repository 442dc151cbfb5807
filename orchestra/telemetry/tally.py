"""Tally: what was measured, added up. Its size depends on how many labels there are, never on how much was measured."""

import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

from orchestra.runtime.observing import Measure, Sample

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_STORE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
BOUNDS: Mapping[Measure, Sequence[float]] = {
    Measure.STORE: _STORE_SECONDS,
    Measure.LAG: _SECONDS,
    Measure.ENDED: _SECONDS,
}
"""Where the buckets of a measure end, in seconds. Those that are not here are only added up."""
Labels = tuple[str, ...]
Cell = list[float]
"""The sum of the values, and how many fell into each bucket, of which the last has no end."""


class Tally:
    """Adds samples up, for each measure and its labels. Any thread."""

    def __init__(self) -> None:
        self._cells: dict[tuple[Measure, Labels], Cell] = {}
        self._lock = threading.Lock()

    def take(self, samples: Sequence[Sample]) -> None:
        """See ``Observe``."""
        with self._lock:
            for measure, value, labels in samples:
                bounds = BOUNDS.get(measure, ())
                cell = self._cells.get((measure, labels))
                if cell is None:
                    cell = self._cells[measure, labels] = [0.0] * (len(bounds) + 2)
                cell[0] += value
                cell[1 + bisect_left(bounds, value)] += 1

    def add(self, measure: Measure, labels: Labels, more: Cell) -> None:
        """Add what another tally has of a measure and its labels."""
        with self._lock:
            cell = self._cells.get((measure, labels))
            self._cells[measure, labels] = more if cell is None else [a + b for a, b in zip(cell, more, strict=True)]

    def of(self, measure: Measure) -> Iterator[tuple[Labels, Cell]]:
        """Return what there is of a measure."""
        with self._lock:
            found = [(labels, list(cell)) for (its, labels), cell in self._cells.items() if its is measure]
        return iter(found)

    def empty(self) -> list[tuple[Measure, Labels, Cell]]:
        """Return all that there is, and begin anew."""
        with self._lock:
            cells, self._cells = self._cells, {}
        return [(measure, labels, cell) for (measure, labels), cell in cells.items()]
