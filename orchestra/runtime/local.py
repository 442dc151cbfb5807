"""The local worker: what an embedded orchestrator starts in its own process, and how it ends."""

import os
import threading
import time
from collections.abc import Iterable

from celery import Celery

from orchestra.runtime.adapter import Adapter
from orchestra.runtime.embedded import EmbeddedWorker
from orchestra.runtime.reconciler import Reconciler, ReconcilerThread
from orchestra.runtime.scheduler import Scheduler, SchedulerThread
from orchestra.runtime.transport import MemoryBroker

PATIENCE_S = 30.0
"""How long a step that was found in a state file waits for its function to be defined."""
_LONG_LEASE = 6


class LocalWorker:
    """A worker, its broker, its reconciler and its beat, on threads of this process. Started when first needed."""

    def __init__(
        self,
        app: Celery,
        broker: MemoryBroker,
        adapter: Adapter,
        concurrency: int,
        lease_s: float,
        keep_for_s: float | None,
    ) -> None:
        self._app, self._broker, self._adapter = app, broker, adapter
        self._concurrency, self._lease_s = concurrency, lease_s * _LONG_LEASE
        self._keep_for_s = keep_for_s
        self._lock = threading.Lock()
        self._worker: EmbeddedWorker | None = None
        self._reconciler: ReconcilerThread | None = None
        self._beat: SchedulerThread | None = None
        self._queue: str = app.conf.task_default_queue
        self._queues: set[str] = {self._queue}
        self._stopped = False

    @property
    def running(self) -> bool:
        """Whether it has been started."""
        return self._worker is not None

    @property
    def queues(self) -> set[str]:
        """What it serves: a copy."""
        return set(self._queues)

    def serve(self, queues: Iterable[str]) -> None:
        """Note which queues are used. All of them share the one of the in-process broker."""
        self._queues.update(queues)

    def start(self, *, resuming: bool = False) -> None:
        """Start; a second time does nothing. ``resuming`` gives functions time to be defined."""
        with self._lock:
            if self._worker is not None or self._stopped:
                return
            if resuming:
                self._adapter.registry.patient_until = time.monotonic() + PATIENCE_S
            name = f"embedded-{os.getpid()}"
            worker = EmbeddedWorker(self._app, concurrency=self._concurrency, queues=[self._queue], hostname=name)
            reconciler = Reconciler(
                self._adapter,
                worker=name,
                queues=lambda: sorted(self._queues),
                slots=self._concurrency,
                lease_s=self._lease_s,
                keep_for_s=self._keep_for_s,
                holds=self._adapter.holds,
                busy=self._adapter.busy,
            )
            self._adapter.heard = reconciler.heard
            reconciler.start()
            worker.start()
            self._worker, self._reconciler = worker, ReconcilerThread(reconciler)
            reconciler.resend_all()
            self._reconciler.start()
            self._beat = SchedulerThread(Scheduler(self._adapter.cycle, serve=self.serve))
            self._beat.start()

    def wake_beat(self) -> None:
        """Jobs have changed."""
        if self._beat is not None:
            self._beat.wake()

    def stop(self) -> None:
        """Stop, in well under half a second; bodies that run on are left behind. A second time does nothing."""
        with self._lock:
            self._stopped = True
            if self._worker is None or self._reconciler is None or self._beat is None:
                return
            self._beat.stop()
            self._worker.stop()
            self._adapter.closed = True
            self._reconciler.stop()
            self._broker.clear()
            self._app.close()
