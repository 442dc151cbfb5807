"""Pacemaker: a process that renews the lease of a worker whose interpreter is held by a body.

C code that does not let go of the interpreter's lock stops every thread of its process, also the one that renews the
lease. Nobody shall take such a worker for dead, so a small process beside it renews the lease while that is late. Not
for a worker that was stopped (SIGSTOP), nor for one that has been late for very long: others go on with its work then.
"""

import json
import logging
import mmap
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import astuple, replace
from pathlib import Path

from orchestra.store.contract import Lease, Store

logger = logging.getLogger(__name__)

LONGEST_S = 600.0
"""How long a worker that renews nothing itself counts as busy."""
_LOOK_EVERY_S = 0.5
_LATE = 0.6
"""Part of its lease time after which a worker that renews after a third of it is late."""
_PAGE = 16_384


class Pacemaker:
    """The process beside a worker that runs bodies itself. It ends with the worker.

    Args:
        clock: Returns seconds since the epoch.
    """

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store, self._clock = store, clock
        self._page = mmap.mmap(-1, _PAGE)
        self._worker = os.getpid()

    def start(self) -> None:
        """Start the process. Where /proc does not tell who was stopped, there is none."""
        if Path("/proc/self/stat").exists() and os.fork() == 0:
            try:
                self._look_on()
            finally:
                os._exit(0)

    def renewed(self, lease: Lease | None) -> None:
        """The worker has renewed its lease by itself, or gives it back (None)."""
        text = b"" if lease is None else json.dumps([time.monotonic(), *astuple(lease)]).encode()
        if len(text) < _PAGE:
            self._page[: len(text) + 1] = text + b"\n"

    def _look_on(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the worker's to answer, which then ends, and this with it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        while os.getppid() == self._worker:
            time.sleep(_LOOK_EVERY_S)
            with suppress(Exception):  # the store may be away: there will be another look
                self._look()

    def _look(self) -> None:
        text = self._page[:].partition(b"\n")[0]
        if not text:
            return
        renewed_at, *fields = json.loads(text)
        lease, late_s = Lease(*fields), time.monotonic() - renewed_at
        lasts_s = lease.expires_at - lease.renewed_at
        if _LATE * lasts_s < late_s < LONGEST_S and not _is_stopped(self._worker):
            now = self._clock()
            self._store.renew(replace(lease, expires_at=now + lasts_s, renewed_at=now))
            logger.warning("A body holds the interpreter of worker %s; its lease is renewed for it", lease.worker)


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "TtZX"
