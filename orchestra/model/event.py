"""Events: what happened, as readers of the log and handlers see it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase

from orchestra.errors import InvalidOption

LIFECYCLE = (
    "task.submitted",
    "task.queued",
    "task.started",
    "task.retrying",
    "task.completed",
    "task.failed",
    "task.cancelled",
    "task.skipped",
    "workflow.started",
    "workflow.completed",
    "workflow.failed",
    "workflow.cancelled",
    "workflow.paused",
    "workflow.resumed",
    "workflow.retried",
    "job.fired",
    "job.missed",
    "worker.online",
    "worker.offline",
    "worker.task_revoked",
    "worker.process_crashed",
    "worker.internal_error",
)
"""The event types that Orchestra writes itself. All others are custom."""

Wanted = Callable[[str], bool]
"""Says of which types events are wanted; the others are not made, which costs more than to read them."""

TASK_ENDS = frozenset({"task.completed", "task.failed", "task.cancelled", "task.skipped"})
RUN_ENDS = frozenset({"workflow.completed", "workflow.failed", "workflow.cancelled"})
_RESERVED = ("task.", "workflow.", "job.", "worker.")


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. ``id`` orders events as they were committed."""

    id: str
    type: str
    time: datetime
    run_id: str | None = None
    task_id: str | None = None
    """The step: ``run_id`` for a single task, else ``run_id.n``."""
    job_id: str | None = None
    worker: str | None = None
    data: Mapping[str, object] = field(default_factory=dict[str, object])


def cut(data: Mapping[str, object], limit: int) -> Mapping[str, object]:
    """Return what an event says in at most about so many characters of JSON; the longest values of it are cut.

    What was cut is text that ends with an ellipsis.
    """
    texts = {name: json.dumps(value, ensure_ascii=False, default=str) for name, value in data.items()}
    if sum(map(len, texts.values())) <= limit:
        return data
    left, found = limit, dict(data)
    for at, name in enumerate(sorted(texts, key=lambda each: len(texts[each]))):
        share = left // (len(texts) - at)
        if len(texts[name]) > share:
            value = data[name]
            found[name] = f"{value if isinstance(value, str) else texts[name]}"[:share] + "…"
        left -= min(len(texts[name]), share)
    return found


def position(event_id: str) -> tuple[int, int]:
    """Return where in the log an event stands: its transaction, and its place among the events of that."""
    transaction, _, place = event_id.partition("-")
    try:
        return int(transaction), int(place or 0)
    except ValueError:
        raise InvalidOption("after", event_id, "the id of an event, such as '17-0'") from None


def matches(pattern: str, event_type: str) -> bool:
    """Whether a pattern such as ``task.completed``, ``task.*`` or ``*`` covers an event type."""
    return pattern == event_type or ("*" in pattern and fnmatchcase(event_type, pattern))


def check_pattern(pattern: str) -> str:
    """Return the pattern, or raise InvalidOption when it is a lifecycle name that does not exist."""
    if not pattern or any(space in pattern for space in " \t\n"):
        raise InvalidOption("event", pattern, "a type such as 'task.completed' or a pattern such as 'task.*'")
    if pattern.startswith(_RESERVED) and not any(matches(pattern, each) for each in LIFECYCLE):
        raise InvalidOption("event", pattern, f"one of {', '.join(LIFECYCLE)}, a pattern over them, or a custom type")
    return pattern


def check_custom(event_type: str) -> str:
    """Return the type of a custom event, or raise InvalidOption when it is not free to be emitted."""
    if not event_type or "*" in event_type or any(space in event_type for space in " \t\n"):
        raise InvalidOption("event", event_type, "a type such as 'order.shipped', without spaces or '*'")
    if event_type.startswith(_RESERVED):
        raise InvalidOption("event", event_type, f"a type that does not start with {', '.join(_RESERVED)}")
    return event_type
