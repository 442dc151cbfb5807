"""Interrupting: coroutines whose claims count no more are stopped. One look at the store serves all of a process."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from orchestra.store.contract import ClaimRef

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class _Running:
    claim: ClaimRef
    stop: Callable[[], object]


class Interrupter:
    """Stops what was cancelled, ran out of time or was given to another worker.

    It has a thread for as long as coroutines run, and asks nothing of the store for those that end at once.

    Args:
        standing: Asks the store which claims of this worker count.
    """

    def __init__(self, standing: Callable[[], Collection[ClaimRef]]) -> None:
        self._standing = standing
        self._lock = threading.Lock()
        self._running: set[_Running] = set()
        self._looking = False

    @contextmanager
    def over(self, claim: ClaimRef, stop: Callable[[], object]) -> Generator[None]:
        """Watch over a coroutine of a claim; ``stop`` is called once, on any thread."""
        running = _Running(claim, stop)
        with self._lock:
            self._running.add(running)
            begin, self._looking = not self._looking, True
        if begin:
            threading.Thread(target=self._look_on, name="orchestra-interrupter", daemon=True).start()
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(running)

    def _look_on(self) -> None:
        while True:
            time.sleep(LOOK_EVERY_S)
            with self._lock:
                # Taken before the store is asked: their claims were made before, so what it does not know has ended.
                suspects = set(self._running)
                if not suspects:
                    self._looking = False
                    return
            try:
                standing = frozenset(self._standing())
            except Exception as error:  # whoever cannot ask lets them go on
                logger.debug("It cannot be said now which coroutines are to be stopped: %r", error)
                continue
            for each in suspects:
                if each.claim not in standing:
                    self._stop(each)

    def _stop(self, running: _Running) -> None:
        with self._lock:
            still = running in self._running
            self._running.discard(running)
        if still:
            running.stop()
