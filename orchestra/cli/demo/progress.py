"""Live progress of a run: what is polled, and how it is shown on a terminal and in a pipe."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestra.model.status import TaskStatus

ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "SKIPPED"})
INTERVAL_S = 0.1

_PHASES = {
    "list_modules": "listing the modules",
    "measure_module": "measuring",
    "rank": "joining",
    "import_graph": "joining",
    "write_report": "writing the report",
}
_PART = re.compile(r"^(?P<step>.*)\[(?P<index>\d+)\]$")
_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Running:
    """One step that a worker holds now. `step` is the task's name, `name` what to show for it."""

    step: str
    name: str
    worker: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a run looks like at one moment; all that progress needs to know."""

    status: str
    counts: Mapping[str, int]
    running: Sequence[Running]
    elapsed_s: float

    @property
    def total(self) -> int:
        """How many steps are known; it grows when the fan-out unfolds."""
        return sum(self.counts.values())

    @property
    def done(self) -> int:
        """How many steps have ended, whatever the end."""
        return sum(count for status, count in self.counts.items() if status in ENDED)

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self.status in ENDED

    @property
    def phase(self) -> str | None:
        """What the running steps are about; None when none runs at this moment."""
        return next((_PHASES.get(each.step, each.step) for each in self.running), None)


Source = Callable[[], Snapshot]


class StepLike(Protocol):
    """What progress reads of a step. `orchestra.Task` has it."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def worker(self) -> str | None: ...
    @property
    def output(self) -> object: ...


class RunLike(Protocol):
    """What progress reads of a run. `orchestra.WorkflowRun` has it."""

    @property
    def status(self) -> str: ...


class EngineLike(Protocol):
    """What progress asks of the orchestrator; all three are cheap enough to be polled."""

    def get_run(self, run_id: str, /) -> RunLike: ...
    def counts(self, run_id: str, /) -> Mapping[TaskStatus, int]: ...
    def running(self, run_id: str, /) -> Sequence[StepLike]: ...


def source_of(engine: EngineLike, run_id: str, clock: Callable[[], float], modules: Sequence[str] = ()) -> Source:
    """Return a source that polls the orchestrator. `modules` names the parts of the fan-out, in order."""
    begin = clock()

    def snapshot() -> Snapshot:
        # The status first: when it says ended, the counts read after it are final.
        status = str(engine.get_run(run_id).status)
        held = [Running(step_of(each), label(each, modules), each.worker or "") for each in engine.running(run_id)]
        counts = {str(key): count for key, count in engine.counts(run_id).items()}
        return Snapshot(status, counts, held, clock() - begin)

    return snapshot


def step_of(task: StepLike) -> str:
    """Return the name of the task without the position in its fan-out."""
    match = _PART.match(task.name)
    return match["step"] if match else task.name


def label(task: StepLike, modules: Sequence[str]) -> str:
    """Name a step for people: a part of the fan-out by its module."""
    match = _PART.match(task.name) or _PART.match(task.id)
    index = int(match["index"]) if match else len(modules)
    return modules[index] if index < len(modules) else task.name


@dataclass(slots=True)
class Pace:
    """The rate over the last seconds, and the phase while nothing runs between two steps."""

    phase: str = "waiting for a worker"
    _seen: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])
    _window_s: float = 3.0

    def take(self, snapshot: Snapshot) -> float:
        """Take in a snapshot; return steps per second."""
        self.phase = snapshot.phase or self.phase
        self._seen.append((snapshot.elapsed_s, snapshot.done))
        while len(self._seen) > 2 and self._seen[-1][0] - self._seen[0][0] > self._window_s:
            self._seen.popleft()
        (first_s, first), (last_s, last) = self._seen[0], self._seen[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else 0.0


class Display(Protocol):
    """Shows snapshots while it is entered."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def show(self, snapshot: Snapshot) -> None: ...
    def say(self, text: str) -> None: ...


class PlainDisplay:
    """One line a second at most, and one whenever the phase changes: for pipes and logs."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._pace = Pace()
        self._last: tuple[str, float] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, snapshot: Snapshot) -> None:
        rate, last = self._pace.take(snapshot), self._last
        if last and last[0] == self._pace.phase and snapshot.elapsed_s - last[1] < 1 and not snapshot.ended:
            return
        self._last = (self._pace.phase, snapshot.elapsed_s)
        phase = snapshot.status.lower() if snapshot.ended else self._pace.phase
        line = f"[{snapshot.elapsed_s:6.1f} s] {phase}: {snapshot.done} of {snapshot.total} steps, {rate:.0f}/s"
        held = ", ".join(f"{each.name} on {each.worker}" for each in snapshot.running[:2])
        self._write(f"{line}, running {held}" if held else line)

    def say(self, text: str) -> None:
        self._write(text)


class LiveDisplay:
    """A bar, the rate, and what runs where, redrawn in place: for terminals."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, transient=True, refresh_per_second=12)
        self._pace = Pace()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        rate = self._pace.take(snapshot)
        self._live.update(panel(snapshot, self._pace.phase, rate))

    def say(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False)


def panel(snapshot: Snapshot, phase: str, rate: float) -> RenderableType:
    """Return the live picture of a snapshot: always equally many lines, so that nothing jumps."""
    head = Table.grid(padding=(0, 2))
    head.add_row(
        Text(phase.capitalize(), style="bold"),
        ProgressBar(total=max(snapshot.total, 1), completed=snapshot.done, width=32),
        Text(f"{snapshot.done}/{snapshot.total}"),
        Text(f"{rate:.0f}/s", style="cyan"),
        Text(f"{snapshot.elapsed_s:.1f} s", style="dim"),
    )
    lines = [_line(each) for each in snapshot.running[:_SHOWN]]
    more = len(snapshot.running) - _SHOWN
    last = Text(f"  and {more} more", style="dim") if more > 0 else Text("")
    return Group(head, *lines, *(Text("") for _ in range(_SHOWN - len(lines))), last)


def _line(running: Running) -> Text:
    return Text.from_markup(
        f"  [green]▸[/] {escape(running.name)} [dim]on {escape(running.worker)}[/]", overflow="ellipsis"
    )


def follow(
    source: Source,
    display: Display,
    pause: Callable[[float], object],
    watchers: Iterable[Callable[[Snapshot], object]] = (),
) -> Snapshot:
    """Poll until the run has ended; show every snapshot, and hand it to the watchers. Return the last one."""
    watching = list(watchers)
    with display:
        while True:
            snapshot = source()
            display.show(snapshot)
            for watch in watching:
                watch(snapshot)
            if snapshot.ended:
                return snapshot
            pause(INTERVAL_S)
