"""Control: the part of the Orchestrator with which people find runs and steer them."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from orchestra.errors import InvalidOption
from orchestra.model import options
from orchestra.model.record import LogLine
from orchestra.model.status import WorkflowStatus
from orchestra.model.task import WorkflowRun
from orchestra.store.contract import RunFilter, Store

if TYPE_CHECKING:
    from orchestra.handles import Handles
    from orchestra.steering import Steering


class Control:
    """What an ``Orchestrator`` offers for runs that exist."""

    _clock: Callable[[], float]
    _handles: "Handles"
    _steering: "Steering"

    @property
    def _store(self) -> Store:
        raise NotImplementedError

    def runs(
        self,
        *,
        status: WorkflowStatus | str | None = None,
        name: str | None = None,
        error_type: str | None = None,
        metadata: Mapping[str, object] | None = None,
        since: datetime | timedelta | None = None,
        limit: int = 100,
    ) -> list[WorkflowRun]:
        """Return runs, newest first; all given conditions must hold.

        Args:
            error_type: Class name of the error of the run; subclasses count.
            metadata: Entries that the run's metadata must have.
            since: Created at or after this time; a timedelta counts back from now.
        """
        where = RunFilter(
            None if status is None else options.member(WorkflowStatus, "status", status),
            name,
            options.metadata(metadata),
            options.since(since, self._clock()),
            options.at_least_one("limit", limit),
            error_type=error_type,
        )
        return [WorkflowRun(record.id, self._handles, record) for record in self._store.runs(where)]

    def cancel(self, id: str) -> bool:
        """Cancel a run or a task; False when it had ended before.

        What has not started will not. The result of what is running is discarded: its body is asked to stop
        (``current().stop_requested``; a coroutine is cancelled), and after a while it is stopped by force where its
        pool can. A body that cannot be stopped runs to its end unheard.

        Raises:
            UnknownId: There is neither.
        """
        return self._steering.cancel(id)

    def pause(self, id: str) -> bool:
        """Pause a run, also over restarts: nothing of it begins any more, what is running goes on to its end.

        False when it is not running, or is about to end.

        Raises:
            UnknownId: There is no such run or task.
        """
        return self._steering.pause(id)

    def resume(self, id: str) -> bool:
        """Let a paused run go on; False when it is not paused.

        Raises:
            UnknownId: There is no such run or task.
        """
        return self._steering.resume(id)

    def retry(self, id: str) -> bool:
        """Run again what failed or was cancelled of a run that has ended, and what that kept from running.

        What completed keeps its output. The steps have all their attempts again and keep their checkpoints and
        idempotency keys; a deadline does not hold any more. False when nothing of it failed, or it has not ended.

        Raises:
            UnknownId: There is no such run or task.
        """
        return self._steering.retry(id)

    def fork(self, id: str, from_step: str) -> WorkflowRun:
        """Run a workflow again from a step on, as a new run: what does not depend on the step keeps its output.

        Args:
            id: The run; it is left as it is.
            from_step: Name, key or id of a step that the run began with. What had not completed runs as well.

        Raises:
            UnknownId: There is no such run or step.
            InvalidOption: The run is a single task, or the step came into being while the run went on.
        """
        run = self._steering.fork(id, from_step)
        if run is None:
            raise InvalidOption("from_step", from_step, "a step that a workflow's run began with")
        return run

    def failed(
        self,
        *,
        name: str | None = None,
        error_type: str | None = None,
        metadata: Mapping[str, object] | None = None,
        since: datetime | timedelta | None = None,
        limit: int = 100,
    ) -> list[WorkflowRun]:
        """Return runs that failed, newest first; all given conditions must hold.

        Args:
            error_type: Class name of the run's error: ``"ConnectionError"``, ``"WorkerCrashed"``; subclasses count.
            metadata: Entries that the run's metadata must have.
            since: Created at or after this time; a timedelta counts back from now.
        """
        failed = WorkflowStatus.FAILED
        return self.runs(status=failed, name=name, error_type=error_type, metadata=metadata, since=since, limit=limit)

    def retry_all(
        self,
        *,
        name: str | None = None,
        error_type: str | None = None,
        metadata: Mapping[str, object] | None = None,
        since: datetime | timedelta | None = None,
        limit: int = 100,
    ) -> list[WorkflowRun]:
        """Retry what ``failed`` finds, oldest first, and return the runs that go on."""
        found = self.failed(name=name, error_type=error_type, metadata=metadata, since=since, limit=limit)
        going = [run.id for run in reversed(found) if self.retry(run.id)]
        return [WorkflowRun(each, self._handles, self._handles.read_run(each)) for each in going]

    def logs(self, id: str, limit: int = 1000) -> list[LogLine]:
        """Return what the bodies of a run, or of one task, logged through ``current().logger``, oldest first.

        The newest 1,000 lines of a run are kept.

        Raises:
            UnknownId: There is neither.
        """
        return list(self._steering.logs(id, options.at_least_one("limit", limit)))
