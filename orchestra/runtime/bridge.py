"""The greenlet bridge: how Celery's synchronous tracer runs coroutines without a thread for each.

A tracer (claim, body, record, hand on) runs as a greenlet of one of a few tracing threads. Its blocking parts, the
store and the broker, block that thread and never the loop. When it comes to a coroutine it parks: the coroutine runs on
the loop, the thread goes on with other tracers, and this one is resumed with what the coroutine came to. Plain
functions are run on body threads in the same way.

The coroutine is stepped inside a greenlet of its own, because Celery keeps the current task and request by greenlet:
``self.request`` is right in a coroutine, however many run.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Generator
from contextvars import Context, copy_context
from queue import SimpleQueue
from typing import Any, TypeVar

from celery import _state
from greenlet import getcurrent, greenlet

from orchestra.runtime.loop import BodyLoop, Pause, ThreadHost, as_coroutine, use

logger = logging.getLogger(__name__)
T = TypeVar("T")
_task_stack: Any = vars(_state)["_task_stack"]
STUBBORN_S = 1.0
"""How long a cancelled coroutine may take to end before it is left behind."""


class TracerThread:
    """A thread on which tracers take turns. ``inbox`` takes what it is to do next."""

    def __init__(self, name: str, prepare: Callable[[], object]) -> None:
        self.inbox: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self.hub: greenlet | None = None
        self._prepare = prepare
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End the thread when it has done what was asked of it."""
        self.inbox.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        self._prepare()
        self.hub = getcurrent()
        while (step := self.inbox.get()) is not None:
            step()
            del step


class BodyThreads:
    """Threads for plain functions: made when all others are taken, kept afterwards."""

    def __init__(self, name: str, limit: int, prepare: Callable[[], object]) -> None:
        self._jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._name, self._limit, self._prepare = name, limit, prepare
        self._lock = threading.Lock()
        self._idle = 0
        self.count = 0

    def submit(self, job: Callable[[], object]) -> None:
        """Run a job on a thread; it waits for one when there are as many as there may be."""
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
            elif self.count < self._limit:
                self.count += 1
                threading.Thread(target=self._run, name=f"{self._name}-{self.count}", daemon=True).start()
        self._jobs.put(job)

    def stop(self) -> None:
        """Let idle threads end; what runs is left to its end."""
        for _ in range(self.count):
            self._jobs.put(None)

    def _run(self) -> None:
        self._prepare()
        while (job := self._jobs.get()) is not None:
            job()
            del job
            with self._lock:
                self._idle += 1


