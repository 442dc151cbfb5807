"""Health: what probes are told of a worker or a beat, over HTTP or by a file."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from orchestra.runtime.observing import Health
from orchestra.runtime.reconciler import Reconciler

logger = logging.getLogger(__name__)
STUCK_S = 60.0
"""After so long without a turn of its reconciler a process is stuck; a store that is away takes less of each turn."""
READY = "ready"
_TOUCH_S = 1.0


class ReconcilerHealth:
    """The health of who has a reconciler.

    A store or a broker that is away makes it unready. It is no reason to start it anew: that would not bring them back.

    Args:
        obstacle: Returns what else keeps it from working.
    """

    def __init__(
        self,
        reconciler: Reconciler,
        obstacle: Callable[[], str | None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reconciler, self._obstacle, self._monotonic = reconciler, obstacle, monotonic

    def live(self) -> str | None:
        """See ``Health``."""
        silent_s = self._monotonic() - self._reconciler.turned_at
        if silent_s > STUCK_S:
            return f"its reconciler has not turned for {silent_s:.0f} s"
        if self._reconciler.deafness > 1:
            return "it hears nothing of what is sent to its queues, although it reconnected"
        return None

    def ready(self) -> str | None:
        """See ``Health``."""
        away_s = self._monotonic() - self._reconciler.reached_at
        if away_s > self._reconciler.lease_s:
            return f"it has not reached the store for {away_s:.0f} s"
        if self._reconciler.deafness:
            return "it hears nothing of what is sent to its queues"
        return self.live() or self._obstacle()


class HeartbeatFile:
    """Writes a file every second for as long as its process is live: ``ready``, or why it is not.

    For probes that run a command: the file's age says whether the process is live, its text whether it is ready.
    """

    def __init__(self, path: Path, health: Health) -> None:
        self._path, self._health = path, health
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="orchestra-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and delete the file; a second time does nothing."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_TOUCH_S)
        self._path.unlink(missing_ok=True)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._health.live() is None:
                    self._path.write_text(f"{self._health.ready() or READY}\n")
            except OSError as error:
                logger.warning("The heartbeat cannot be written: %s", error)
            self._stopping.wait(_TOUCH_S)
