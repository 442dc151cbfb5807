"""The quarantine of a simulated worker: what ``orchestra.runtime.quarantine`` does with the kernel's locks."""

from orchestra.runtime.quarantine import SUSPECT_FROM
from orchestra.testing.simulation.strand import Strand
from orchestra.testing.simulation.world import World

_LOOK_S = 0.02


class Room:
    """Bodies of one worker: many ordinary ones, or one suspect. A suspect that waits closes the gate."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._inside: dict[int, tuple[Strand, bool]] = {}
        self._gate: Strand | None = None
        self._places = 0

    def enter(self, _worker: str, crashes: int) -> int:
        """Wait until the body may run."""
        alone, me = crashes >= SUSPECT_FROM, self._world.strand
        while self._gate is not None:
            self._world.sleep(_LOOK_S)
        if alone:
            self._gate = me
        while self._inside if alone else any(suspect for _strand, suspect in self._inside.values()):
            self._world.sleep(_LOOK_S)
        if alone:
            self._gate = None
        self._places += 1
        self._inside[self._places] = (me, alone)
        return self._places

    def is_wanted(self) -> bool:
        """Whether a suspect runs, or waits for the bodies that run."""
        return self._gate is not None or any(suspect for _strand, suspect in self._inside.values())

    def leave(self, place: int) -> None:
        """The body is over."""
        self._inside.pop(place, None)

    def ended(self, strand: Strand) -> None:
        """A child is gone, and the kernel gives its locks back."""
        self._inside = {place: each for place, each in self._inside.items() if each[0] is not strand}
