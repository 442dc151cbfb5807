"""Callbacks: what tasks call when they have ended, in the process that submitted them or, by name, on the workers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestra.bus.tail import Handler, Tail
from orchestra.engine.plan import Plan
from orchestra.errors import BrokerUnavailable, NotDelivered
from orchestra.handles import Handles
from orchestra.model import event as events
from orchestra.model.event import Event
from orchestra.model.ids import StepRef
from orchestra.model.record import StepRecord
from orchestra.model.task import Task
from orchestra.runtime.codec import decode
from orchestra.store.contract import Store

if TYPE_CHECKING:
    from orchestra.client import Orchestrator

NAME = "orchestra.callbacks"
"""The named subscriber that looks after callbacks given by name."""
_KEY = "callback"
"""Where a step keeps the name of its callback: in its metadata."""


class Callbacks:
    """The callbacks of the tasks of one submit. Each is called once, with the ended task.

    Args:
        numbered: The tasks with their step numbers.
        single: Whether the run is of one task that was submitted alone; its events have the id of the run.
    """

    def __init__(self, tail: Tail, handles: Handles, numbered: Sequence[tuple[Task, int]], *, single: bool) -> None:
        self._tail, self._handles, self._single = tail, handles, single
        self._wanted = [(task.callback, n) for task, n in numbered if callable(task.callback)]
        self._stops: list[Callable[[], bool]] = []

    def expect(self, run_id: str) -> None:
        """Listen to a run that is about to be created: its tasks may have ended before ``submit`` returns."""
        for callback, n in self._wanted:
            self._stops.append(self._listen(callback, StepRef(run_id, n)))

    def turn_to(self, run_id: str) -> None:
        """Listen to a run that was there before: its tasks may have ended long ago, or may be ending now."""
        self.stop()
        for callback, n in self._wanted:
            ref = StepRef(run_id, n)
            stop = self._listen(callback, ref)
            record = self._handles.read_step(ref)
            if record.status.ended and stop():
                self._tail.call(callback, self._handles.task(record))

    def stop(self) -> None:
        """Listen no more to the run that was expected."""
        for stop in self._stops:
            stop()

    def _listen(self, callback: Handler, ref: StepRef) -> Callable[[], bool]:
        return self._tail.subscribe_once(events.TASK_ENDS, callback, ref.run_id if self._single else str(ref))


def by_name(numbered: Sequence[tuple[Task, int]]) -> dict[int, str]:
    """Return the callbacks that were given by name, by the numbers of their steps."""
    return {n: task.callback for task, n in numbered if isinstance(task.callback, str)}


def written(plan: Plan, named: dict[int, str]) -> Plan:
    """Return a plan whose steps hold the names of their callbacks."""
    steps = [
        replace(each, metadata={**each.metadata, _KEY: named[each.n]}) if each.n in named else each
        for each in plan.steps
    ]
    return replace(plan, steps=steps)


def begin(store: Store, now: float) -> None:
    """See to it that ends from now on are heard, though nobody may listen yet."""
    store.take_cursor(NAME, "", store.last_event(), now, 0.0)


def serve(orch: "Orchestrator") -> None:
    """Submit the callbacks given by name of tasks that end; one process of a store at a time does."""
    store = orch.parts.store

    def look(event: Event) -> None:
        if event.type not in events.TASK_ENDS or event.run_id is None or event.task_id is None:
            return
        n = 0 if event.task_id == event.run_id else int(event.task_id.rpartition(".")[2])
        record = store.step(StepRef(event.run_id, n))
        path = None if record is None else record.metadata.get(_KEY)
        if record is None or not isinstance(path, str):
            return
        try:
            orch.submit(
                path,
                _ended(record, event.task_id),
                name=f"callback of {record.name}",
                queue=record.queue,
                priority=record.priority,
                key=f"callback of {event.task_id}.{record.generation}",
            )
        except BrokerUnavailable as error:
            raise NotDelivered(path, str(error)) from error

    orch.on("task.*", look, name=NAME)


def _ended(record: StepRecord, task_id: str) -> dict[str, object]:
    """Return what a callback on a worker is told of the ended task."""
    error = record.error
    return {
        "id": task_id,
        "run_id": record.ref.run_id,
        "name": record.name,
        "status": record.status.value,
        "output": None if record.output is None else decode(record.output),
        "error": None if error is None else {"type": error.type, "message": error.message},
        "attempts": record.attempts,
        "metadata": {key: value for key, value in record.metadata.items() if key != _KEY},
    }
