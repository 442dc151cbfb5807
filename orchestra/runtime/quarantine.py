"""Quarantine: a step that took its worker down before runs alone in it, so that no innocent one dies with it again.

Bodies of one worker, in threads or in pool children, share a lock file: ordinary ones hold it shared, suspects
exclusively. The kernel gives the lock back when its holder dies, so nothing has to be cleaned up after a crash.
"""

import fcntl
import hashlib
import os
import tempfile
from pathlib import Path

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
