"""Reports: what only Celery knows of a worker, written to the log of events beside its work.

That a message was received is not among it: an event of each would cost a step a third transaction, and say nothing
that its start does not say a moment later. It is counted, for metrics, and monitors such as Flower hear of each.
"""

import logging
import os
import threading
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Any

from billiard.exceptions import WorkerLostError  # pyright: ignore[reportMissingTypeStubs]
from celery import signals

from orchestra.model.ids import MessageRef
from orchestra.runtime.adapter import Adapter, is_step
from orchestra.runtime.observing import Measure, Sample
from orchestra.runtime.routing import HEADER

logger = logging.getLogger(__name__)

Report = tuple[str, Mapping[str, object], float]
"""Type, data and time of an event."""


class Reports:
    """Writes down what Celery's signals say of one worker, in its parent process and in its children.

    On a thread of its own: the store may be away, and the worker's loop has other messages.

    Args:
        worker: Name of the worker, for people.
    """

    def __init__(self, adapter: Adapter, worker: str) -> None:
        self._adapter, self._worker = adapter, worker
        self._writer: int | None = None
        self._waiting = SimpleQueue[Report]()

    def connect(self) -> None:
        """Begin to listen. Before the pool forks, so that its children do as well."""
        signals.task_received.connect(self._received, weak=False)
        signals.task_revoked.connect(self._revoked, weak=False)
        signals.task_failure.connect(self._failed, weak=False)
        signals.task_internal_error.connect(self._internal_error, weak=False)

    def _received(self, request: Any, **_: Any) -> None:
        observe = self._adapter.cycle.observe
        if observe is not None:
            observe([Sample(Measure.RECEIVED, 1, (str(request.delivery_info.get("routing_key") or ""),))])

    def _revoked(self, request: Any, terminated: bool, **_: Any) -> None:
        about = _about(request.shadow or request.task, request.id, is_step=is_step(request))
        self._write("worker.task_revoked", {**about, "terminated": bool(terminated)})

    def _failed(self, sender: Any, exception: BaseException, **_: Any) -> None:
        # A child that the worker itself ended, since it was told to go, has not crashed.
        if isinstance(exception, WorkerLostError) and not self._adapter.leaving():
            request = sender.request
            # A child goes on with other steps after the one of its message.
            celery_id = self._adapter.now_at(request.id) or request.id
            name = request.shadow or request.task if celery_id == request.id else None
            about = _about(name, celery_id, is_step=is_step(request))
            self._write("worker.process_crashed", {**about, "error": str(exception)})

    def _internal_error(
        self, sender: Any, task_id: str, request: Mapping[str, Any], exception: BaseException, **_: Any
    ) -> None:
        about = _about(request.get("shadow") or sender.name, task_id, is_step=bool(request.get(HEADER)))
        self._write("worker.internal_error", {**about, "error": f"{type(exception).__name__}: {exception}"})

    def _write(self, event_type: str, data: Mapping[str, object]) -> None:
        if self._writer != os.getpid():  # a child has threads of its own
            waiting = SimpleQueue[Report]()
            threading.Thread(target=self._write_all, args=[waiting], name="orchestra-reports", daemon=True).start()
            self._waiting, self._writer = waiting, os.getpid()
        self._waiting.put((event_type, data, self._adapter.cycle.clock()))

    def _write_all(self, waiting: SimpleQueue[Report]) -> None:
        while True:
            event_type, data, at = waiting.get()
            try:
                self._adapter.cycle.store.emit(event_type, data, at, worker=self._worker)
            except Exception as error:
                logger.warning("%s of %s is not in the log of events: %s", event_type, data, error)


def _about(name: str | None, celery_id: str, *, is_step: bool) -> dict[str, object]:
    """Return what a request is of: a step, or a plain call of an adopted application. A name may not be known."""
    named: dict[str, object] = {} if name is None else {"task": name}
    if not is_step:
        return {**named, "celery_id": celery_id}
    step = MessageRef.parse(celery_id).step
    return {**named, "run_id": step.run_id, "step_id": str(step)}
