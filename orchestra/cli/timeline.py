"""Timeline: the attempts of a run's steps, read from its log, and bars of when each was under way."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.table import Table
from rich.text import Text

from orchestra.cli.options import short
from orchestra.model.event import TASK_ENDS, Event

_WIDTH = 32
_STYLES = {"completed": "green", "failed": "red", "retrying": "yellow", "cancelled": "magenta", "skipped": "dim"}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One claim of one step, from its start to whatever ended it."""

    task_id: str
    name: str
    number: int
    """Which claim of the step it is."""
    worker: str
    began: datetime
    ended: datetime | None
    """None while it runs."""
    came_to: str
    """completed, failed, retrying, cancelled, skipped or running."""
    error: str = ""


def attempts(events: Iterable[Event]) -> list[Attempt]:
    """Return the attempts that a log tells of, in the order of their starts."""
    open_: dict[str, Event] = {}
    found: list[Attempt] = []
    for event in events:
        task_id = event.task_id or ""
        if event.type == "task.started":
            open_[task_id] = event
        elif (event.type in TASK_ENDS or event.type == "task.retrying") and task_id in open_:
            found.append(_attempt(open_.pop(task_id), event))
    found += [_attempt(start, None) for start in open_.values()]
    return sorted(found, key=lambda each: each.began)


def _attempt(start: Event, end: Event | None) -> Attempt:
    return Attempt(
        start.task_id or "",
        str(start.data.get("name", "")),
        int(str(start.data.get("claim", 1))),
        (start.worker or "").partition("/")[0],
        start.time,
        None if end is None else end.time,
        "running" if end is None else end.type.partition(".")[2],
        "" if end is None else str(end.data.get("error", "")),
    )


def to_json(attempt: Attempt) -> Mapping[str, object]:
    """Return an attempt as JSON has it."""
    return {
        "task_id": attempt.task_id,
        "name": attempt.name,
        "claim": attempt.number,
        "worker": attempt.worker,
        "started_at": attempt.began.isoformat(),
        "ended_at": None if attempt.ended is None else attempt.ended.isoformat(),
        "came_to": attempt.came_to,
        "error": attempt.error or None,
    }


def table(found: Sequence[Attempt], now: datetime, limit: int) -> Table:
    """Return the attempts as rows with bars; when there are more than ``limit``, the longest ones."""
    shown = found
    if len(found) > limit:
        longest = sorted(found, key=lambda each: _length(each, now), reverse=True)[:limit]
        shown = sorted(longest, key=lambda each: each.began)
    first = min(each.began for each in found)
    whole = max((((each.ended or now) - first).total_seconds() for each in found), default=0.0) or 1e-9
    rows = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for width in (None, _WIDTH, None, None, None, None):
        rows.add_column(no_wrap=True, min_width=width, overflow="ellipsis")
    for each in shown:
        begin, length = (each.began - first).total_seconds(), _length(each, now)
        left = min(_WIDTH - 1, int(_WIDTH * begin / whole))
        bar = max(1, min(_WIDTH - left, round(_WIDTH * length / whole)))
        style = _STYLES.get(each.came_to, "cyan")
        line = Text(" " * left + "━" * bar + " " * (_WIDTH - left - bar), style=style)
        again = f" #{each.number}" if each.number > 1 else ""
        outcome = f"{each.came_to}: {each.error.splitlines()[0]}" if each.error else each.came_to
        rows.add_row(
            Text(each.name + again), line, f"+{short(begin)}", short(length), Text(outcome, style), Text(each.worker)
        )
    return rows


def _length(attempt: Attempt, now: datetime) -> float:
    return max(0.0, ((attempt.ended or now) - attempt.began).total_seconds())
