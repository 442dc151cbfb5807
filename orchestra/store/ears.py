"""Ears: a thread that hears what changes, for as long as somebody waits.

It ends when nobody has waited for a while, since a listener that nobody reads from is a burden for its server.
"""

import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from typing import Protocol

from orchestra.store.task_results import Changed

logger = logging.getLogger(__name__)

_IDLE_S = 30.0
"""A thread that nobody needed for so long ends; the next who waits pays for a new one."""
_TICK_S = 1.0
"""How often it looks whether it is still needed, where nothing happens."""
_LONGEST_PAUSE_S = 2.0


class Deaf(Exception):
    """The source was lost; a new one is opened. Raised by a source, leaves ``Ears`` never."""


class Source(Protocol):
    """Where changes are heard: one connection. ``join`` and ``leave`` are called under one lock, ``hear`` beside it."""

    def join(self, task_ids: Collection[str]) -> None:
        """Hear of more tasks."""
        ...

    def leave(self, task_id: str) -> None:
        """Hear of it no more."""
        ...

    def hear(self, timeout_s: float) -> Iterable[tuple[str | None, bytes | None]]:
        """Return changes as ``Changed`` takes them; nothing after a while. Raises Deaf."""
        ...


class ThreadedEars(ABC):
    """Ears with a thread of their own, which the first ``add`` starts, in a forked child too."""

    def __init__(self, changed: Changed) -> None:
        self._changed = changed
        self._reset()

    @abstractmethod
    def _open(self) -> AbstractContextManager[Source]:
        """Open a source. Raises Deaf, at the latest when it is entered."""

    def add(self, task_id: str) -> None:
        """See ``Ears``."""
        if self._pid != os.getpid():
            self._reset()
        with self._lock:
            self._let_go()  # it may be among those
            if task_id in self._wanted:
                return
            self._wanted.add(task_id)
            if self._thread is None:
                self._closed = False
                self._thread = threading.Thread(target=self._run, name="orchestra-results", daemon=True)
                self._thread.start()
            elif self._source is not None:
                self._source.join((task_id,))

    def discard(self, task_id: str) -> None:
        """See ``Ears``."""
        self._leaving.append(task_id)  # atomic; others do the rest

    def close(self) -> None:
        """See ``Ears``."""
        self._closed = True
        thread = self._thread
        if thread is not None and self._pid == os.getpid() and thread is not threading.current_thread():
            thread.join(2 * _TICK_S)

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._wanted: set[str] = set()
        self._leaving: deque[str] = deque()
        self._thread: threading.Thread | None = None
        self._source: Source | None = None
        self._closed = False

    def _run(self) -> None:
        pause = 0.0
        while not self._is_over():
            try:
                with self._open() as source:
                    pause = 0.0
                    with self._lock:
                        source.join(self._wanted)
                        self._source = source
                    self._changed(None)  # of what happened before nobody has told
                    self._listen(source)
            except Exception as error:  # whatever it is, somebody waits
                logger.warning("waiting for results: %s; trying again", error, exc_info=not isinstance(error, Deaf))
                pause = min(_LONGEST_PAUSE_S, pause * 2 or 0.05)
                time.sleep(pause)
            finally:
                self._source = None

    def _listen(self, source: Source) -> None:
        needed_at = time.monotonic()
        while not self._closed:
            for task_id, payload in source.hear(_TICK_S):
                if task_id is None or task_id in self._wanted:
                    self._changed(task_id, payload)
            with self._lock:
                self._let_go()
            if self._wanted:
                needed_at = time.monotonic()
            elif time.monotonic() - needed_at > _IDLE_S:
                return

    def _let_go(self) -> None:
        while self._leaving:
            task_id = self._leaving.popleft()
            if task_id in self._wanted:
                self._wanted.discard(task_id)
                if self._source is not None:
                    self._source.leave(task_id)

    def _is_over(self) -> bool:
        with self._lock:
            if self._wanted and not self._closed:
                return False
            self._thread = None  # from now on ``add`` starts another one
            return True
