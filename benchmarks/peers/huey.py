"""Huey on Redis: two worker processes. Results are stored, since chains and chords need them."""

import os
import sys

from benchmarks import bodies

if "huey_consumer" in sys.argv[0] and "greenlet" in sys.argv:
    from gevent import monkey

    monkey.patch_all()

from huey import RedisHuey, chord

VERSIONS = ("huey", "redis")
# Its pool of connections is too small for a thousand greenlets that finish at once.
app = RedisHuey("bench", url=os.environ["BENCH_REDIS"] + "?max_connections=5000")
_noop, _step, _stamp, _nap, _slow = (
    app.task()(body) for body in (bodies.noop, bodies.step, bodies.stamp, bodies.nap, bodies.slow)
)


def workers(kind: str) -> list[list[str]]:
    options = {
        "processes": ["process", "-w", "2"],
        "slots": ["thread", "-w", "16"],
        "waits": ["greenlet", "-w", "1000"],
    }
    return [["huey_consumer", "benchmarks.peers.huey.app", "-q", "-k", *options[kind]]]


def noop(count: int) -> None:
    for _ in range(count):
        _noop()


def chain(length: int, count: int) -> None:
    for _ in range(count):
        first = last = _step.s()
        for _ in range(length - 1):
            last.on_complete = last = _step.s()
        app.enqueue(first)


def fan_out(width: int) -> None:
    app.enqueue(chord([_noop.s() for _ in range(width)], _step.s()))


@app.task()
def _layer(before: object, depth: int, width: int) -> int:
    layers(depth, width)
    return 0


def layers(depth: int, width: int) -> None:
    """By hand: what follows a chord starts the next one."""
    tasks = [_noop.s() for _ in range(width)]
    if depth > 1:
        app.enqueue(chord(tasks, _layer.s(depth=depth - 1, width=width)))
    else:
        for task in tasks:
            app.enqueue(task)


def waits(count: int, seconds: float) -> None:
    for _ in range(count):
        _nap(seconds)


def stamp(begun: int) -> None:
    _stamp(begun)


def slow(seconds: float) -> None:
    _slow(seconds)


def result() -> None:
    _noop().get(blocking=True, backoff=1, max_delay=0.001)
