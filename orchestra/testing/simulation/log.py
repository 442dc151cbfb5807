"""The event log of a simulation: complete, in order, and told once."""

from collections.abc import Sequence

from orchestra.model.event import RUN_ENDS, TASK_ENDS, Event
from orchestra.model.status import TERMINAL
from orchestra.store.contract import Store
from orchestra.testing.simulation.view import RunView
from orchestra.testing.simulation.world import Violation

_RULE = "events are complete and in order"
_BY_HAND = "task.retrying by request"
_OPEN = {"task.submitted", "task.queued", "task.started", "task.retrying", _BY_HAND}
_AFTER = {
    "task.submitted": {None},
    "task.queued": {None, "task.submitted", "task.retrying", _BY_HAND},
    "task.started": {"task.queued", "task.retrying", _BY_HAND},
    # Parts were tried again by hand, failed again, and what they are parts of has a fallback.
    "task.retrying": {"task.started", _BY_HAND},
    _BY_HAND: TASK_ENDS,
    "task.completed": {"task.started", "task.retrying", _BY_HAND},
    "task.failed": {"task.started", "task.retrying", _BY_HAND},
    "task.skipped": _OPEN,
    "task.cancelled": _OPEN,
}
"""What may come before each event of a step."""


def read(store: Store, after: int) -> list[Event]:
    """Return everything behind a cursor."""
    found: list[Event] = []
    while True:
        page, cursor = store.events(after)
        if cursor == after:
            return found
        found += page
        after = cursor


def check(view: RunView, events: Sequence[Event]) -> None:
    """Check the events of one run against what became of it."""
    last: dict[str, str] = {}
    started: dict[str, int] = {}
    run_ended: str | None = None
    for event in events:
        if run_ended is not None and event.type != "workflow.retried":
            raise Violation(_RULE, f"{event.type} of {event.task_id} after {run_ended} of {view.id}")
        if event.task_id is None:
            run_ended = event.type if event.type in RUN_ENDS else None
            continue
        before = last.get(event.task_id)
        by_hand = event.type == "task.retrying" and event.data.get("by") == "request"
        now = _BY_HAND if by_hand else event.type
        if before not in _AFTER[now]:
            raise Violation(_RULE, f"{event.type} of {event.task_id} after {before}")
        last[event.task_id] = now
        if event.type == "task.started":
            started[event.task_id] = started.get(event.task_id, 0) + 1
    if not view.single and run_ended != f"workflow.{view.status.value.lower()}":
        raise Violation(_RULE, f"run {view.id} is {view.status} and its log ends with {run_ended}")
    _check_ends(view, last, started)


def _check_ends(view: RunView, last: dict[str, str], started: dict[str, int]) -> None:
    for n, record in view.records.items():
        name = view.id if view.single and record.parent is None else f"{view.id}.{n}"
        end = last.get(name)
        if record.status in TERMINAL and end != f"task.{record.status.value.lower()}":
            raise Violation(_RULE, f"{record.name} ({name}) is {record.status} and its log ends with {end}")
        if record.status not in TERMINAL and end in TASK_ENDS:
            raise Violation(_RULE, f"{record.name} is {record.status} and its log says {end}")
        if started.get(name, 0) > record.claims:
            raise Violation(_RULE, f"{record.name} was started {started[name]} times with {record.claims} claims")
