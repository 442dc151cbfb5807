"""``orchestra jobs``: what runs when."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from orchestra.cli import target
from orchestra.client import Orchestrator
from orchestra.errors import InvalidOption, UnknownId
from orchestra.model.function import WorkflowFunction
from orchestra.model.job import ScheduledJob
from orchestra.model.schedule import JobStatus, Misfire, Overlap
from orchestra.model.task import NOTHING
from orchestra.model.workflow import Workflow

jobs = typer.Typer(name="jobs", help="Scheduled jobs: what runs when.", no_args_is_help=True)

App = Annotated[
    str | None,
    typer.Option("--app", "-A", metavar="MODULE:ATTRIBUTE", help="Your Orchestrator; default: from ORCHESTRA_*."),
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The job's id, or its name where only one has it.")]


@jobs.command("list")
def list_(app: App = None, as_json: Json = False) -> None:
    """List all jobs."""
    with target.load(app) as orch:
        _show(orch.jobs(), as_json)


@jobs.command()
def add(
    task: Annotated[str | None, typer.Option("--task", metavar="MODULE:FUNCTION", help="What to call.")] = None,
    workflow: Annotated[
        str | None, typer.Option("--workflow", metavar="MODULE:WORKFLOW", help="Or a workflow.")
    ] = None,
    input: Annotated[str | None, typer.Option("--input", help="JSON, or else text.")] = None,
    cron: Annotated[str | None, typer.Option("--cron", help="Five fields, or @daily and the like.")] = None,
    every: Annotated[float | None, typer.Option("--every", metavar="SECONDS", help="An interval.")] = None,
    at: Annotated[datetime | None, typer.Option("--at", help="One time, in --timezone.")] = None,
    timezone: Annotated[str, typer.Option("--timezone", help="Such as Europe/Berlin.")] = "UTC",
    id: Annotated[str | None, typer.Option("--id", help="Adding the same id again replaces the job.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Default that of the task.")] = None,
    misfire: Annotated[Misfire, typer.Option("--misfire", help="For times later than the grace.")] = Misfire.ONCE,
    grace: Annotated[float, typer.Option("--grace", metavar="SECONDS", help="What counts as late.")] = 60,
    overlap: Annotated[Overlap, typer.Option("--overlap", help="While a run has not ended.")] = Overlap.ALLOW,
    jitter: Annotated[float, typer.Option("--jitter", metavar="SECONDS", help="Put each firing off by up to.")] = 0,
    max_runs: Annotated[int | None, typer.Option("--max-runs", help="The job ends after so many.")] = None,
    app: App = None,
    as_json: Json = False,
) -> None:
    """Add a job, or replace the one of the same id."""
    with target.load(app) as orch:
        job = ScheduledJob(
            task, None if workflow is None else _workflow(workflow), id=id, name=name, input=_input(input),
            run_at=at, interval_seconds=every, cron=cron, timezone=timezone, misfire=misfire, grace_seconds=grace,
            overlap=overlap, jitter_seconds=jitter, max_runs=max_runs,
        )  # fmt: skip
        _show([orch.schedule(job)], as_json)


@jobs.command()
def pause(id: Id, app: App = None, as_json: Json = False) -> None:
    """Fire a job no more until it is resumed."""
    with target.load(app) as orch:
        _show([_found(orch, id).pause()], as_json)


@jobs.command()
def resume(id: Id, app: App = None, as_json: Json = False) -> None:
    """Go on with the next time from now."""
    with target.load(app) as orch:
        _show([_found(orch, id).resume()], as_json)


@jobs.command()
def trigger(id: Id, app: App = None, as_json: Json = False) -> None:
    """Run a job now, beside its schedule; prints the id of the run."""
    with target.load(app) as orch:
        run = _found(orch, id).trigger()
        print(json.dumps({"run_id": run.id}) if as_json else run.id)


@jobs.command()
def delete(id: Id, app: App = None, as_json: Json = False) -> None:
    """Delete a job; its runs stay."""
    with target.load(app) as orch:
        job = _found(orch, id)
        deleted = job.delete()
        print(json.dumps({"id": job.id, "deleted": deleted}) if as_json else f"deleted {job.id}")


@jobs.command("next")
def next_(
    id: Id,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000, help="How many times.")] = 5,
    app: App = None,
    as_json: Json = False,
) -> None:
    """Show the next times of a job, in its time zone."""
    with target.load(app) as orch:
        times = [each.isoformat() for each in _found(orch, id).next_run_times(count)]
        print(json.dumps(times) if as_json else "\n".join(times))


def _found(orch: Orchestrator, id: str) -> ScheduledJob:
    try:
        return orch.get_job(id)
    except UnknownId:
        named = [each for each in orch.jobs() if each.name == id]
        if len(named) != 1:
            raise
        return named[0]


def _input(text: str | None) -> object:
    if text is None:
        return NOTHING
    try:
        return json.loads(text)
    except ValueError:
        return text


def _workflow(path: str) -> Any:
    found = target.attribute(path, "--workflow")
    if not isinstance(found, Workflow | WorkflowFunction):
        raise InvalidOption("--workflow", path, "module:attribute of a Workflow or an @workflow function")
    return found  # pyright: ignore[reportUnknownVariableType]


def _show(found: Sequence[ScheduledJob], as_json: bool) -> None:
    rows = [_row(each) for each in found]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        when = row["cron"] or (f"every {row['interval_s']:g} s" if row["interval_s"] else f"at {row['run_at']}")
        following = row["next_run_at"] or "-"
        print(f"{row['id']}  {row['status']:<6}  {when} ({row['timezone']})  next {following}  {row['name']}")
        if row["error"]:
            print(f"    {row['error']}")


def _row(job: ScheduledJob) -> dict[str, Any]:
    record = job.record
    timing = record.schedule.to_json()
    return {
        "id": record.id,
        "name": record.name,
        "status": JobStatus(record.status).value,
        **{key: timing.get(key) for key in ("type", "cron", "interval_s")},
        "run_at": _iso(record.schedule.run_at),
        "timezone": record.schedule.timezone,
        "next_run_at": _iso(record.next_run_at),
        "last_run_at": _iso(record.last_run_at),
        "last_run_id": record.last_run_id,
        "runs": record.runs,
        "missed": record.missed,
        "error": record.error,
        "backfills": record.backfills,
    }


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat()
