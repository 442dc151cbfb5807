"""Calling: handlers of users, each call within a time, on a thread that can be given up."""

import asyncio
import inspect
import logging
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from orchestra.errors import HandlerTimedOut

logger = logging.getLogger(__name__)

LIMIT_S = 30.0
"""How long a handler may take where nobody says otherwise."""
_LOOK_S, _SOON_S = 1.0, 0.05


class Call(NamedTuple):
    """One call of a handler."""

    make: Callable[[], object]
    limit_s: float
    failed: Callable[[Exception], object]
    """Gets what the handler raised, or HandlerTimedOut."""


class Caller:
    """Calls one handler after the other on a thread of its own. One that takes too long is left behind on it.

    Args:
        name: Of the thread.
        meanwhile: Called about once a second while handlers run.
    """

    def __init__(self, name: str, meanwhile: Callable[[], object] = lambda: None) -> None:
        self._name, self._meanwhile = name, meanwhile
        self._batches: queue.SimpleQueue[_Batch | None] | None = None

    def call(self, make: Callable[[], object], limit_s: float) -> None:
        """Call, and wait until it has returned.

        Raises:
            HandlerTimedOut: It has not; it runs on unheard.
            Exception: Whatever it raised.
        """
        raised: list[Exception] = []
        self.call_all([Call(make, limit_s, raised.append)])
        for each in raised:
            raise each

    def call_all(self, calls: Iterable[Call]) -> None:
        """Call one after the other, and wait until the last has returned: many cost little more than one.

        Which call is next is asked for when the one before has ended.
        """
        batch = _Batch(calls)
        while True:
            if self._batches is None:
                self._batches = queue.SimpleQueue()
                threading.Thread(target=_serve, args=(self._batches,), name=self._name, daemon=True).start()
            self._batches.put(batch)
            late = self._wait(batch)
            if late is None:
                return
            self.close()
            late.failed(HandlerTimedOut(late.limit_s))
            batch = _Batch(batch.rest)

    def _wait(self, batch: "_Batch") -> Call | None:
        """Wait until all is done; or return the call that takes too long, whose thread is given up then."""
        while not batch.over.wait(batch.left_s()):
            late = batch.give_up()
            if late is not None:
                return late
            self._meanwhile()
        return None

    def close(self) -> None:
        """Let the thread end, once what it calls has returned."""
        if self._batches is not None:
            self._batches.put(None)
        self._batches = None


class _Batch:
    """Calls that are made on one thread, and looked after by another."""

    def __init__(self, calls: Iterable[Call]) -> None:
        self.rest = iter(calls)
        self.over = threading.Event()
        self._lock = threading.Lock()
        self._current: tuple[Call, float] | None = None
        """What is being called, and since when."""
        self._given_up = False

    def run(self) -> None:
        """Make the calls, until the last has returned or one took too long."""
        try:
            for each in self.rest:
                self._current = each, time.monotonic()
                error = _made(each)
                with self._lock:
                    if self._given_up:
                        return
                    self._current = None
                if error is not None:
                    each.failed(error)
        finally:
            if not self._given_up:
                self.over.set()

    def left_s(self) -> float:
        """Return how long to wait until the next look."""
        current = self._current
        if current is None:
            return _SOON_S
        return max(0.0, min(_LOOK_S, current[1] + current[0].limit_s - time.monotonic()))

    def give_up(self) -> Call | None:
        """Return the call that takes too long, if one does: what it comes to is not heard any more."""
        with self._lock:
            current = self._current
            if current is None or time.monotonic() - current[1] < current[0].limit_s:
                return None
            self._given_up = True
            return current[0]


def _made(call: Call) -> Exception | None:
    try:
        finish(call.make())
    except Exception as error:
        return error
    except BaseException as error:  # no handler may end the thread of all
        ended = RuntimeError(f"the handler raised {error!r}")
        ended.__cause__ = error
        return ended
    return None


def _serve(batches: "queue.SimpleQueue[_Batch | None]") -> None:
    while (batch := batches.get()) is not None:
        try:
            batch.run()
        except Exception:
            logger.exception("Handlers could not be called")
        del batch


def finish(result: object) -> None:
    """Wait for what an ``async`` handler returned."""
    if inspect.isawaitable(result):
        asyncio.run(_awaited(result))


async def _awaited(result: Awaitable[object]) -> None:
    await result
