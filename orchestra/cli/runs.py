"""``orchestra runs``: what runs, how far it is, what it waits for, and control of it."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from orchestra.cli import drawing, target, timeline
from orchestra.cli.options import App, Json, Metadata, Plain, dump, entries, short, since
from orchestra.cli.watching import status_of, watch, watch_json
from orchestra.client import Orchestrator
from orchestra.engine.reasons import again
from orchestra.errors import UnknownId
from orchestra.explanation import explain, place
from orchestra.model.record import RunRecord, StepRecord, moment
from orchestra.model.status import WorkflowStatus
from orchestra.model.usage import Usage, total

runs = typer.Typer(name="runs", help="Runs: how far they are, what they wait for, control.", no_args_is_help=True)

_WIDTH_IN_A_PIPE = 160
_LONGEST_OUTPUT = 400
Id = Annotated[str, typer.Argument(help="Id of a run or of a step (run.n, or the id of a task).")]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of runs or steps.")]


@runs.command("list")
def list_(
    status: Annotated[WorkflowStatus | None, typer.Option(case_sensitive=False, help="Only with this status.")] = None,
    name: Annotated[str | None, typer.Option(help="Only of this name.")] = None,
    metadata: Metadata = None,
    since_: Annotated[
        str | None, typer.Option("--since", metavar="WHEN", help="Only younger: 90m, 2d, or 2030-01-31T12:00.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 20,
    app: App = None,
    as_json: Json = False,
) -> None:
    """List runs, newest first."""
    with target.load_kept(app, "look for runs in") as orch:
        found = orch.runs(
            status=status,
            name=name,
            metadata=entries(metadata),
            since=None if since_ is None else since(since_),
            limit=limit,
        )
        if as_json:
            print(dump([_row(each.record) for each in found]))
            return
        for each in found:
            record = each.record
            at = f"{datetime.fromtimestamp(record.created_at).astimezone():%Y-%m-%d %H:%M:%S}"
            took = short(max(0.0, (record.completed_at or time.time()) - record.created_at))
            print(f"{record.id}  {record.status:<9}  {at}  {took:>10}  {record.name}")


@runs.command()
def show(
    id: Id,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many attempts at most.")] = 40,
    app: App = None,
    as_json: Json = False,
) -> None:
    """Show the output of a run, its graph, and a timeline of its attempts."""
    with target.load_kept(app, "look for runs in") as orch:
        record, _n = _found(orch, id)
        store = orch.parts.store
        steps, before = store.steps(record.id), store.predecessors(record.id)
        found = timeline.attempts(orch.history(run=record.id, limit=1_000_000))
        calls = orch.get_run(record.id).calls
        if as_json:
            about = {**_row(record), "output": orch.get_run(record.id).output}
            about["steps"] = [_step(each, before.get(each.ref.n, ())) for each in steps]
            about["attempts"] = [timeline.to_json(each) for each in found]
            about["usage"] = total(calls).model_dump()
            about["calls"] = [{**asdict(each), "usage": each.usage.model_dump()} for each in calls]
            print(dump(about))
            return
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = _WIDTH_IN_A_PIPE
        console.print(Text(f"{record.id}  {record.status}"), soft_wrap=True)
        if record.status is WorkflowStatus.COMPLETED:
            console.print(Text(f"output: {_cut(dump(orch.get_run(record.id).output, indent=None))}"), soft_wrap=True)
        if record.error is not None:
            console.print(Text(f"{record.error.type}: {record.error}", style="red"), soft_wrap=True)
            console.print(Text(f"run it again: {again(record.id)}", style="dim"), soft_wrap=True)
        if calls:
            console.print(Text(_used(total(calls))), soft_wrap=True)
        console.print(drawing.draw(record.name, steps, before), soft_wrap=True)
        if found:
            console.print()
            console.print(timeline.table(found, datetime.now(UTC), limit), soft_wrap=True)
            if len(found) > limit:
                console.print(f"The longest {limit} of {len(found):,} attempts.")


@runs.command("watch")
def watch_(id: Id, plain: Plain = False, app: App = None, as_json: Json = False) -> None:
    """Follow a run until it has ended; with --json one JSON object a line.

    The exit status is 0 when it completed, 1 when it did not.
    """
    with target.load_kept(app, "look for runs in") as orch:
        record, _n = _found(orch, id)
        try:
            if as_json:
                ended = watch_json(orch, record.id, _write)
            else:
                ended = watch(orch, record.id, plain=plain, console=Console(highlight=False))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        raise typer.Exit(status_of(ended))


@runs.command()
def why(id: Id, app: App = None, as_json: Json = False) -> None:
    """Say what a run or a step is waiting for, or how it ended."""
    with target.load_kept(app, "look for runs in") as orch:
        record, n = _found(orch, id)
        reasons = explain(orch.parts.store, record, n, time.time())
        if as_json:
            print(dump([{"cause": each.cause, "text": each.text, "task_id": each.task_id} for each in reasons]))
            return
        for each in reasons:
            print(each.text)


@runs.command()
def cancel(ids: Ids, app: App = None, as_json: Json = False) -> None:
    """Cancel runs or steps. The exit status is 1 when one of them had ended before."""
    _control(ids, app, as_json, Orchestrator.cancel, "cancelled", "it had ended before")


@runs.command()
def pause(ids: Ids, app: App = None, as_json: Json = False) -> None:
    """Let nothing of runs begin any more. The exit status is 1 when one of them was not running."""
    _control(ids, app, as_json, Orchestrator.pause, "paused", "it is not running")


@runs.command()
def resume(ids: Ids, app: App = None, as_json: Json = False) -> None:
    """Let paused runs go on. The exit status is 1 when one of them was not paused."""
    _control(ids, app, as_json, Orchestrator.resume, "resumed", "it is not paused")


@runs.command()
def retry(ids: Ids, app: App = None, as_json: Json = False) -> None:
    """Run again what failed or was cancelled of runs. The exit status is 1 when there was nothing to do for one."""
    _control(ids, app, as_json, Orchestrator.retry, "retried", "it has not ended, or nothing of it failed")


def _control(
    ids: Sequence[str], app: str | None, as_json: bool, act: Callable[[Orchestrator, str], object], done: str, not_: str
) -> None:
    """Do something to each of several runs, and say what came of it."""
    with target.load_kept(app, "look for runs in") as orch:
        came_of: dict[str, bool] = {}
        for each in ids:
            came_of[each] = bool(act(orch, each))
        if as_json:
            print(dump([{"id": each, "done": came} for each, came in came_of.items()]))
        else:
            for each, came in came_of.items():
                print(f"{each} {done}" if came else f"{each} not {done}: {not_}")
    raise typer.Exit(0 if all(came_of.values()) else 1)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _found(orch: Orchestrator, id: str) -> tuple[RunRecord, int | None]:
    found = place(orch.parts.store, id)
    if found is None:
        raise UnknownId("run or task", id)
    return found


def _row(record: RunRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": record.name,
        "status": record.status,
        "priority": record.priority,
        "metadata": dict(record.metadata),
        "key": record.key,
        "job_id": record.job_id,
        "error": None if record.error is None else {"type": record.error.type, "message": record.error.message},
        **{name: _iso(getattr(record, name)) for name in ("scheduled_for", "created_at", "started_at", "completed_at")},
    }


def _step(step: StepRecord, before: Sequence[int]) -> dict[str, Any]:
    return {
        "id": str(step.ref),
        "key": step.key,
        "name": step.name,
        "status": step.status,
        "queue": step.queue,
        "priority": step.priority,
        "after": [f"{step.ref.run_id}.{n}" for n in before],
        "part_of": None if step.parent is None else f"{step.ref.run_id}.{step.parent}",
        "attempts": step.attempts,
        "crashes": step.crashes,
        "worker": step.worker,
        "error": None if step.error is None else {"type": step.error.type, "message": step.error.message},
        **{name: _iso(getattr(step, name)) for name in ("created_at", "due_at", "started_at", "completed_at")},
    }


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_OUTPUT else f"{text[:_LONGEST_OUTPUT]}… (all of it: --json)"


def _used(usage: Usage) -> str:
    tokens = f"{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out"
    return f"{usage.requests:,} requests, {usage.tool_calls:,} tool calls, {tokens}, ${usage.cost:,.4f}"


def _iso(at: float | None) -> str | None:
    found = moment(at)
    return None if found is None else found.isoformat()
