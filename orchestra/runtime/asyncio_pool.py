"""The asyncio pool: a Celery worker pool whose ``async def`` tasks run concurrently on one event loop.

It is of use without the rest of Orchestra:

    CELERY_CUSTOM_WORKER_POOL=orchestra.runtime.asyncio_pool:AsyncioPool celery -A app worker -P custom -c 1000

or ``app.conf.worker_pool = "orchestra.runtime.asyncio_pool:AsyncioPool"``. Celery's own tracer runs every task:
signals, acks, ``self.request``, retries, chains, chords, results and ``revoke(terminate=True)`` work as in other pools.

* Soft time limits raise SoftTimeLimitExceeded inside the coroutine; hard ones cancel it, and the task has failed with
  TimeLimitExceeded. Terminating a task cancels its coroutine. A coroutine that never awaits cannot be stopped.
* Plain functions run on threads, at most as many as the pool has slots. They have no time limits.
* A task that a coroutine starts (``asyncio.create_task``) does not see Celery's ``current_task``.
"""

# Celery is untyped where a pool meets it.
# pyright: reportUntypedBaseClass=false, reportUnknownArgumentType=false, reportIncompatibleMethodOverride=false

import functools
import itertools
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from inspect import iscoroutinefunction, unwrap
from time import monotonic
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded  # pyright: ignore[reportMissingTypeStubs]
from celery.concurrency.base import BasePool
from celery.exceptions import ImproperlyConfigured

from orchestra.runtime.bridge import BodyThreads, Trace, TracerThread
from orchestra.runtime.loop import Abandoned, BodyLoop, in_coroutine, wait
from orchestra.runtime.pool import Job, perform
from orchestra.runtime.threads import wake_consumer

TRACERS = 2
"""Threads on which tracers take turns: so many store or broker operations may be under way at once."""
DEFAULT_SLOTS = 100
_STOP_S = 1.0


