"""What worker processes of tests run. Each body notes that it ran, in a file that the test reads."""

import asyncio
import ctypes
import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestra import RetryPolicy, current, task, workflow

TRACE, HOLD_AT = "ORCHESTRA_TEST_TRACE", "ORCHESTRA_TEST_HOLD_AT"


def note(what: str, trace: Path | None = None) -> None:
    """Append a line to the trace. One write of an append-only file: lines of several processes do not mix."""
    line = f"{time.time():.6f}\t{os.getpid()}\t{what}\n"
    file = os.open(trace or os.environ[TRACE], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def lines_of(trace: Path) -> list[str]:
    """Return the lines of a trace. Who reads while another writes may see half of the last one: that is left out."""
    written = trace.read_bytes() if trace.exists() else b""
    return written[: written.rfind(b"\n") + 1].decode().splitlines()


def times_noted(what: str) -> int:
    """Return how often something was noted so far."""
    return sum(line.split("\t")[2] == what for line in lines_of(Path(os.environ[TRACE])))


def echo(value: object) -> object:
    """Return the input."""
    note(f"echo {value}")
    return value


def noop() -> None:
    """Do nothing."""


def size(items: dict[str, object]) -> int:
    """Say how many there are."""
    return len(items)


def boom(value: str) -> None:
    """Fail."""
    note(f"boom {value}")
    raise ValueError(value)


def third_time(value: str) -> str:
    """Fail twice, then return."""
    note(f"third_time {value}")
    if times_noted(f"third_time {value}") < 3:
        raise ConnectionError("not yet")
    return value


def nap(seconds: float) -> float:
    """Sleep, noting begin and end."""
    note("nap begins")
    time.sleep(seconds)
    note("nap ends")
    return seconds


async def nap_async(seconds: float) -> float:
    """Sleep on an event loop."""
    note("nap begins")
    await asyncio.sleep(seconds)
    note("nap ends")
    return seconds


def nap_of(name: str, seconds: float) -> str:
    """Sleep under a name of its own."""
    note(f"{name} begins")
    time.sleep(seconds)
    note(f"{name} ends")
    return name


async def await_of(name: str, seconds: float) -> str:
    """Sleep on an event loop, under a name of its own."""
    note(f"{name} begins")
    await asyncio.sleep(seconds)
    note(f"{name} ends")
    return name


async def hold_the_interpreter(seconds: int) -> None:
    """Let no other thread of the process run, as C code can."""
    note("holds the interpreter")
    ctypes.PyDLL(None).sleep(seconds)


def hold(name: str) -> int:
    """Run until the test says `release` and the name; return the process that ran it."""
    note(f"{name} begins")
    while not times_noted(f"release {name}"):
        time.sleep(0.01)
    note(f"{name} ends")
    return os.getpid()


async def hold_async(name: str) -> None:
    """Wait on an event loop until the test says `release` and the name."""
    note(f"{name} begins")
    while not times_noted(f"release {name}"):  # noqa: ASYNC110 - another process says it
        await asyncio.sleep(0.01)
    note(f"{name} ends")


def hold_or_not(name: str | None) -> None:
    """Hold until the test releases the name; return at once where there is none."""
    if name is not None:
        hold(name)


def times_out_by_itself() -> None:
    """Raise the error that sockets raise, long before any limit."""
    raise TimeoutError("the other side does not answer")


def leave() -> None:
    """Call sys.exit, as a command line tool does."""
    note("leave")
    raise SystemExit(3)


def out_of_memory() -> None:
    """Ask for more memory than there is."""
    note("out of memory")
    raise MemoryError("on purpose")


def cancelled_inside() -> None:
    """Raise what is no Exception, and no exit."""
    raise asyncio.CancelledError("on purpose")


def kill_worker(name: str) -> None:
    """Take the whole process group of the worker down."""
    note(f"{name} kills")
    os.killpg(os.getpgid(0), signal.SIGKILL)


def nothing_or_kill_child(name: str | None) -> str | None:
    """Kill the own process the first time that a name is given; return at once where there is none."""
    return None if name is None else kill_child(name, 1)


def kill_child(name: str, times: int) -> str:
    """Kill the own process the first times."""
    note(f"{name} kills")
    if times_noted(f"{name} kills") <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return name


def unserialisable() -> object:
    """Return what JSON cannot hold."""
    return object()


def process_id() -> int:
    """Return the process that runs it."""
    return os.getpid()


def submits_another(value: str) -> str:
    """Submit a task from inside a step, and return its id."""
    from tests.worker_app import orch

    return orch.submit(echo, value).id


def waits_for_another(value: str) -> object:
    """Wait for a task inside a step, which is refused."""
    from tests.worker_app import orch

    return orch.submit(echo, value).wait(1).output


def large(size: int) -> str:
    """Return a long text."""
    return "x" * size


def moment() -> datetime:
    """Return a time."""
    return datetime(2025, 1, 2, tzinfo=UTC)


@task
def mark(name: str, *before: str) -> str:
    """Note a name and return it with what came before it."""
    note(name)
    return f"{name}({','.join(before)})"


@task(retry=RetryPolicy(3, delay=0.05, jitter=0))
def stubborn(value: str) -> str:
    """Fail twice, then return; three attempts are allowed."""
    return third_time(value)


@task
def numbers(count: int) -> list[int]:
    """Return the first numbers."""
    return list(range(count))


@task
def square(number: int) -> int:
    """Return the square."""
    note(f"square {number}")
    return number * number


@task
def total(values: list[int]) -> int:
    """Return the sum."""
    note("total")
    return sum(values)


@task
def short(name: str, *before: object) -> str:
    """A step of 50 ms."""
    note(f"{name} begins")
    time.sleep(0.05)
    note(f"{name} ends")
    return name


def counts_on(name: str) -> int:
    """Counts from its checkpoint, and may be left after each number, until it is released."""
    me = current()
    at = start = int(str(me.checkpoint.load(0)))
    note(f"{name} begins")
    while not times_noted(f"release {name}"):
        at += 1
        me.checkpoint.save(at)
        me.safe_point()
        time.sleep(0.02)
    return start


@workflow
def squares(count: int) -> object:
    """A fan-out whose width is known only when it runs."""
    return total(square.map(numbers(count)))


@workflow
def overlapping() -> object:
    """A→C, A→D, B→D, C→E→F, {A, B, E}→G: joins that share their parts."""
    a, b = mark("A"), mark("B")
    c, d = mark("C", a), mark("D", a, b)
    e = mark("E", c)
    return {"D": d, "F": mark("F", e), "G": mark("G", a, b, e)}


# --- being stopped --------------------------------------------------------------------------------------------------


def deaf_to_all(name: str, seconds: float = 30.0) -> str:
    """Looks at nothing: only force ends it."""
    with told_about(name):
        time.sleep(seconds)
    return name


def attentive(name: str, seconds: float = 30.0) -> str:
    """Asks whether to stop."""
    end = time.monotonic() + seconds
    with told_about(name):
        while time.monotonic() < end and not current().stop_requested:
            time.sleep(0.01)
    return name


async def coroutine(name: str, seconds: float = 30.0) -> str:
    """Is cancelled where it waits."""
    with told_about(name):
        await asyncio.sleep(seconds)
    return name


async def stubborn_coroutine(name: str, seconds: float = 60.0) -> str:
    """Takes no notice of being cancelled."""
    with told_about(name):
        for _ in range(2):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(seconds)
    return name


@contextmanager
def told_about(name: str) -> Iterator[None]:
    """Note the begin, and the end where there is one."""
    note(f"{name} begins")
    try:
        yield
    finally:
        note(f"{name} ends")


def fails_first(name: str) -> str:
    """Raises in its first attempt."""
    if current().attempt == 1:
        raise ConnectionError(name)
    return name


def says(what: str) -> int:
    """Log, and fail the first time; return the number of the attempt."""
    logging.getLogger("bodies").warning(what, extra={"customer": 7})
    attempt = current().attempt
    if attempt == 1:
        raise ConnectionError("not yet")
    return attempt


def told_of(task: dict[str, Any]) -> None:
    """Note what a callback is told."""
    said = task["output"] if task["error"] is None else task["error"]["type"]
    note(f"told of {task['id']} {task['status']} {said} {task['metadata']}")
