"""The world: one clock that jumps, one agenda, one source of chance, and the processes that live in it."""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestra.testing.simulation.strand import Killed, Strand, Strands
from orchestra.testing.simulation.weather import Weather

START = 1_800_000_000.0
"""Wall-clock time at which every simulation begins."""
_GLANCE = 1e-5
"""What passing a point costs, so that no two things happen at the same time."""


class Violation(BaseException):
    """An invariant does not hold. Not an Exception: the code that is simulated must not catch it."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(rule, detail)
        self.rule, self.detail = rule, detail

    def __str__(self) -> str:
        return f"{self.rule}: {self.detail}"


@dataclass(eq=False)
class Process:
    """A process on a host: a worker, or a producer."""

    name: str
    host: str
    pid: int
    mortal: bool = True
    skew_s: float = 0.0
    alive: bool = True
    frozen_at: float = 0.0
    frozen_until: float = 0.0
    away_until: float = 0.0
    """Until when it cannot reach the store."""
    expires_at: float = 0.0
    """Until when its lease holds, in true time."""
    called_dead: bool = False
    """Whether another has deleted its lease since it last renewed it."""
    lapsed_at: float = -1e9
    """When it last renewed a lease that had run out."""
    refused_at: float = -1e9
    """When the store last did not answer it."""
    waited_at: float = -1e9
    """When an answer of the store came that took seconds."""
    told_at: float | None = None
    """When it was told to go."""
    may_begin: set[str] = field(default_factory=set[str])
    """What it has taken, as Celery ids."""
    goes_on_in: list[str] = field(default_factory=list[str])
    """The runs of which it is about to claim another step together with a record."""
    went: bool = False
    """Whether it ended by itself."""
    cut: bool = False
    """Whether it ended bodies when it went."""
    strands: list[Strand] = field(default_factory=list[Strand])


@dataclass(frozen=True)
class Waiting:
    """One waiting of a strand."""

    wait: Callable[[], None]
    wake: Callable[[], None]


class World:
    """Time, chance, and what happens next. All that is simulated goes through here.

    Args:
        rng: The one source of chance.
        weather: What goes wrong, and until when.
    """

    def __init__(self, rng: random.Random, weather: Weather, strands: Strands) -> None:
        self.rng, self.weather, self._strands = rng, weather, strands
        self.now = START
        self._trace: list[tuple[float, str, str | Callable[[], str]]] = []
        self.processes: list[Process] = []
        self.boots: dict[str, int] = {}
        self.deaths = 0
        """Of processes and of pool children. Even in calm weather a poisonous step has them."""
        self.on_death: Callable[[Process], None] = lambda _process: None
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self._owner: dict[Strand, Process] = {}
        self._naps: dict[Strand, Callable[[], None]] = {}
        self._torn: set[Strand] = set()

    # --- time ---------------------------------------------------------------------------------------------------

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self.now - START

    @property
    def stormy(self) -> bool:
        """Whether faults may still happen."""
        return self.elapsed < self.weather.until_s

    def at(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do something later."""
        self._sequence += 1
        heapq.heappush(self._agenda, (self.now + max(delay_s, 0.0), self._sequence, action))

    def advance(self) -> bool:
        """Jump to what happens next, and do it. False when nothing will ever happen again."""
        if not self._agenda:
            return False
        at, _tie, action = heapq.heappop(self._agenda)
        self.now = max(self.now, at)
        action()
        return True

    def note(self, who: str, what: str | Callable[[], str]) -> None:
        """Add a line to the story. Most stories are never read: a function is asked only when one is."""
        self._trace.append((self.elapsed, who, what))

    def story(self) -> list[str]:
        """Return what happened, a line each."""
        return [f"{at:9.4f}  {who:<8} {what if isinstance(what, str) else what()}" for at, who, what in self._trace]

    # --- processes ----------------------------------------------------------------------------------------------

    def process(self, name: str, host: str, *, mortal: bool = True) -> Process:
        """Start a process."""
        skew = self.rng.uniform(-1, 1) * self.weather.skew_s
        process = Process(name, host, pid=1000 + len(self.processes), mortal=mortal, skew_s=skew)
        self.processes.append(process)
        return process

    def lives(self, host: str, pid: int) -> bool:
        """Whether a process of that id lives on a host."""
        process = self.processes[pid - 1000]
        return process.alive and process.host == host

    def kill(self, process: Process, why: str) -> None:
        """End a process where it stands. Its strands are unwound when they would go on."""
        if process.alive:
            process.alive = False
            self.deaths += 1
            self.note(process.name, f"DIES: {why}")
            self.on_death(process)

    def leave(self, process: Process) -> None:
        """A process ends by itself, with all that it still runs."""
        process.alive, process.went = False, True
        self.note(process.name, "has gone")
        self.on_death(process)

    def freeze(self, process: Process, seconds: float) -> None:
        """Stop all of a process for a while (SIGSTOP, a long pause of its machine)."""
        self.note(process.name, f"FREEZES for {seconds:.1f} s")
        process.frozen_at, process.frozen_until = self.now, max(process.frozen_until, self.now + seconds)

    # --- strands ------------------------------------------------------------------------------------------------

    def spawn(self, process: Process, what: str, body: Callable[[], object], delay_s: float = 0.0) -> Strand:
        """Run code in a process."""
        strand = self._strands.new(f"{process.name}: {what}", body)
        process.strands.append(strand)
        self._owner[strand] = process
        self.at(delay_s, lambda: self._go_on(strand))
        return strand

    def _go_on(self, strand: Strand) -> None:
        process = self._owner[strand]
        if process.frozen_until > self.now:
            self.at(process.frozen_until - self.now + self.rng.random() * 0.01, lambda: self._go_on(strand))
            return
        if process.alive:
            strand.resume()
        else:
            strand.kill()
        if strand.ended:
            self._forget(strand)

    def _forget(self, strand: Strand) -> None:
        process = self._owner.pop(strand, None)
        if process is not None:
            process.strands.remove(strand)
        self._torn.discard(strand)

    def unwind(self) -> None:
        """End everything that is still on its way."""
        for process in self.processes:
            process.alive = False
        for strand in list(self._owner):
            strand.kill()
            self._forget(strand)

    def sleep(self, seconds: float) -> None:
        """Called by simulated code: wait."""
        strand = self.strand
        self.at(seconds, lambda: self._go_on(strand))
        strand.stop_here()

    def nap(self, seconds: float) -> None:
        """Called by simulated code: wait, unless it is torn out of that."""
        strand, woken = self.strand, False

        def wake() -> None:
            nonlocal woken
            if not woken:
                woken = True
                self._go_on(strand)

        self._naps[strand] = wake
        self.at(seconds, wake)
        try:
            strand.stop_here()
        finally:
            self._naps.pop(strand, None)
        self._end_if_torn()

    def tear(self, strand: Strand) -> None:
        """Have a strand end at once where it naps, or else at its next point: a child of its process is killed."""
        self._torn.add(strand)
        if strand in self._naps:
            self.at(0.0, self._naps[strand])

    def mend(self, strand: Strand) -> None:
        """It goes on as something else, which was not torn."""
        self._torn.discard(strand)

    def _end_if_torn(self) -> None:
        if self.strand in self._torn:
            self._torn.discard(self.strand)
            raise Killed(self.strand.name)

    def pause(self) -> "Waiting":
        """Called by simulated code: return what it will wait with until somebody wakes it."""
        strand = self.strand
        return Waiting(strand.stop_here, lambda: self.at(0.0, lambda: self._go_on(strand)))

    def here(self) -> Process:
        """Return the process whose code is running."""
        return self._owner[self.strand]

    @property
    def strand(self) -> Strand:
        """The strand that is running."""
        assert self._strands.current is not None, "nothing is running"
        return self._strands.current

    def point(self, where: str) -> None:
        """A point at which a process may die, freeze or be overtaken: before and after everything others can see."""
        process, weather = self.here(), self.weather
        self.now += _GLANCE
        if not process.alive:
            raise Killed(process.name)
        self._end_if_torn()
        if self.stormy and process.mortal:
            if weather.crash > 0 and weather.crashes > 0 and self.rng.random() < weather.crash:
                weather.crashes -= 1
                self.kill(process, where)
                raise Killed(process.name)
            if weather.freeze > 0 and weather.freezes > 0 and self.rng.random() < weather.freeze:
                weather.freezes -= 1
                self._freeze_some(process, where)
                self.sleep(0.0)
        if self.rng.random() < weather.overtaken:
            self.sleep(self.rng.choice((0.0, 0.0, 0.002, 0.05)))

    def _freeze_some(self, process: Process, where: str) -> None:
        """One process, or its whole machine."""
        seconds = self.rng.uniform(0.5, self.weather.freeze_s)
        self.note(process.name, f"is stopped {where}")
        with_it = [each for each in self.processes if each.host == process.host and each.alive]
        for each in with_it if self.rng.random() < 0.3 else [process]:
            self.freeze(each, seconds)