class Trace(greenlet):
    """One tracer, and the host of its body.

    Args:
        target: What to run; it reports its outcome itself and raises nothing.
    """

    def __init__(
        self, thread: TracerThread, bodies: BodyLoop, threads: BodyThreads, target: Callable[[], None]
    ) -> None:
        super().__init__(self._begin, thread.hub)
        self._thread, self._bodies, self._threads, self._target = thread, bodies, threads, target
        self._lock = threading.Lock()
        self._interrupt: Callable[[], None] | None = None
        """Interrupts the coroutine that this tracer waits for."""
        self._given_up: BaseException | None = None
        self._reminder: BaseException | None = None
        self.timers: list[asyncio.TimerHandle] = []
        """What its time limits wait for."""

    def _begin(self) -> None:
        use(self)
        self._target()

    # --- what the tracer calls, on its own thread --------------------------------------------------------------

    def wait(self, awaitable: Awaitable[T]) -> T:
        """Run an awaitable on the loop, and park."""
        context, resume = self._elsewhere_context(), self._parking()
        stepped = self._stepped(as_coroutine(awaitable), _Stacks(), context)
        cancel = self._bodies.start(stepped, context, lambda task: resume(task.result))

        def interrupt() -> None:
            cancel()
            why = self._given_up
            if why is not None:  # and if it does not end, it is left behind
                loop = self._bodies.loop
                loop.call_soon_threadsafe(lambda: loop.call_later(STUBBORN_S, resume, _raiser(why)))

        with self._lock:
            self._interrupt = interrupt
            told_before = self._given_up or self._reminder
        if told_before is not None:
            interrupt()
        try:
            result: T = self._park()
        except asyncio.CancelledError:
            if self._given_up is None:
                raise
            raise self._given_up from None
        finally:
            self._interrupt = None
        if self._given_up is not None:
            raise self._given_up
        return result

    def elsewhere(self, function: Callable[[], T]) -> T:
        """Run a function on a body thread, and park."""
        stacks, context, resume = _Stacks(), self._elsewhere_context(), self._parking()

        def job() -> None:
            try:
                with stacks:
                    result = context.run(function)
            except BaseException as error:
                resume(_raiser(error))
            else:
                resume(lambda: result)

        self._threads.submit(job)
        return self._park()

    def pause(self) -> Pause:
        """Park until somebody wakes it."""
        return _Parked(self._park, self._parking())

    # --- what others call, on any thread -----------------------------------------------------------------------

    def give_up(self, why: BaseException) -> None:
        """Cancel the coroutine, and go on with ``why`` whatever it says. A plain function runs on."""
        with self._lock:
            self._given_up, interrupt = why, self._interrupt
        if interrupt is not None:
            interrupt()

    def remind(self, why: Exception) -> None:
        """Raise an error inside the coroutine, which may deal with it."""
        with self._lock:
            self._reminder, interrupt = why, self._interrupt
        if interrupt is not None:
            interrupt()

    # ------------------------------------------------------------------------------------------------------------

    async def _stepped(self, coroutine: Any, stacks: "_Stacks", context: Context) -> Any:
        # Made here, on the thread of the loop: greenlets never leave their thread.
        stepped = _Stepped(coroutine, stacks, self._take_reminder)
        stepped.gr_context = context
        return await stepped

    def _take_reminder(self) -> BaseException | None:
        with self._lock:
            why, self._reminder = self._reminder, None
            return why if self._given_up is None else None

    def _elsewhere_context(self) -> Context:
        """Return a copy of this context for a body: where it runs, this tracer cannot be parked."""
        context = copy_context()
        context.run(use, ThreadHost(self._bodies))
        return context

    def _parking(self) -> Callable[[Callable[[], Any]], None]:
        """Return what ends the next park, on this tracer's thread; only the first call does."""
        first = threading.Lock()

        def resume(outcome: Callable[[], Any]) -> None:
            if first.acquire(blocking=False):
                self._thread.inbox.put(lambda: self.switch(outcome))

        return resume

    def _park(self) -> Any:
        hub = self._thread.hub
        assert hub is not None
        outcome: Callable[[], Any] = hub.switch()
        return outcome()


class _Parked:
    """A tracer that waits."""

    def __init__(self, park: Callable[[], Any], resume: Callable[[Callable[[], Any]], None]) -> None:
        self._park, self._resume = park, resume

    def wait(self) -> None:
        """Let others run on its thread until then."""
        self._park()

    def wake(self) -> None:
        """Put it in line."""
        self._resume(_nothing)


def _nothing() -> None: ...


def _raiser(error: BaseException) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


class _Stacks:
    """Celery's current task and request, carried from one greenlet or thread to another."""

    def __init__(self) -> None:
        self._task: Any = _task_stack.top
        self._request: Any = None if self._task is None else self._task.request_stack.top

    def __enter__(self) -> None:
        if self._task is not None:
            _task_stack.push(self._task)
            self._task.request_stack.push(self._request)

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.request_stack.pop()
            _task_stack.pop()


class _Stepped(greenlet):
    """A coroutine whose steps all run in this greenlet; awaited by a task of the loop."""

    def __init__(self, coroutine: Any, stacks: _Stacks, instead: Callable[[], BaseException | None]) -> None:
        super().__init__(self._steps)
        self._coroutine, self._stacks, self._instead = coroutine, stacks, instead

    def __await__(self) -> Generator[Any, Any, Any]:
        # The loop's thread enters it each time, from the task that is running then.
        self.parent = getcurrent()
        answer: Any = (self._coroutine.send, None)
        while True:
            done, value = self.switch(*answer)
            if done:
                return value
            try:
                answer = (self._coroutine.send, (yield value))
            except asyncio.CancelledError as cancelled:
                instead = self._instead()
                if instead is not None:
                    task = asyncio.current_task()
                    if task is not None:
                        task.uncancel()
                answer = (self._coroutine.throw, instead or cancelled)
            except BaseException as error:
                answer = (self._coroutine.throw, error)

    def _steps(self, step: Callable[[Any], Any], value: Any) -> tuple[bool, Any]:
        with self._stacks:
            while True:
                try:
                    yielded = step(value)
                except StopIteration as stop:
                    return True, stop.value
                assert self.parent is not None
                step, value = self.parent.switch(False, yielded)
