"""The local worker: what an embedded orchestrator starts in its own process, and how it ends."""

import os
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar

from celery import Celery

from orchestra.runtime.adapter import Adapter
from orchestra.runtime.embedded import EmbeddedWorker
from orchestra.runtime.reconciler import Reconciler, ReconcilerThread
from orchestra.runtime.scheduler import Scheduler, SchedulerThread
from orchestra.runtime.transport import MemoryBroker

PATIENCE_S = 30.0
"""How long a step that was found in a state file waits for its function to be defined."""
_LONG_LEASE = 6


_asleep: ContextVar[bool] = ContextVar("orchestra_asleep", default=False)


@contextmanager
def asleep() -> Generator[None]:
    """Have workers that are made meanwhile wait until they are woken: who only looks must not begin to work."""
    token = _asleep.set(True)
    try:
        yield
    finally:
        _asleep.reset(token)


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
        self._asleep = _asleep.get()

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

    def wake(self, *, events: bool = False) -> None:
        """Start, although it was made asleep, and go on with what the store holds."""
        self._asleep = False
        self.start(resuming=True, events=events)

    def start(self, *, resuming: bool = False, events: bool = False) -> None:
        """Start, unless it is asleep; a second time does nothing.

        Args:
            resuming: Gives functions time to be defined.
            events: Sends task events and answers remote control, for a Flower in this process.
        """
        with self._lock:
            if self._worker is not None or self._stopped or self._asleep:
                return
            if resuming:
                self._adapter.registry.patient_until = time.monotonic() + PATIENCE_S
            name = f"embedded-{os.getpid()}"
            self._adapter.monitored = events
            worker = EmbeddedWorker(
                self._app, concurrency=self._concurrency, queues=[self._queue], hostname=name, events=events
            )
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
