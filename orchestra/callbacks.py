"""Callbacks: what the tasks of one submit call when they have ended."""

from collections.abc import Callable, Sequence

from orchestra.bus.tail import Handler, Tail
from orchestra.handles import Handles
from orchestra.model import event as events
from orchestra.model.ids import StepRef
from orchestra.model.task import Task


class Callbacks:
    """The callbacks of the tasks of one submit. Each is called once, with the ended task.

    Args:
        numbered: The tasks with their step numbers.
        single: Whether the run is of one task that was submitted alone; its events have the id of the run.
    """

    def __init__(self, tail: Tail, handles: Handles, numbered: Sequence[tuple[Task, int]], *, single: bool) -> None:
        self._tail, self._handles, self._single = tail, handles, single
        self._wanted = [(task.callback, n) for task, n in numbered if task.callback is not None]
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
