"""What the tasks of every contestant do: they leave the time in a file. Needs nothing but Python.

Nobody is timed through its own results: a body appends eight bytes, and the producer reads the file. Times are of the
system's monotonic clock, which all processes of a machine share.
"""

import asyncio
import os
import struct
import time
from pathlib import Path

TICKS = Path(os.environ.get("BENCH_TICKS", "ticks"))
_WIDTH = 8


def tick(value: int | None = None) -> None:
    """Append a number; the time in nanoseconds where none is given. Whole, whoever else writes."""
    file = os.open(TICKS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, struct.pack("<q", time.monotonic_ns() if value is None else value))
    os.close(file)


def clear() -> None:
    """Forget what was left so far."""
    TICKS.write_bytes(b"")


def ticked() -> int:
    """Return how many numbers were left."""
    return TICKS.stat().st_size // _WIDTH if TICKS.exists() else 0


def ticks() -> list[int]:
    """Return the numbers in the order in which they came."""
    return [number for (number,) in struct.iter_unpack("<q", TICKS.read_bytes())]


def wait(count: int, timeout: float, poll: float = 0.001) -> list[int]:
    """Return the numbers as soon as there are so many.

    Raises:
        TimeoutError: There were fewer after so many seconds.
    """
    end = time.monotonic() + timeout
    while ticked() < count:
        if time.monotonic() > end:
            raise TimeoutError(f"{ticked()} of {count} bodies after {timeout:g} s")
        time.sleep(poll)
    return ticks()


def noop() -> int:
    """A task."""
    tick()
    return 0


def step(before: object = None) -> int:
    """A task that is given what came before it, and leaves something for the next."""
    tick()
    return 0


def stamp(begun: int) -> int:
    """Leave the nanoseconds since it was submitted."""
    tick(time.monotonic_ns() - begun)
    return 0


def nap(seconds: float) -> int:
    """Wait, then leave the time."""
    time.sleep(seconds)
    tick()
    return 0


async def anap(seconds: float) -> int:
    """Wait on an event loop, then leave the time."""
    await asyncio.sleep(seconds)
    tick()
    return 0


def slow(seconds: float) -> int:
    """Leave the time at the begin, then wait: whoever runs it again leaves another."""
    tick()
    time.sleep(seconds)
    return 0
