"""`orchestra demo`: run the demo's workflow, embedded or on worker processes of its own, and show how it went."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import tempfile
import time
import webbrowser
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from orchestra import Orchestrator
from orchestra.cli.demo.fleet import Fleet, Worker, WorkersNotReady, worker_command
from orchestra.cli.demo.modules import library, list_paths, module_name
from orchestra.cli.demo.progress import Display, LiveDisplay, PlainDisplay, Snapshot, follow, source_of
from orchestra.cli.demo.steps import analyse
from orchestra.cli.demo.summary import Summary, lines, proof, summarise

CRASH_AT = 0.4
_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class _Job:
    """One run of the demo: where the report goes, how many modules, and how it is shown."""

    out: Path
    limit: int
    console: Console
    plain: bool

    def display(self) -> Display:
        if self.plain or not self.console.is_terminal:
            return PlainDisplay(lambda line: print(line, flush=True))
        return LiveDisplay(self.console)


Watch = Callable[[Snapshot], object]


def demo(
    out: Annotated[Path, typer.Option(help="Folder that report.html and report.json are written to.")] = Path(
        "orchestra-demo"
    ),
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes to start; with --broker.")] = 2,
    broker: Annotated[str | None, typer.Option(help="Run on worker processes that meet at this broker.")] = None,
    crash: Annotated[bool, typer.Option("--crash", help="Kill a worker in the middle; with --broker.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="Measure only so many modules; 0 for all.")] = 0,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines, as in a pipe.")] = False,
    open_report: Annotated[bool, typer.Option("--open", help="Open the report in a browser.")] = False,
) -> None:
    """Analyse the standard library of this Python: one durable workflow, one step per module, one report."""
    if crash and broker is None:
        fail("--crash kills a worker process, and an embedded run has none", "Try --broker redis://localhost:6379/0")
    console = Console(highlight=False)
    job = _Job(out.resolve(), limit, console, plain)
    try:
        if broker is None:
            summary = _embedded(job)
        else:
            summary = _on_workers(job, broker, workers, crash)
    except KeyboardInterrupt:
        console.print("Stopped.")
        raise typer.Exit(_INTERRUPTED) from None
    _conclude(job, summary, crash, open_report)


def fail(problem: str, hint: str) -> NoReturn:
    """Say what is wrong and what to do, and leave with the status for a wrong call."""
    print(f"Error: {problem}. {hint}.", file=sys.stderr)
    raise typer.Exit(2)


def _conclude(job: _Job, summary: Summary, crash: bool, open_report: bool) -> None:
    job.console.print()
    for title, text in lines(summary):
        job.console.print(f"[bold]{title:<10}[/] {escape(text)}", soft_wrap=True)
    if crash:
        job.console.print()
        for sentence in proof(summary):
            job.console.print(escape(sentence), soft_wrap=True)
    if open_report and summary.headline:
        webbrowser.open(Path(str(summary.headline["html"])).as_uri())
    completed = summary.status == "COMPLETED" and (summary.nothing_lost or not crash)
    raise typer.Exit(0 if completed else 1)


def _embedded(job: _Job) -> Summary:
    # What the environment or orchestra.toml says is about the user's own workers, which do not serve the demo.
    with Orchestrator(broker="memory://", store="sqlite://") as orch:
        return _run(job, orch, job.display())


def _on_workers(job: _Job, broker: str, count: int, crash: bool) -> Summary:
    # A queue of its own: other users of the broker neither get these steps nor give theirs to the demo's workers.
    queue = f"orchestra-demo-{secrets.token_hex(4)}"
    folder = Path(tempfile.mkdtemp(prefix="orchestra-demo-"))
    settings = {
        "ORCHESTRA_BROKER": broker,
        "ORCHESTRA_STORE": f"sqlite:///{folder / 'demo.db'}",
        "ORCHESTRA_QUEUE": queue,
    }
    with _terminable(), _environment(settings), Fleet(worker_command(queue), settings, folder) as fleet:
        job.console.print(f"Starting {count} workers on queue {queue}; their logs are in {folder}", soft_wrap=True)
        for _ in range(count):
            fleet.start()
        try:
            with Orchestrator() as orch:
                fleet.wait_ready()
                display = job.display()
                watch = _Crash(fleet, display) if crash else None
                summary = _run(job, orch, display, watch)
        except WorkersNotReady as error:
            print(f"Error: {error}", file=sys.stderr)
            raise typer.Exit(1) from None
        if summary.status != "COMPLETED":
            print(fleet.logs(), file=sys.stderr)
        return summary


def _run(job: _Job, orch: Orchestrator, display: Display, watch: Watch | None = None) -> Summary:
    root = library()
    names = [module_name(Path(path), root) for path in list_paths(job.limit)]
    begin = time.monotonic()
    run = orch.submit_workflow(analyse, kwargs={"out": str(job.out), "limit": job.limit})
    follow(source_of(orch, run.id, time.monotonic, names), display, time.sleep, [watch] if watch else [])
    return summarise(orch.get_run(run.id), time.monotonic() - begin, names)


class _Crash:
    """Kills the first worker once enough steps are done, and starts another in its place."""

    def __init__(self, fleet: Fleet, display: Display) -> None:
        self._fleet, self._display = fleet, display
        self._victim: Worker | None = None

    def __call__(self, snapshot: Snapshot) -> None:
        # Before the fan-out unfolds, one step of five is done; 40 % is reached only among the modules.
        if self._victim or snapshot.ended or snapshot.done < CRASH_AT * snapshot.total:
            return
        self._victim = self._fleet.workers[0]
        self._fleet.kill(self._victim)
        successor = self._fleet.start()
        self._display.say(
            f"Killed worker {self._victim.number} (process {self._victim.process.pid}) with SIGKILL after "
            f"{snapshot.done} of {snapshot.total} steps; started worker {successor.number} in its place"
        )


@contextmanager
def _environment(changes: Mapping[str, str | None]) -> Generator[None]:
    """Set variables, or with None remove them, and put back what was there."""
    before = {name: os.environ.get(name) for name in changes}
    _apply(changes)
    try:
        yield
    finally:
        _apply(before)


def _apply(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _terminable() -> Generator[None]:
    """Let a SIGTERM unwind the stack like Ctrl-C, so that it leaves no workers behind."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
