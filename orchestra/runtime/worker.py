"""The worker pod: Celery's own worker, with a lease and a reconciler as bootsteps."""

import gc
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from celery import Celery, platforms, signals
from celery.apps.worker import Worker
from celery.worker import state

from orchestra.runtime.asyncio_pool import DEFAULT_SLOTS, AsyncioPool
from orchestra.runtime.beat import add_beat
from orchestra.runtime.cycle import Cycle
from orchestra.runtime.leaving import Leaving
from orchestra.runtime.routing import is_redis
from orchestra.runtime.threads import ThreadPool

_OWN_POOLS = {"threads": ThreadPool, "asyncio": AsyncioPool}
_SLOTS = {"solo": 1, "asyncio": DEFAULT_SLOTS}
"""How many bodies run at once where nobody says; elsewhere one per CPU."""
_COLLECT_AFTER = (20_000, 5, 5)
"""New objects until the youngest are looked at, and how often until the next older ones are."""
_WATCH_CHILDREN_S = 0.25
_PATCHED = ("gevent", "eventlet")
"""Pools that take a fork to be one of theirs."""
_THREAD_LEASE = 6
"""Leases are so many times longer where bodies share the interpreter with the heartbeat: C code that holds the
interpreter lock stops it. A process that is gone is seen at once all the same, by its id."""


class Pod(Worker):  # pyright: ignore[reportUntypedBaseClass]
    """Celery's worker program, which one Ctrl-C lets finish as SIGTERM does; another one ends its patience."""

    leaving: Leaving
    hostname: str

    def install_platform_tweaks(self, worker: Any) -> None:
        """Install signal handlers."""
        super().install_platform_tweaks(worker)
        platforms.signals["SIGINT"] = self._interrupted

    def _interrupted(self, *_: Any) -> None:
        if state.should_stop is None:
            state.should_stop = 0  # first of all: another Ctrl-C may interrupt what follows
            text = f"finishing what runs, for {self.leaving.grace_s:g} s at most; Ctrl-C again gives it back now"
            with suppress(OSError):
                os.write(1, f"\norchestra worker: {text}\n".encode())  # a print() may be what was interrupted
            signals.worker_shutting_down.send(sender=self.hostname, sig="SIGINT", how="Warm", exitcode=0)
        else:
            self.leaving.hurry()


def _collect_seldom() -> None:
    """Have less searched for garbage: what is there before the first body is there for good, and bodies make much that
    lives for as long as they wait. With a thousand of them the collector took half of the processor time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


def run_worker(
    app: Celery,
    *,
    pool: str,
    concurrency: int | None,
    queues: Sequence[str],
    name: str | None,
    loglevel: str,
    banner: bool = True,
    grace_s: float | None = None,
    beat: Cycle | None = None,
) -> int:
    """Serve queues until told to stop, and return the exit status. ``beat`` makes the worker fire jobs as well.

    ``banner`` is what Celery prints when it starts. Bodies may go on for ``grace_s`` (default: as the settings say)
    when it is told to stop.
    """
    if beat is not None:
        add_beat(app, beat)
    # Prefetched messages run first in, first out, whatever arrives later. Tasks that acknowledge late are held back by
    # prefetch 1; for adopted ones that acknowledge early, Redis workers fetch only when a slot is free.
    app.conf.worker_prefetch_multiplier = 1
    if is_redis(str(app.conf.broker_url or "")):
        app.conf.worker_disable_prefetch = True
    worker: Any = Pod(
        app=app,
        hostname=name or f"orchestra-{os.getpid()}@{socket.gethostname()}",
        pool=_OWN_POOLS.get(pool, pool),
        concurrency=_SLOTS.get(pool, concurrency) if concurrency is None or pool == "solo" else concurrency,
        queues=list(queues),
        loglevel=loglevel,
        quiet=not banner,
        without_mingle=True,
        without_gossip=True,
        orchestra_grace_s=grace_s,
    )
    _collect_seldom()
    worker.start()
    return int(worker.exitcode or 0)
