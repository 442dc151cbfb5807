"""Quarantine: a step that took its worker down before runs alone in it, so that no innocent one dies with it again.

Bodies of one worker, in threads or in pool children, share a lock file: ordinary ones hold it shared, suspects
exclusively. The kernel gives the lock back when its holder dies, so nothing has to be cleaned up after a crash.
"""

import fcntl
import hashlib
import os
import tempfile
import threading
from pathlib import Path

from orchestra.runtime.loop import elsewhere

SUSPECT_FROM = 2
"""Crashes after which a step runs alone."""


class Quarantine:
    """The lock of one worker.

    It has a gate: a suspect closes it while it waits for the bodies that run, or a stream of short ones would keep it
    waiting for ever.

    Args:
        worker: The incarnation: what makes the lock the worker's own.
    """

    def __init__(self, worker: str) -> None:
        digest = hashlib.sha256(worker.encode()).hexdigest()[:16]
        folder = Path(tempfile.gettempdir())
        self._room, self._gate = folder / f"orchestra-{digest}.lock", folder / f"orchestra-{digest}.gate"

    def enter(self, *, crashes: int) -> int:
        """Wait until the body may run; returns what ``leave`` takes."""
        kind = fcntl.LOCK_EX if crashes >= SUSPECT_FROM else fcntl.LOCK_SH
        gate = _locked(self._gate, kind)
        try:
            return _locked(self._room, kind)
        finally:
            os.close(gate)

    def remove(self) -> None:
        """The worker stops: take the files away."""
        for path in (self._room, self._gate):
            path.unlink(missing_ok=True)


class Room:
    """The same for a worker whose bodies are all in one process, without a file for each of them.

    Its methods stand in for the functions below.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = self._suspects = 0
        self._alone = False

    def enter(self, _worker: str, crashes: int) -> int:
        """Wait until the body may run; returns what ``leave`` takes: whether it runs alone."""
        suspect = crashes >= SUSPECT_FROM
        with self._changed:
            self._suspects += suspect
            if self._taken(suspect):
                return suspect
        # On the asyncio pool others run on this thread as well.
        return elsewhere(lambda: self._wait(suspect))

    def leave(self, place: int) -> None:
        """The body is over."""
        with self._changed:
            self._inside -= 1
            if place:
                self._alone = False
                self._suspects -= 1
            self._changed.notify_all()

    def is_wanted(self) -> bool:
        """Whether a suspect runs, or waits for the bodies that run."""
        return self._suspects > 0

    def _wait(self, suspect: bool) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self._taken(suspect))
            return suspect

    def _taken(self, suspect: bool) -> bool:
        free = not self._inside if suspect else not (self._alone or self._suspects)
        if free:
            self._inside += 1
            self._alone = suspect
        return free


def enter(worker: str, crashes: int) -> int:
    """Wait until a body may run in a worker; returns what ``leave`` takes."""
    return Quarantine(worker).enter(crashes=crashes)


def leave(place: int) -> None:
    """The body is over."""
    os.close(place)


def _locked(path: Path, kind: int) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, kind)
    except BaseException:
        os.close(fd)
        raise
    return fd
