"""Calling: handlers of users, each call within a time, on a thread that can be given up."""

import asyncio
import inspect
import queue
import threading
from collections.abc import Awaitable, Callable

from orchestra.errors import HandlerTimedOut

Call = Callable[[], object]
LIMIT_S = 30.0
"""How long a handler may take where nobody says otherwise."""
_LOOK_S = 1.0


class Caller:
    """Calls one handler after the other on a thread of its own. One that takes too long is left behind on it.

    Args:
        name: Of the thread.
        meanwhile: Called about once a second while a handler runs.
    """

    def __init__(self, name: str, meanwhile: Call = lambda: None) -> None:
        self._name, self._meanwhile = name, meanwhile
        self._calls: queue.SimpleQueue[tuple[Call, _Outcome] | None] | None = None

    def call(self, call: Call, limit_s: float) -> None:
        """Call, and wait until it has returned.

        Raises:
            HandlerTimedOut: It has not; it runs on unheard.
            Exception: Whatever it raised.
        """
        if self._calls is None:
            self._calls = queue.SimpleQueue()
            threading.Thread(target=_serve, args=(self._calls,), name=self._name, daemon=True).start()
        outcome = _Outcome()
        self._calls.put((call, outcome))
        waited = 0.0
        while not outcome.over.wait(min(_LOOK_S, max(0.0, limit_s - waited))):
            waited += min(_LOOK_S, limit_s - waited)
            if waited >= limit_s:
                self.close()
                raise HandlerTimedOut(limit_s)
            self._meanwhile()
        if outcome.error is not None:
            raise outcome.error

    def close(self) -> None:
        """Let the thread end, once what it calls has returned."""
        if self._calls is not None:
            self._calls.put(None)
        self._calls = None


class _Outcome:
    def __init__(self) -> None:
        self.over = threading.Event()
        self.error: BaseException | None = None


def _serve(calls: "queue.SimpleQueue[tuple[Call, _Outcome] | None]") -> None:
    while (given := calls.get()) is not None:
        call, outcome = given
        try:
            finish(call())
        except BaseException as error:  # it is raised where it was called from
            outcome.error = error
        outcome.over.set()
        del given, call, outcome


def finish(result: object) -> None:
    """Wait for what an ``async`` handler returned."""
    if inspect.isawaitable(result):
        asyncio.run(_awaited(result))


async def _awaited(result: Awaitable[object]) -> None:
    await result
