"""``orchestra jobs``: what runs when."""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from orchestra.cli import target
from orchestra.client import Orchestrator
from orchestra.errors import InvalidOption, InvalidSchedule, UnknownId
from orchestra.model.duration import parse_duration
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
    with _opened(app) as orch:
        _show(orch.jobs(), as_json)


@jobs.command()
def add(
    task: Annotated[str | None, typer.Option("--task", metavar="MODULE:FUNCTION", help="What to call.")] = None,
    workflow: Annotated[
        str | None, typer.Option("--workflow", metavar="MODULE:WORKFLOW", help="Or a workflow.")
    ] = None,
    input: Annotated[str | None, typer.Option("--input", help="JSON, or else text.")] = None,
    cron: Annotated[str | None, typer.Option("--cron", help="Five fields, or @daily and the like.")] = None,
    every: Annotated[str | None, typer.Option("--every", metavar="DURATION", help="Such as 90, 5m, 12h.")] = None,
    at: Annotated[str | None, typer.Option("--at", metavar="TIME", help="One time, in --timezone or its own.")] = None,
    timezone: Annotated[str, typer.Option("--timezone", help="Such as Europe/Berlin.")] = "UTC",
    id: Annotated[str | None, typer.Option("--id", help="Adding the same id again replaces the job.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Default that of the task.")] = None,
    misfire: Annotated[Misfire, typer.Option("--misfire", help="For times later than the grace.")] = Misfire.ONCE,
    grace: Annotated[float, typer.Option("--grace", metavar="SECONDS", help="What counts as late.")] = 60,
    overlap: Annotated[Overlap, typer.Option("--overlap", help="While a run has not ended.")] = Overlap.ALLOW,
    jitter: Annotated[float, typer.Option("--jitter", metavar="SECONDS", help="Put each firing off by up to.")] = 0,
    starts_at: Annotated[str | None, typer.Option("--starts-at", metavar="TIME", help="Not before.")] = None,
    ends_at: Annotated[str | None, typer.Option("--ends-at", metavar="TIME", help="Not after.")] = None,
    max_runs: Annotated[int | None, typer.Option("--max-runs", help="The job ends after so many.")] = None,
    app: App = None,
    as_json: Json = False,
) -> None:
    """Add a job, or replace the one of the same id."""
    job = ScheduledJob(
        task, None if workflow is None else _workflow(workflow), id=id, name=name, input=_input(input),
        run_at=_moment("--at", at), interval_seconds=_interval(every), cron=cron, timezone=timezone,
        misfire=misfire, grace_seconds=grace, overlap=overlap, jitter_seconds=jitter,
        starts_at=_moment("--starts-at", starts_at), ends_at=_moment("--ends-at", ends_at), max_runs=max_runs,
    )  # fmt: skip
    with _opened(app) as orch:
        _show([orch.schedule(job)], as_json)


@jobs.command()
def pause(id: Id, app: App = None, as_json: Json = False) -> None:
    """Fire a job no more until it is resumed."""
    with _opened(app) as orch:
        _show([_found(orch, id).pause()], as_json)


@jobs.command()
def resume(id: Id, app: App = None, as_json: Json = False) -> None:
    """Go on with the next time from now."""
    with _opened(app) as orch:
        _show([_found(orch, id).resume()], as_json)


@jobs.command()
def trigger(id: Id, app: App = None, as_json: Json = False) -> None:
    """Run a job now, beside its schedule; prints the id of the run."""
    with _opened(app) as orch:
        run = _found(orch, id).trigger()
        print(json.dumps({"run_id": run.id}) if as_json else run.id)


@jobs.command()
def delete(id: Id, app: App = None, as_json: Json = False) -> None:
    """Delete a job; its runs stay."""
    with _opened(app) as orch:
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
    with _opened(app) as orch:
        times = [each.isoformat() for each in _found(orch, id).next_run_times(count)]
        print(json.dumps(times) if as_json else "\n".join(times))


def _opened(app: str | None) -> Orchestrator:
    return target.load_kept(app, "keep jobs in")


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


def _moment(option: str, text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError as error:
        hint = "write it like 2030-12-31T09:00, with +02:00 or Z where it is not in --timezone"
        raise InvalidSchedule(option, text, None, str(error), hint) from None


def _interval(text: str | None) -> timedelta | None:
    try:
        return None if text is None else parse_duration(text)
    except ValueError:
        known = re.match(r"\s*\d*(\.\d+)?\s*[smhdw]?", str(text).lower())
        place = known.end() + 1 if known else 1
        hint = "write a number and s, m, h, d or w, such as 90s, 5m or 12h"
        raise InvalidSchedule("--every", text, place, "it is no duration", hint) from None


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
