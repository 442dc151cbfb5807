"""Watching: a run until its end, live on a terminal, as plain lines in a pipe, or as lines of JSON."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestra.cli.events import follow_log, line, to_json
from orchestra.cli.options import short
from orchestra.client import Orchestrator
from orchestra.engine.reasons import Cause
from orchestra.explanation import explain
from orchestra.model.event import RUN_ENDS, TASK_ENDS, Event
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.model.task import WorkflowRun

_REFRESH_S = 0.2
_SHOWN = 8
_LONGEST_TAIL = 60
_LAST_WORDS_S = 5.0
"""How long what was said last may take: a moment, unless the machine stalls."""
_SILENCE_S = 2.0
"""How long nothing happens until it is looked why."""


def watch(orch: Orchestrator, run_id: str, *, plain: bool, console: Console) -> WorkflowRun:
    """Show a run until it has ended, and return it."""
    run = orch.get_run(run_id)
    if plain or not console.is_terminal:
        _lines(orch, run, console)
    else:
        _live(orch, run, console)
    return orch.get_run(run_id)


def watch_json(orch: Orchestrator, run_id: str, write: Callable[[str], object]) -> WorkflowRun:
    """Write a line of JSON for each event of a run, and for each line that its steps write, until it has ended.

    An event is as ``orchestra events --json`` has it; a line of a step is an object of ``task_id`` and ``text``.
    """
    run = orch.get_run(run_id)
    task_id = _known_as(run)

    def put(facts: object) -> None:
        write(json.dumps(facts, ensure_ascii=False) + "\n")  # as one text: two threads write

    texts = Texts(run, lambda step_id, text: put({"task_id": task_id(step_id), "text": text}))
    for event in _until_ended(orch, run):
        put(to_json(event))
    texts.join(_LAST_WORDS_S)
    return orch.get_run(run_id)


def status_of(run: WorkflowRun) -> int:
    """Return the exit status of a command that waited for a run: 0 if it completed, else 1."""
    return 0 if run.status is WorkflowStatus.COMPLETED else 1


def _lines(orch: Orchestrator, run: WorkflowRun, console: Console) -> None:
    names: dict[str, str] = {}
    task_id = _known_as(run)

    def show(step_id: str, text: str) -> None:
        name = names.get(task_id(step_id), step_id)
        console.print(Text(f"{name}: {text}"), soft_wrap=True)

    texts = Texts(run, show)
    obstacles, told = Obstacles(orch, run.id), set[str]()

    def tell() -> None:
        for text in obstacles.look():
            if text not in told:
                told.add(text)
                console.print(Text(f"{'':<12} it waits: {text}", style="yellow"), soft_wrap=True)

    for event in _until_ended(orch, run, tell):
        obstacles.heard()
        if event.task_id is not None and event.task_id not in names:
            names = {task_id(str(each.ref)): each.name for each in orch.parts.store.steps(run.id)}
        console.print(Text(line(event, names)), soft_wrap=True)
    texts.join(_LAST_WORDS_S)


def _known_as(run: WorkflowRun) -> Callable[[str], str]:
    """Return what says by which id events name a step: the one step of a single task has the id of its run."""
    single = run.record.single
    return lambda step_id: run.id if single else step_id


class Obstacles:
    """What keeps a run from going on until people do something: nobody serves a queue, or the run is paused."""

    def __init__(self, orch: Orchestrator, run_id: str) -> None:
        self._orch, self._run_id = orch, run_id
        self._look_at = time.monotonic() + _SILENCE_S
        self._found: list[str] = []

    def heard(self) -> None:
        """Something happened: there is no need to look for a while."""
        self._look_at = time.monotonic() + _SILENCE_S

    def look(self) -> Sequence[str]:
        """Return them, as they were within the last seconds."""
        if time.monotonic() >= self._look_at:
            store = self._orch.parts.store
            record = store.run(self._run_id)
            reasons = () if record is None else explain(store, record, None, time.time())
            self._found = [each.text for each in reasons if each.cause in (Cause.NO_WORKER, Cause.PAUSED)]
            self.heard()
        return self._found


def _until_ended(
    orch: Orchestrator, run: WorkflowRun, meanwhile: Callable[[], object] = lambda: None
) -> Iterator[Event]:
    """Give the events of a run from the first to the one that ends it, for as long as nobody retries it."""
    for event in follow_log(orch, 0, run.id, meanwhile=meanwhile):
        yield event
        # A task that was submitted alone has no workflow events, but the id of its run.
        ends = event.type in RUN_ENDS or (event.task_id == run.id and event.type in TASK_ENDS)
        if ends and not orch.history(run=run.id, type="workflow.retried", after=event.id, limit=1):
            return


class Texts(threading.Thread):
    """What the steps of a run write while they run: shown line by line, and the end of each.

    Args:
        show: Gets a step's id and a line.
    """

    def __init__(self, run: WorkflowRun, show: Callable[[str, str], object] = lambda _step_id, _line: None) -> None:
        super().__init__(name="orchestra-texts", daemon=True)
        self._run, self._show = run, show
        self._open: dict[tuple[str, str], str] = {}
        self.tails: dict[str, str] = {}
        """By step, the last words."""
        self.start()

    def run(self) -> None:
        for piece in self._run.stream():
            whose = (piece.step_id, piece.by)
            before = self._open.get(whose, "") if piece.offset else ""
            *lines, self._open[whose] = (before + piece.text).split("\n")
            self.tails[piece.step_id] = self._open[whose][-_LONGEST_TAIL:] or self.tails.get(piece.step_id, "")
            for each in lines:
                self._show(piece.step_id, each)
        for (step_id, _by), rest in self._open.items():
            if rest:
                self._show(step_id, rest)


def _live(orch: Orchestrator, run: WorkflowRun, console: Console) -> None:
    tails, obstacles = Texts(run).tails, Obstacles(orch, run.id)
    with Live(_picture(orch, run, tails, obstacles), console=console, refresh_per_second=10) as live:
        while not run.status.ended:
            time.sleep(_REFRESH_S)
            live.update(_picture(orch, run, tails, obstacles))
        live.update(_picture(orch, run, tails, obstacles))


def _picture(orch: Orchestrator, run: WorkflowRun, tails: Mapping[str, str], obstacles: Obstacles) -> Group:
    record = run.record
    counts = orch.counts(run.id)
    total = sum(counts.values())
    done = sum(count for status, count in counts.items() if status.ended)
    until = record.completed_at or time.time()
    head = Table.grid(padding=(0, 2))
    head.add_row(
        Text(record.name, style="bold"),
        Text(record.status, style=_STYLES.get(record.status, "cyan")),
        ProgressBar(total=max(1, total), completed=done, width=30),
        f"{done:,} of {total:,} steps",
        short(max(0.0, until - record.created_at)),
    )
    rows = Table.grid(padding=(0, 2))
    running = orch.running(run.id) if not record.status.ended else []
    for each in running[:_SHOWN]:
        worker = Text((each.worker or "").partition("/")[0], style="dim")
        rows.add_row("  ▶", Text(each.name), worker, Text(tails.get(str(each.ref), ""), style="italic"))
    if len(running) > _SHOWN:
        rows.add_row("", f"and {len(running) - _SHOWN} more")
    if counts.get(TaskStatus.RETRYING):
        rows.add_row("  ↻", f"{counts[TaskStatus.RETRYING]} wait to be tried again")
    for text in () if running or record.status.ended else obstacles.look():
        rows.add_row("  !", Text(text, style="yellow"))
    if record.error is not None:
        rows.add_row("  ✘", Text(f"{record.error.type}: {record.error}".splitlines()[0], style="red"))
    return Group(head, rows)


_STYLES = {
    WorkflowStatus.COMPLETED: "bold green",
    WorkflowStatus.FAILED: "bold red",
    WorkflowStatus.CANCELLED: "magenta",
    WorkflowStatus.PAUSED: "yellow",
}