class AsyncioPool(BasePool):
    """Run coroutines on one loop, and plain functions on threads; ``limit`` is how many of both at once."""

    signal_safe = False
    body_can_be_buffer = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if os.environ.get("USE_FAST_LOCALS"):
            raise ImproperlyConfigured("the asyncio pool does not work with USE_FAST_LOCALS; unset that variable")
        self._bodies = BodyLoop("orchestra-loop")
        self._threads = BodyThreads("orchestra-body", self.limit, self._prepare)
        self._numbers = itertools.count(1)
        self._running: dict[int, Trace | None] = {}
        """By the number that Celery takes for a process id; None for plain tasks, which cannot be stopped."""
        self._idle = threading.Condition()
        self._plain: dict[str, bool] = {}
        self._tracers: list[TracerThread] = []

    # --- Celery's pool interface ---------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Start the threads, and make every ``async def`` task of the application one that the tracer can call."""
        bridge_tasks(self.app)
        self._tracers = [TracerThread(f"orchestra-tracer-{n}", self._prepare) for n in range(1, TRACERS + 1)]

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        callback: Callable[[Any], Any] | None = None,
        accept_callback: Callable[[int, float], Any] | None = None,
        error_callback: Callable[[Any], Any] | None = None,
        soft_timeout: float | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> None:
        """Run one task. Called by the consumer, hence never blocks."""
        job = Job(target, args or (), kwargs or {}, accept_callback, callback, error_callback)
        number = next(self._numbers)
        if self._is_plain(args):
            self._running[number] = None
            self._threads.submit(lambda: self._perform(number, job))
            return
        thread = self._tracers[number % len(self._tracers)]
        soft_s, hard_s = soft_timeout or self.options.get("soft_timeout"), timeout or self.options.get("timeout")

        def begin() -> None:
            trace = Trace(thread, self._bodies, self._threads, lambda: self._perform(number, job))
            self._running[number] = trace
            self._limit(trace, soft_s, hard_s)
            trace.switch()

        self._running[number] = None
        thread.inbox.put(begin)

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """Cancel a coroutine; a plain function runs on, unheard."""
        trace = self._running.get(pid)
        if trace is not None:
            trace.give_up(Abandoned())

    def on_stop(self) -> None:
        """Wait for everything that runs."""
        with self._idle:
            while self._running:
                self._idle.wait()
        self._end(_STOP_S)

    def on_terminate(self) -> None:
        """Cancel everything that runs, and leave behind what does not end at once."""
        for number in tuple(self._running):
            self.terminate_job(number)
        with self._idle:
            self._idle.wait_for(lambda: not self._running, _STOP_S)
        self._end(0.0)

    def grow(self, n: int = 1) -> None:
        """Add slots."""
        self.limit += n

    def shrink(self, n: int = 1) -> None:
        """Take slots away."""
        self.limit -= n

    def _get_info(self) -> dict[str, Any]:
        inherited: Any = super()
        return {**inherited._get_info(), "running": len(self._running), "threads": self._threads.count}  # noqa: SLF001

    # ------------------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        self.app.set_current()

    def _perform(self, number: int, job: Job) -> None:
        try:
            perform(self.app, job, number)
        except Abandoned:
            pass
        finally:
            was_full = len(self._running) >= self.limit
            self._disarm(self._running.pop(number, None))
            if not self._running:
                with self._idle:
                    self._idle.notify_all()
            if was_full:
                wake_consumer()

    def _limit(self, trace: Trace, soft_s: float | None, hard_s: float | None) -> None:
        if soft_s is None and hard_s is None:
            return
        loop, begun = self._bodies.loop, monotonic()

        def arm() -> None:
            passed = monotonic() - begun
            if soft_s is not None:
                trace.timers.append(loop.call_later(soft_s - passed, trace.remind, SoftTimeLimitExceeded(soft_s)))
            if hard_s is not None:
                trace.timers.append(loop.call_later(hard_s - passed, trace.give_up, TimeLimitExceeded(hard_s)))

        loop.call_soon_threadsafe(arm)

    def _disarm(self, trace: Trace | None) -> None:
        for timer in () if trace is None else trace.timers:
            self._bodies.loop.call_soon_threadsafe(timer.cancel)

    def _is_plain(self, args: Sequence[Any] | None) -> bool:
        """Whether a task is known to be no coroutine before it runs. The carrier of steps is found out later."""
        name = args[0] if args else None
        if not isinstance(name, str):
            return False
        if name not in self._plain:
            task = self.app.tasks.get(name)
            self._plain[name] = task is not None and not getattr(task, "may_await", False) and not bridge_task(task)
        return self._plain[name]

    def _end(self, timeout_s: float) -> None:
        for thread in self._tracers:
            thread.stop(timeout_s)
        self._threads.stop()
        self._bodies.stop()


def bridge_tasks(app: Any) -> None:
    """Make the workers of an application wait for what its ``async def`` tasks come to, on whatever pool."""
    app.finalize()
    for task in app.tasks.values():
        bridge_task(task)


def bridge_task(task: Any) -> bool:
    """Make the tracer wait for the coroutine of an ``async def`` task; False for a plain one.

    It goes below ``autoretry_for``, whose wrapper has to see what the coroutine raises.
    """
    name = "_orig_run" if hasattr(task, "_orig_run") else "run"
    run = getattr(task, name)
    if getattr(run, "__func__", run).__dict__.get("orchestra_bridged", False):
        return True
    if not iscoroutinefunction(unwrap(run)):
        return False

    @functools.wraps(run)
    def bridged(*args: Any, **kwargs: Any) -> Any:
        coroutine = run(*args, **kwargs)
        return coroutine if in_coroutine() else wait(coroutine)  # a coroutine that calls the task awaits it itself

    bridged.__dict__["orchestra_bridged"] = True
    setattr(task, name, bridged)
    return True
