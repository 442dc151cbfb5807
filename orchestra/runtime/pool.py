"""The embedded worker's pool: a fixed number of daemonic threads and a plain queue.

Where it differs from Celery's own thread pool:

* A thread belongs to one application. The tracer is called with `app=`, and the thread's current application is set
  before each body; the stock pool leaves threads without one and looks tasks up in the *default* application.
* Whatever a body raises, `SystemExit` included, is reported and the thread goes on. The stock pool loses the message
  of a body that raises a BaseException, or of an error outside the body, and with it a prefetch slot.
* Stopping does not wait for bodies. They cannot be interrupted, so they are left behind on daemonic threads, and
  what they report later is ignored by the closed channel.

Coroutines of all threads run on one event loop, as on the asyncio pool, so that they may share what belongs to a loop.

There are no time limits here: the soft and hard limits of a request are not looked at. The engine's watchdog
enforces them. Nor can a job be terminated: `terminate_job` raises NotImplementedError, as in the base class.
"""

# Celery is untyped where a pool meets it.
# pyright: reportUnknownArgumentType=false, reportIncompatibleMethodOverride=false, reportUntypedBaseClass=false

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Condition, Thread, current_thread, get_native_id
from time import monotonic
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.concurrency.base import BasePool
from celery.exceptions import WorkerLostError
from celery.utils import timer2

from orchestra.runtime.loop import Abandoned, BodyLoop, ThreadHost, use

logger = logging.getLogger(__name__)
# Without any handler, Python would print warnings to stderr.
logger.addHandler(logging.NullHandler())

STOP_GRACE_S = 0.1
"""How long a stop waits for bodies that are about to end."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One body to run, and whom to tell."""

    target: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    on_accepted: Callable[[int, float], Any] | None
    on_success: Callable[[Any], Any] | None
    on_error: Callable[[ExceptionInfo], Any] | None


class PromptTimer(timer2.Timer):
    """A timer that sleeps until the next entry is due, notices an earlier one, and stops at once.

    The stock timer wakes every second for nothing, and its `stop` waits for that.
    """

    closing = False
    # Of the base class, whose stubs do not know them.
    schedule: Any
    not_empty: Condition

    def run(self) -> None:
        """Apply entries when they are due."""
        self.running = True
        entries: Iterator[tuple[float | None, Any]] = iter(self.schedule)
        while True:
            with self.not_empty:
                if self.closing:
                    return
                delay, entry = next(entries)
                if entry is None:
                    self.not_empty.wait(delay)
                    continue
            self.schedule.apply_entry(entry)

    def ensure_started(self) -> None:
        """Start the thread on first use; never again after the stop."""
        if not self.closing:
            super().ensure_started()

    def stop(self) -> None:
        """End the thread; entries that are not due are dropped with it."""
        with self.not_empty:
            self.closing = True
            self.not_empty.notify_all()
        if self.is_alive() and self is not current_thread():
            self.join(STOP_GRACE_S)


class ThreadPool(BasePool):
    """Run bodies on `limit` threads of one application.

    `options["name"]` names the threads.
    """

    Timer = PromptTimer
    # Bodies never block one another's results: this pool has no lock that `AsyncResult.get` could hold for ever.
    task_join_will_block = False
    body_can_be_buffer = True
    signal_safe = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._closed = False
        self._bodies = BodyLoop(f"{self.options.get('name', 'orchestra-pool')}-loop")

    def on_start(self) -> None:
        """Start the threads."""
        name = self.options.get("name", "orchestra-pool")
        self._threads = [
            Thread(target=self._work, name=f"{name}-{number}", daemon=True) for number in range(1, self.limit + 1)
        ]
        for thread in self._threads:
            thread.start()

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        callback: Callable[[Any], Any] | None = None,
        accept_callback: Callable[[int, float], Any] | None = None,
        error_callback: Callable[[ExceptionInfo], Any] | None = None,
        **_: Any,
    ) -> None:
        """Queue one body. Called by the consumer, hence never blocks; prefetch bounds the queue."""
        self._jobs.put(Job(target, args or (), kwargs or {}, accept_callback, callback, error_callback))

    def on_stop(self) -> None:
        """Let idle threads end, drop what was not started, and leave running bodies behind after a short grace.

        The messages of both go back to the broker when the channel closes.
        """
        self._closed = True
        deadline = monotonic() + STOP_GRACE_S
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            if thread is not current_thread():
                thread.join(max(0.0, deadline - monotonic()))
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._bodies.stop(STOP_GRACE_S)

    on_terminate = on_stop

    @property
    def num_processes(self) -> int:
        """How many bodies run at a time; Celery multiplies the prefetch count with it."""
        return self.limit

    def _get_info(self) -> dict[str, Any]:
        inherited: Any = super()
        return {**inherited._get_info(), "threads": sum(thread.is_alive() for thread in self._threads)}  # noqa: SLF001

    def _work(self) -> None:
        """Run jobs until the stop: the life of one thread."""
        ident = get_native_id()
        use(ThreadHost(self._bodies))
        while (job := self._jobs.get()) is not None and not self._closed:
            perform(self.app, job, ident)
            # An idle thread must not keep the last request alive.
            del job


def perform(app: Any, job: Job, ident: int) -> None:
    """Run a body in this thread or greenlet and tell how it went. Raises what no callback may hear of."""
    # A body may have created an application of its own, which makes itself current.
    app.set_current()
    try:
        if job.on_accepted is not None:
            job.on_accepted(ident, monotonic())
        outcome = job.target(*job.args, app=app, **job.kwargs)
    except Abandoned:
        raise
    except BaseException as error:
        report, outcome = job.on_error, _failure(error)
    else:
        report = job.on_success
    if report is None:
        return
    try:
        report(outcome)
    except BaseException:
        logger.critical("The outcome of a task could not be reported: %r", outcome, exc_info=True)
        _release(report)


def _failure(error: BaseException) -> ExceptionInfo:
    """Return what `Request.on_failure` understands. Needs to run inside the except block."""
    if isinstance(error, MemoryError):
        # `on_failure` raises a MemoryError again, as a sign that the worker has to go, and acknowledges nothing.
        try:
            raise WorkerLostError(repr(error)) from error
        except WorkerLostError:
            return ExceptionInfo()
    return ExceptionInfo()


def _release(report: Callable[..., Any]) -> None:
    """Settle the message of a request whose callback failed: unsettled, it would hold its prefetch slot for ever."""
    request = getattr(report, "__self__", None)
    if request is None or getattr(request, "acknowledged", True):
        return
    try:
        request.reject(requeue=False)
    except BaseException:
        logger.critical("The message of %r could not be released", request, exc_info=True)
