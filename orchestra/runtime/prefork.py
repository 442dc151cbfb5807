"""Prefork: Celery's pool of processes, which takes a worker that stops less time to leave.

The stock pool needs two seconds, also when nothing runs: a child that ends says so and waits for a second to be killed,
by a parent that does not listen any more; and the parent looks twice a second whether its pool has ended.
"""

# Celery is untyped where a pool meets it.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUntypedBaseClass=false

import os
from collections.abc import Callable
from typing import Any

from billiard.pool import CLOSE, EX_OK, RUN  # pyright: ignore[reportMissingTypeStubs]
from celery.worker import state


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

    class Processes(pool.Pool):
        """The processes."""

        Worker = Child

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
