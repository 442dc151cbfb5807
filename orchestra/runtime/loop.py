"""The loop of a process's bodies: one asyncio loop on a thread of its own, and how synchronous code waits for it.

``wait`` and ``elsewhere`` are what the code around a body calls. What they do is up to the host of the pool that runs
the body: the asyncio pool parks a greenlet, the embedded worker a thread; without a host they do it themselves.
"""

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Stoppable = Callable[[Callable[[], object]], AbstractContextManager[object]]
"""Knows for a while how a coroutine is stopped: gets a function that does it, on any thread."""
_STOP_S = 1.0


class Abandoned(BaseException):
    """Raised in the tracer of a body that was given up on request: whoever asked has said how it ended."""


class Pause(Protocol):
    """One waiting: ``wait`` returns when ``wake`` has been called, by whomever, before or after."""

    def wait(self) -> None:
        """Wait, once."""
        ...

    def wake(self) -> None:
        """Let it go on. Called once, from any thread."""
        ...


class ThreadPause:
    """Keeps a thread waiting."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self) -> None:
        """Wait, once."""
        self._lock.acquire()

    def wake(self) -> None:
        """Let it go on."""
        self._lock.release()


class Host(Protocol):
    """Where the synchronous code of one body runs."""

    def wait(self, awaitable: Awaitable[T]) -> T:
        """Return what an awaitable comes to, on the loop of the process."""
        ...

    def elsewhere(self, function: Callable[[], T]) -> T:
        """Return what a function returns that may take long, without keeping anybody else waiting."""
        ...

    def pause(self) -> Pause:
        """Return what keeps this body's code waiting, and nobody else."""
        ...

    @property
    def give_up(self) -> Callable[[BaseException], object] | None:
        """Cancels what it waits for and goes on with an error whatever comes of that; None where it must wait."""
        ...


_host: ContextVar[Host | None] = ContextVar("orchestra_host", default=None)
_stoppable: ContextVar[Stoppable | None] = ContextVar("orchestra_stoppable", default=None)


def use(host: Host | None) -> None:
    """Make this context's bodies those of a host."""
    _host.set(host)


@contextmanager
def stoppable(by: Stoppable) -> Generator[None]:
    """Let somebody stop the coroutines that this context waits for."""
    token = _stoppable.set(by)
    try:
        yield
    finally:
        _stoppable.reset(token)


def wait(awaitable: Awaitable[T]) -> T:
    """Wait for an awaitable in synchronous code.

    Raises:
        RuntimeError: This is the thread of a running loop: await it instead.
    """
    if in_coroutine():
        if inspect.iscoroutine(awaitable):
            awaitable.close()
        raise RuntimeError("this is called from a coroutine and would block its event loop; await it instead")
    host, by = _host.get(), _stoppable.get()
    if by is not None:
        awaitable = _stopped_by(by, awaitable, None if host is None else host.give_up)
    return asyncio.run(as_coroutine(awaitable)) if host is None else host.wait(awaitable)


async def _stopped_by(by: Stoppable, awaitable: Awaitable[T], give_up: Callable[[BaseException], object] | None) -> T:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    stop = partial(_safely, loop, task.cancel) if give_up is None else partial(give_up, asyncio.CancelledError())
    with by(stop):
        return await awaitable


def elsewhere(function: Callable[[], T]) -> T:
    """Call a function that may take long: on a thread of its own where others would wait for it."""
    host = None if in_coroutine() else _host.get()
    return function() if host is None else host.elsewhere(function)


def pause() -> Pause:
    """Return what keeps the code here waiting, and as little else as the host allows."""
    host = None if in_coroutine() else _host.get()
    return ThreadPause() if host is None else host.pause()


async def as_coroutine(awaitable: Awaitable[T]) -> T:
    """Await anything."""
    return await awaitable


def in_coroutine() -> bool:
    """Whether this is the thread of a running loop, which must not be blocked."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class BodyLoop:
    """An event loop on a daemonic thread, from its first use to ``stop``."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop; started at the first use."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._run, args=[self._loop], name=self._name, daemon=True)
                self._thread.start()
            return self._loop

    def start(
        self, coroutine: Coroutine[Any, Any, T], context: Context, ended: Callable[["asyncio.Task[T]"], object]
    ) -> Callable[[], None]:
        """Run a coroutine; ``ended`` is called with its task, on the loop's thread. Returns what cancels it."""
        loop = self.loop
        made: list[asyncio.Task[T]] = []

        def begin() -> None:
            made.append(loop.create_task(coroutine, context=context))
            made[0].add_done_callback(ended)

        def cancel() -> None:
            for each in made:
                each.cancel()

        loop.call_soon_threadsafe(begin)
        return lambda: _safely(loop, cancel)

    def stop(self, timeout_s: float = _STOP_S) -> None:
        """Cancel what runs and end the thread; what does not end soon is left behind."""
        with self._lock:
            loop, thread = self._loop, self._thread
        if loop is not None and thread is not None:
            _safely(loop, loop.stop)
            if thread is not threading.current_thread():
                thread.join(timeout_s)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            for task in (pending := asyncio.all_tasks(loop)):
                task.cancel()
            if pending:
                loop.run_until_complete(asyncio.wait(pending, timeout=_STOP_S / 2))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            if not asyncio.all_tasks(loop):
                loop.close()


def _safely(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # closed: nothing runs on it any more
        loop.call_soon_threadsafe(function)


class ThreadHost:
    """The host of a thread that runs one body at a time: it waits, and others have threads of their own."""

    give_up = None

    def __init__(self, bodies: BodyLoop) -> None:
        self._bodies = bodies

    def wait(self, awaitable: Awaitable[T]) -> T:
        """Wait for the loop."""
        over: threading.Event = threading.Event()
        tasks: list[asyncio.Task[T]] = []

        def ended(task: "asyncio.Task[T]") -> None:
            tasks.append(task)
            over.set()

        cancel = self._bodies.start(as_coroutine(awaitable), copy_context(), ended)
        try:
            over.wait()
        except BaseException:
            cancel()
            raise
        return tasks[0].result()

    def elsewhere(self, function: Callable[[], T]) -> T:
        """Call it here."""
        return function()

    def pause(self) -> Pause:
        """Keep the thread waiting."""
        return ThreadPause()
