"""Prefork: Celery's pool of processes, which takes a worker that stops less time to leave.

The stock pool needs two seconds, also when nothing runs: a child that ends says so and waits for a second to be killed,
by a parent that does not listen any more; and the parent looks twice a second whether its pool has ended, and twice a
second at each child that has nothing to say.

It can take thirty more: a child that was given a task a moment before, and has not said yet that it began, is taken for
one that never will. Nobody listens to it then, and it waits for somebody to have read what the task came to.
"""

# Celery is untyped where a pool meets it.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUntypedBaseClass=false

import os
import select
from collections.abc import Callable, Collection
from typing import Any

from billiard.pool import CLOSE, EX_OK, RUN, TERMINATE, WorkersJoined  # pyright: ignore[reportMissingTypeStubs]
from celery.worker import state

_LOOK_EVERY_S = 0.02


def quick_to_stop(pool: Any, leaving: Callable[[], bool]) -> Any:
    """Return Celery's prefork pool, such that it stops without waiting for what does not come.

    Args:
        pool: The class of the pool.
        leaving: Whether the worker was told to go; seen by its children, too.
    """

    class Child(pool.Pool.Worker):
        """One process."""

        def _do_exit(self, pid: int, exitcode: int | None, exc: BaseException | None = None) -> None:
            # What it came to has been read: the loop that it comes from waits for that.
            if leaving() and exc is None:
                status = EX_OK if exitcode is None else exitcode
                if self.on_exit is not None:
                    self.on_exit(pid, status)
                os._exit(status)
            super()._do_exit(pid, exitcode, exc)

    class Listener(pool.Pool.ResultHandler):
        """Reads what the children say."""

        def on_stop_not_started(self) -> None:
            """Listen until the last child has ended, whether or not its task is one that is waited for."""
            deaf: set[int] = set()
            while self._state != TERMINATE:
                if self.check_timeouts is not None:
                    self.check_timeouts()
                for fd in _readable(self.fileno_to_outq.keys() - deaf):
                    try:
                        self._flush_outqueue(fd, deaf.add, self.fileno_to_outq, self.on_state_change)
                    except (OSError, AttributeError):  # its pipe was closed meanwhile
                        deaf.add(fd)
                try:
                    self.join_exited_workers(shutdown=True)
                except WorkersJoined:
                    return

    class Processes(pool.Pool):
        """The processes."""

        Worker, ResultHandler = Child, Listener

    class Prefork(pool):
        """The pool."""

        Pool = Processes

        def on_stop(self) -> None:
            """Wait for all children. While bodies run, the stock pool keeps the broker's heartbeats up meanwhile."""
            inner = self._pool
            if state.reserved_requests or inner is None or inner._state not in (RUN, CLOSE):  # noqa: SLF001
                super().on_stop()
            else:
                inner.close()
                inner.join()
                self._pool = None

    Prefork.__module__ = pool.__module__  # the name by which others know that it forks
    return Prefork


def _readable(fds: Collection[int]) -> list[int]:
    """Wait a moment for something to read, and return where there is something. A closed pipe has its end to read."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _event in poll.poll(1000 * _LOOK_EVERY_S)]
