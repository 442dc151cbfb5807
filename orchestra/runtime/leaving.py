"""Leaving: what a worker does from when it is told to go until it is gone: it finishes, then gives back what is left.

Only steps are given back. Plain calls of an adopted application are waited for, as Celery does: a message that was
acknowledged early cannot be given back.
"""

import logging
import mmap
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from celery.worker import state

from orchestra.errors import StoreUnavailable
from orchestra.runtime.cycle import Cycle
from orchestra.runtime.stopping import carries_step

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.1
LAST_WORDS_S = 1.0
"""How long bodies that were given back may take to end where the pool cannot end them."""
_REASON = "its worker was told to go"


class Notice:
    """Whether a worker was told to go. Its pool children see it as well: they inherit the page it stands on."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, 1)

    def give(self) -> None:
        """Tell it."""
        self._page[0] = 1

    def __call__(self) -> bool:
        return bool(self._page[0])


class Bodies(Protocol):
    """What a worker that leaves still runs."""

    def end(self) -> int:
        """End the bodies of steps as far as that can be done.

        Returns how many run on that cannot be ended, where nothing else keeps the worker.
        """
        ...

    def abandon(self) -> None:
        """Acknowledge their messages: the process ends with them, and what they carried has been given back."""
        ...


Wait = Callable[[threading.Event, float], object]
"""Waits until an event is set, or for so many seconds."""


class Leaving:
    """The way out of one worker.

    Args:
        grace_s: How long bodies may go on after the worker was told to go.
        release: Gives the lease back.
        leave: Ends the process where a body on one of its own threads would keep it.
        start: Lets something run beside the worker's loop.
    """

    def __init__(
        self,
        cycle: Cycle,
        notice: Notice,
        *,
        grace_s: float,
        release: Callable[[], object],
        leave: Callable[[], object] = lambda: _leave_at_once(),
        start: Callable[[Callable[[], None]], object] = lambda way_out: _start(way_out),
        wait: Wait = threading.Event.wait,
    ) -> None:
        self._cycle, self._notice, self.grace_s = cycle, notice, grace_s
        self._release, self._leave, self._start, self._wait = release, leave, start, wait
        self._enough, self._over = threading.Event(), threading.Event()
        self._begun = False

    def begin(self, bodies: Bodies) -> None:
        """The worker was told to go. A second time does nothing."""
        if not self._begun:
            self._begun = True
            self._notice.give()
            self._start(partial(self._see_to_it, bodies))

    def hurry(self) -> None:
        """The grace period is over."""
        self._enough.set()

    def end(self) -> None:
        """No body runs any more. What one that was killed had claimed is given back."""
        self._over.set()
        self._enough.set()
        if self._begun:
            self._give_back()

    def _see_to_it(self, bodies: Bodies) -> None:
        self._wait(self._enough, self.grace_s)
        waited = 0.0
        while not self._over.is_set():
            self._give_back()
            running_on = bodies.end()
            if running_on and waited >= LAST_WORDS_S:
                logger.warning(
                    "%d bodies run on that cannot be ended; they are left behind with the process", running_on
                )
                bodies.abandon()
                self._release()
                self._leave()
            self._wait(self._over, _LOOK_EVERY_S)
            waited += _LOOK_EVERY_S

    def _give_back(self) -> None:
        """Give back what is claimed. First of all: from then on, what the bodies come to is refused."""
        try:
            given = [
                claim
                for claim in self._cycle.store.held(self._cycle.worker)
                if self._cycle.give_back(claim, _REASON) is not None
            ]
        except StoreUnavailable as error:
            logger.warning("What this worker holds cannot be given back now: %s", error)
            return
        except Exception:
            logger.exception("What this worker holds could not be given back; another look follows")
            return
        if given:
            logger.warning("%d steps did not end within %g s and are given back", len(given), self.grace_s)


class PoolBodies:
    """The bodies in a pool of Celery.

    Args:
        forks: Whether they run in children, which can be killed.
    """

    def __init__(self, pool: Any, *, forks: bool) -> None:
        self._pool, self._forks = pool, forks

    def end(self) -> int:
        """Kill the children, or have the pool end its jobs if it can."""
        running = list(state.active_requests)
        for request in filter(carries_step, running):
            with suppress(NotImplementedError, ProcessLookupError, TypeError):
                if self._forks:
                    os.kill(request.worker_pid, signal.SIGKILL)
                else:
                    self._pool.terminate_job(request.worker_pid)
        return 0 if self._forks or not all(map(carries_step, running)) else len(running)

    def abandon(self) -> None:
        """Acknowledge the messages of those that are active."""
        for request in list(state.active_requests):
            with suppress(Exception):  # a message that is not acknowledged costs a look at it later, and nothing else
                request.message.ack()


def return_messages() -> None:
    """Give steps back to the broker whose bodies have not begun. A double is refused by their claim."""
    for request in set(state.reserved_requests) - set(state.active_requests):
        if carries_step(request) and not request.acknowledged:
            request.acknowledged = True
            with suppress(Exception):  # the connection may be gone, and the message with it to somebody else
                request.message.requeue()


def _start(way_out: Callable[[], None]) -> None:
    threading.Thread(target=way_out, name="orchestra-leaving", daemon=True).start()


def _leave_at_once() -> None:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(0)
