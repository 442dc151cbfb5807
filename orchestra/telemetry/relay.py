"""Relay: carries samples from the children of a pool to their parent, which alone answers who asks for metrics.

A child writes a line to a pipe that it inherits, which costs it a few microseconds and wakes nobody; the parent reads
what there is from time to time. Nothing is shared, locked or left behind in files.
"""

import fcntl
import json
import os
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from orchestra.runtime.observing import Measure, Observe, Sample

_PIPE_BYTES = 1 << 20
"""Some seconds of work at full speed; where the system does not allow as much, children keep what does not fit."""
_MOST_KEPT = 10_000
_READ_BYTES = 1 << 16
_MEASURES = {each.value: each for each in Measure}


class Relay:
    """Takes samples in any process of a worker, and hands them on in the one where it was made.

    Args:
        take: Gets the samples; called in the process of the relay alone.
    """

    def __init__(self, take: Observe) -> None:
        self._take, self._pid = take, os.getpid()
        self._reader, self._writer = os.pipe()
        for each in (self._reader, self._writer):
            os.set_blocking(each, False)
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with suppress(OSError):
                fcntl.fcntl(self._writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._unsent: deque[bytes] = deque(maxlen=_MOST_KEPT)
        """Of a child: lines that the pipe had no room for. When there are too many, the oldest are lost."""
        self._rest = b""

    def observe(self, samples: Sequence[Sample]) -> None:
        """See ``Observe``."""
        if os.getpid() == self._pid:
            self._take(samples)
            return
        # Short enough for the pipe to take it as a whole or not at all.
        self._unsent.append(json.dumps(samples).encode() + b"\n")
        with suppress(BlockingIOError, BrokenPipeError):
            while self._unsent:
                os.write(self._writer, self._unsent[0])
                self._unsent.popleft()

    def drain(self) -> None:
        """Hand on what the children have written since the last time. One thread at a time."""
        with suppress(BlockingIOError):
            while text := os.read(self._reader, _READ_BYTES):
                *lines, self._rest = (self._rest + text).split(b"\n")
                for line in lines:
                    self._take(
                        [Sample(_MEASURES[name], value, tuple(labels)) for name, value, labels in json.loads(line)]
                    )

    def close(self) -> None:
        """Close the pipe, in the process of the relay."""
        os.close(self._reader)
        os.close(self._writer)
