"""Beats as processes of their own: under ``celery beat -S orchestra``, as ``orchestra beat``, and inside a worker.

Stock ``beat_schedule`` entries are kept beside jobs. When an entry was sent last is in the store, and whoever changes
that sends it; so they too are sent once by any number of beats, and no beat needs a file.
"""

# Celery is untyped where its beat is extended.
# pyright: reportUntypedBaseClass=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportIncompatibleMethodOverride=false

import logging
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from celery import Celery, bootsteps
from celery.beat import Scheduler as CeleryScheduler

from orchestra.errors import SettingsError
from orchestra.model.record import JobRecord
from orchestra.model.schedule import JobStatus, Schedule, ScheduleType
from orchestra.runtime.adapter import Adapter
from orchestra.runtime.cycle import Cycle
from orchestra.runtime.health import ReconcilerHealth
from orchestra.runtime.jobs import STOCK
from orchestra.runtime.observing import Watch
from orchestra.runtime.reconciler import Reconciler
from orchestra.runtime.registry import GENERIC
from orchestra.runtime.scheduler import Scheduler, SchedulerThread, Stoppable
from orchestra.store.contract import Store

logger = logging.getLogger(__name__)
_NEVER = Schedule(ScheduleType.INTERVAL)


class BeatScheduler(CeleryScheduler):
    """What ``celery -A … beat -S orchestra`` runs: the jobs of the store, and the application's own entries."""

    # The service sleeps for as long as a tick says, and cannot be woken.
    max_interval = 1

    def __init__(self, app: Celery, *args: Any, **kwargs: Any) -> None:
        kwargs.pop("schedule_filename", None)
        adapter = _adapter_of(app)
        self._cycle = adapter.cycle
        self._jobs = Reconciling(Scheduler(self._cycle), adapter)

        super().__init__(app, *args, **{**kwargs, "max_interval": self.max_interval})

    def setup_schedule(self) -> None:
        """Take the entries of the configuration; when each was sent last is in the store."""
        self.merge_inplace(self.app.conf.beat_schedule)
        self.install_default_entries(self.schedule)
        for entry in self.schedule.values():
            kept = self._kept(entry)
            if kept.last_run_at is not None:
                entry.last_run_at = self._moment(entry, kept.last_run_at)

    def tick(self, *_args: Any, **_kwargs: Any) -> float:
        """Fire what is due, and return how many seconds the next tick may wait."""
        wait = self._jobs.turn()
        for name in list(self.schedule):
            try:
                wait = min(wait, self._look(self.schedule[name]))
            except Exception:
                logger.exception("The entry %r cannot be looked at", name)
        return wait

    turn = tick

    @property
    def reconciler(self) -> Reconciler:
        """The one that turns with it."""
        return self._jobs.reconciler

    @property
    def info(self) -> str:
        """What the banner says."""
        return f"    . store -> {self._cycle.store.url}"

    def _look(self, entry: Any) -> float:
        is_due, wait = entry.is_due()
        if not is_due:
            return max(0.001, wait)
        kept = self._kept(entry)
        last = None if kept.last_run_at is None else self._moment(entry, kept.last_run_at)
        if last is not None and entry.last_run_at is not None and last > entry.last_run_at:
            entry.last_run_at = last  # another beat has sent it
            is_due, wait = entry.is_due()
            if not is_due:
                return max(0.001, wait)
        following: Any = self.reserve(entry)
        if self._take(kept, following.last_run_at.timestamp()):
            self.apply_entry(entry, producer=self.producer)
        return max(0.001, wait)

    def _take(self, kept: JobRecord, at: float) -> bool:
        return self._store.put_job(replace(kept, last_run_at=at, runs=kept.runs + 1)) is not None

    def _kept(self, entry: Any) -> JobRecord:
        """Return what the store knows of an entry."""
        job_id = STOCK + entry.name
        found = self._store.job(job_id)
        if found is not None:
            return found
        begun = entry.last_run_at.timestamp() if entry.last_run_at else time.time()
        made = JobRecord(job_id, entry.name, _NEVER, {}, begun, JobStatus.PAUSED, last_run_at=begun)
        return self._store.put_job(made) or self._store.job(job_id) or made

    def _moment(self, entry: Any, at: float) -> datetime:
        return datetime.fromtimestamp(at, entry.last_run_at.tzinfo if entry.last_run_at else UTC)

    @property
    def _store(self) -> Store:
        return self._cycle.store


def _adapter_of(app: Celery) -> Adapter:
    """Return the adapter of the orchestrator that an application belongs to."""
    adapter = getattr(app.tasks.get(GENERIC), "orchestra", None)
    if adapter is None:
        raise SettingsError(
            f"no Orchestrator has adopted {app!r}: make one with Orchestrator(app=app, store=…) in the module that"
            " celery -A names"
        )
    return adapter


class Reconciling:
    """Turns a scheduler and a reconciler: while no worker lives, somebody has to see what becomes of their steps."""

    def __init__(self, inner: Stoppable, adapter: Adapter) -> None:
        self._inner, self.reconciler = inner, Reconciler(adapter, worker=None, lease_s=adapter.lease_s)
        self._inner_at = 0.0

    def turn(self) -> float:
        """Turn each that is due, and return how many seconds the next turn may wait."""
        if time.monotonic() >= self._inner_at:
            self._inner_at = time.monotonic() + self._inner.turn()
        wait = self.reconciler.turn()
        return max(0.0, min(wait, self._inner_at - time.monotonic()))


def run_beat(app: Celery, adapter: Adapter, watch: Watch, *, stock: bool, ready: Callable[[], object]) -> None:
    """Be a beat until told to stop by SIGTERM or Ctrl-C.

    Args:
        stock: Look after the application's own ``beat_schedule`` as well.
    """
    inner = BeatScheduler(app) if stock else Reconciling(Scheduler(adapter.cycle), adapter)
    adapter.cycle.observe = watch.prepare(ReconcilerHealth(inner.reconciler))
    thread = SchedulerThread(inner)

    def leave(_number: int, _frame: object) -> None:
        thread.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    watch.start()
    ready()
    thread.run()
    watch.stop()


def add_beat(app: Celery, cycle: Cycle) -> None:
    """Make the workers of an application carry a beat."""

    class BeatStep(bootsteps.StartStopStep):
        """A beat on a thread of the worker's parent process, from when the pool has forked its first children."""

        requires = ("celery.worker.components:Pool",)

        def __init__(self, parent: Any, **options: Any) -> None:
            super().__init__(parent, **options)
            self._thread = SchedulerThread(Scheduler(cycle))

        def start(self, parent: Any) -> None:
            self._thread.start()

        def stop(self, parent: Any) -> None:
            self._thread.stop()

        terminate = stop

    app.steps["worker"].add(BeatStep)
