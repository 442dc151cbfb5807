"""The worker pod: Celery's own worker, with a reconciler as a bootstep."""

import os
import socket
from collections.abc import Sequence
from typing import Any

from celery import Celery, bootsteps, signals

from orchestra.runtime.adapter import Adapter
from orchestra.runtime.reconciler import Reconciler, ReconcilerThread

POOLS = ("prefork", "threads", "solo")
_THREAD_LEASE = 6
"""Leases are so many times longer where bodies share the interpreter with the heartbeat: C code that holds the
interpreter lock stops it. A process that is gone is seen at once all the same, by its id."""


def reconciler_step(adapter: Adapter, lease_s: float) -> type[Any]:
    """Return the bootstep that gives a worker its incarnation and its reconciler."""

    class ReconcilerStep(bootsteps.StartStopStep):  # pyright: ignore[reportUntypedBaseClass]
        """Runs in the parent process of every pool."""

        requires = ("celery.worker.components:Pool",)

        def __init__(self, parent: Any, **options: Any) -> None:
            super().__init__(parent, **options)
            # Before the pool forks: its children claim under the incarnation that they inherit.
            forks = "prefork" in getattr(parent.pool_cls, "__module__", str(parent.pool_cls))
            self._thread = ReconcilerThread(
                Reconciler(
                    adapter,
                    worker=parent.hostname,
                    queues=lambda: list(parent.app.amqp.queues.consume_from),
                    slots=parent.concurrency or 1,
                    lease_s=lease_s if forks else lease_s * _THREAD_LEASE,
                )
            )

        def start(self, parent: Any) -> None:
            reconciler = self._thread.reconciler
            signals.task_received.connect(lambda **_: reconciler.heard(), weak=False)
            reconciler.start()
            self._thread.start()

        def stop(self, parent: Any) -> None:
            self._thread.stop()

        terminate = stop

    return ReconcilerStep


def run_worker(
    app: Celery, *, pool: str, concurrency: int | None, queues: Sequence[str], name: str | None, loglevel: str
) -> int:
    """Serve queues until told to stop, and return the exit status."""
    # Prefetched messages run first in, first out, whatever arrives later. Tasks that acknowledge late are held back by
    # prefetch 1; for adopted ones that acknowledge early, Redis workers fetch only when a slot is free.
    app.conf.worker_prefetch_multiplier = 1
    if str(app.conf.broker_url or "").startswith("redis"):
        app.conf.worker_disable_prefetch = True
    worker: Any = app.Worker(
        hostname=name or f"orchestra-{os.getpid()}@{socket.gethostname()}",
        pool=pool,
        concurrency=1 if pool == "solo" else concurrency,
        queues=list(queues),
        loglevel=loglevel,
        without_mingle=True,
        without_gossip=True,
    )
    worker.start()
    return int(worker.exitcode or 0)
