"""Relay: carries what the children of a pool measured to their parent, which alone answers who asks for metrics.

A child adds up, and writes to a pipe that it inherits what came together in a quarter of a second: a line for each
measure and its labels, whether it did one step in that time or a thousand. That wakes nobody; the parent reads what
there is from time to time. Nothing is shared, locked or left behind in files.
"""

import json
import os
import threading
from collections.abc import Sequence
from contextlib import suppress

from orchestra.runtime.observing import Measure, Sample
from orchestra.telemetry.tally import Tally

FLUSH_S = 0.25
"""How long a child adds up before it tells."""
_READ_BYTES = 1 << 16
_MEASURES = {each.value: each for each in Measure}


class Relay:
    """Takes samples in any process of a worker, and adds them up in the one where it was made.

    Args:
        tally: Where they are added up; changed in the process of the relay alone.
    """

    def __init__(self, tally: Tally) -> None:
        self._parent = self._pid = os.getpid()
        self._tally = tally
        self._reader, self._writer = os.pipe()
        for each in (self._reader, self._writer):
            os.set_blocking(each, False)
        self._news, self._telling = threading.Event(), threading.Lock()
        self._rest = b""

    def observe(self, samples: Sequence[Sample]) -> None:
        """See ``Observe``."""
        if os.getpid() != self._pid:
            self._begin()
        self._tally.take(samples)
        if self._pid != self._parent and not self._news.is_set():
            self._news.set()

    def _begin(self) -> None:
        """Begin anew in a child: what the parent has counted is not the child's to tell."""
        self._pid, self._tally = os.getpid(), Tally()
        self._news, self._telling = threading.Event(), threading.Lock()
        threading.Thread(target=self._tell, name="orchestra-relay", daemon=True).start()

    def _tell(self) -> None:
        over = threading.Event()
        while True:
            self._news.wait()
            over.wait(FLUSH_S)
            self._news.clear()
            self.flush()

    def flush(self) -> None:
        """Hand on now what a child has added up; its end is not waited for. In other processes it does nothing."""
        if self._pid == self._parent or self._pid != os.getpid():
            return
        with self._telling:
            for measure, labels, cell in self._tally.empty():
                # Short enough for the pipe to take it as a whole or not at all.
                line = json.dumps([measure, labels, cell]).encode() + b"\n"
                try:
                    os.write(self._writer, line)
                except BlockingIOError:
                    self._tally.add(measure, labels, cell)
                    self._news.set()
                except BrokenPipeError:
                    return

    def drain(self) -> None:
        """Add up what the children have written since the last time. One thread at a time."""
        with suppress(BlockingIOError):
            while text := os.read(self._reader, _READ_BYTES):
                *lines, self._rest = (self._rest + text).split(b"\n")
                for line in lines:
                    name, labels, cell = json.loads(line)
                    self._tally.add(_MEASURES[name], tuple(labels), cell)

    def close(self) -> None:
        """Close the pipe, in the process of the relay."""
        os.close(self._reader)
        os.close(self._writer)
