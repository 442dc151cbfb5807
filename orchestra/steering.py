"""Steering: how people steer runs and look after those that failed."""

from collections.abc import Sequence

from orchestra.handles import Handles
from orchestra.lifetime import Lifetime
from orchestra.model.ids import new_id
from orchestra.model.record import LogLine
from orchestra.model.task import WorkflowRun
from orchestra.store.values import Recorded
from orchestra.wiring import Parts


class Steering:
    """What ``Orchestrator`` offers for runs that exist."""

    def __init__(self, parts: Parts, lifetime: Lifetime, handles: Handles) -> None:
        self._parts, self._lifetime, self._handles = parts, lifetime, handles
        self._clock = parts.cycle.clock

    def cancel(self, id: str) -> bool:
        """Cancel a run or a task."""
        store = self._lifetime.store
        run_id, n = (id, None) if store.run(id) is not None else self._handles.find_step(id).ref
        return self._send(store.cancel(run_id, n, self._clock()))

    def pause(self, id: str) -> bool:
        """Pause a run."""
        return self._send(self._lifetime.store.pause(self._run_of(id), self._clock()))

    def resume(self, id: str) -> bool:
        """Let a paused run go on."""
        run_id = self._run_of(id)
        self._serve(run_id)
        return self._send(self._lifetime.store.resume(run_id, self._clock()))

    def retry(self, id: str) -> bool:
        """Run again what failed of a run."""
        run_id = self._run_of(id)
        self._serve(run_id)
        return self._send(self._lifetime.store.retry(run_id, self._clock()))

    def fork(self, id: str, from_step: str) -> WorkflowRun | None:
        """Run again what depends on a step, as a new run."""
        run_id = self._run_of(id)
        step = self._handles.find_step(from_step, run_id)
        self._serve(run_id)
        created = self._lifetime.store.fork(run_id, new_id(), step.ref.n, self._clock())
        if created is None:
            return None
        self._parts.cycle.send(created.dispatches)
        return WorkflowRun(created.run_id, self._handles)

    def logs(self, id: str, limit: int) -> Sequence[LogLine]:
        """Return what the bodies of a run, or of a task, logged."""
        store = self._lifetime.store
        run_id, n = (id, None) if store.run(id) is not None else self._handles.find_step(id).ref
        return store.logs(run_id, n, limit)

    def _run_of(self, id: str) -> str:
        return id if self._lifetime.store.run(id) is not None else self._handles.find_step(id).ref.run_id

    def _serve(self, run_id: str) -> None:
        """An embedded orchestrator runs itself what is opened again."""
        self._lifetime.check()
        local = self._parts.local
        if local is not None:
            local.serve({each.queue for each in self._lifetime.store.steps(run_id)})
            local.start()

    def _send(self, recorded: Recorded | None) -> bool:
        if recorded is not None:
            self._parts.cycle.send(recorded.dispatches)
        return recorded is not None
