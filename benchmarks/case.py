"""What a case is: what it asks, how large, and what its figures mean."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.visit import Visit

Figures = dict[str, float]
SIZES = ("tiny", "quick", "full")


@dataclass(frozen=True, slots=True)
class Figure:
    """One column of a case's table; the first of a case is charted and compared.

    Attributes:
        key: What the case's measure calls it.
        title: What it is, with its unit.
        more: Whether more is better.
    """

    key: str
    title: str
    more: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """One question to all contestants.

    Attributes:
        name: What it is called on the command line.
        asks: The question, in one sentence, with ``{…}`` for the parameters of its size.
        sizes: The parameters of each size, given to measure by name.
        measure: Asks one contestant.
        figures: What the samples hold.
        needs: The function that a peer's script must have.
        workers: The kind of workers that it wants; None where it starts them itself.
    """

    name: str
    asks: str
    sizes: Mapping[str, Mapping[str, int]]
    measure: Callable[..., Figures]
    figures: tuple[Figure, ...]
    needs: str
    workers: str | None = "processes"

    def sample(self, visit: Visit, size: str) -> Figures:
        """Measure one contestant once."""
        return self.measure(visit, **self.sizes[size])
