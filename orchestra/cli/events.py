"""``orchestra events``: what happened, and what happens."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated

import typer

from orchestra.cli import target
from orchestra.cli.options import App, Json, short
from orchestra.client import Orchestrator
from orchestra.model import event as events_
from orchestra.model.event import Event

_POLL_S = 0.1


def events(
    run: Annotated[str | None, typer.Option("--run", metavar="ID", help="Only of this run.")] = None,
    type: Annotated[
        str | None, typer.Option("--type", "-t", metavar="PATTERN", help="Only such as task.failed or task.*")
    ] = None,
    after: Annotated[str | None, typer.Option("--after", metavar="ID", help="Only those after this event.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most, before --follow begins.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens, until Ctrl-C.")] = False,
    app: App = None,
    as_json: Json = False,
) -> None:
    """Show the newest events of the log, a line each; with --json one JSON object a line."""
    pattern = "*" if type is None else events_.check_pattern(type)
    with target.load_kept(app, "read events from") as orch:
        cursor = orch.parts.store.last_event()
        names = Names(orch, run)
        for each in orch.history(run=run, type=pattern, after=after, limit=limit):
            cursor = max(cursor, events_.position(each.id)[0])
            _show(each, as_json, names)
        try:
            for each in follow_log(orch, cursor, run) if follow else ():
                if events_.matches(pattern, each.type):
                    _show(each, as_json, names)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def follow_log(
    orch: Orchestrator, cursor: int, run_id: str | None = None, *, meanwhile: Callable[[], object] = lambda: None
) -> Iterator[Event]:
    """Give the events behind a cursor as they happen, for ever. ``meanwhile`` is called whenever there is none."""
    while True:
        found, last = orch.parts.store.events(cursor, run_id=run_id)
        yield from found
        if last == cursor:
            meanwhile()
            time.sleep(_POLL_S)
        cursor = last


class Names:
    """Names of the steps of one run, read when an event is of one that is not known. Of all runs they would be many."""

    def __init__(self, orch: Orchestrator, run_id: str | None) -> None:
        self._orch, self._run_id = orch, run_id
        self._known: dict[str, str] = {}

    def of(self, event: Event) -> str:
        """Return the name of what an event is about; empty where it is not said."""
        said = str(event.data.get("name") or "")
        if said or self._run_id is None or event.task_id is None or event.task_id == self._run_id:
            return said
        if event.task_id not in self._known:
            self._known = {str(each.ref): each.name for each in self._orch.parts.store.steps(self._run_id)}
        return self._known.get(event.task_id, "")


def _show(event: Event, as_json: bool, names: Names) -> None:
    text = json.dumps(to_json(event), ensure_ascii=False) if as_json else line(event, name=names.of(event))
    print(text, flush=True)


def to_json(event: Event) -> dict[str, object]:
    """Return an event as JSON has it."""
    return {
        "id": event.id,
        "type": event.type,
        "time": event.time.isoformat(),
        "run_id": event.run_id,
        "task_id": event.task_id,
        "job_id": event.job_id,
        "worker": event.worker,
        "data": dict(event.data),
    }


def line(event: Event, names: Mapping[str, str] | None = None, *, name: str = "") -> str:
    """Return an event as one line for people.

    Args:
        names: Those of steps, by their ids, to be said instead of the ids.
        name: What to say beside the id.
    """
    about = event.task_id or event.run_id or event.job_id or ""
    name = str(event.data.get("name") or (names or {}).get(about) or name)
    parts = [f"{event.time.astimezone():%H:%M:%S.%f}"[:-3], f"{event.type:<18}"]
    parts += [each for each in (name if names is not None and name else about, *_details(event, name, names)) if each]
    return " ".join(parts)


def _details(event: Event, name: str, names: Mapping[str, str] | None) -> Iterator[str]:
    data = dict(event.data)
    if name and names is None:
        yield name
    if "duration_s" in data:
        yield f"({short(float(str(data['duration_s'])))})"
    if data.get("error"):
        yield str(data["error"]).splitlines()[0]
    if data.get("after_s"):
        yield f"again in {short(float(str(data['after_s'])))}"
    if event.worker:
        yield f"on {event.worker.partition('/')[0]}"
    if not event.type.startswith(("task.", "workflow.", "job.", "worker.")):
        yield json.dumps(data, ensure_ascii=False)
