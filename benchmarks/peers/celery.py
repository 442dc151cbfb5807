"""Celery: two prefork children, acknowledged late, prefetching 32; for waits one process, gevent or threads."""

import os

from celery import Celery, chord, group
from celery import chain as canvas_chain

from benchmarks import bodies

VERSIONS = ("celery", "kombu", "redis")
VARIANT = os.environ["BENCH_VARIANT"]
FORGET = VARIANT.endswith(("forget", "gevent", "threads"))
app = Celery("benchmarks.peers.celery")
app.conf.update(
    broker_url=os.environ["BENCH_RABBITMQ" if "rabbitmq" in VARIANT else "BENCH_REDIS"],
    result_backend=None if FORGET else os.environ["BENCH_REDIS"],
    task_ignore_result=FORGET,
    task_acks_late=True,
    worker_prefetch_multiplier=32,
)
_noop, _step, _stamp, _nap, _slow = (
    app.task(body) for body in (bodies.noop, bodies.step, bodies.stamp, bodies.nap, bodies.slow)
)


def prepare() -> None:
    app.control.purge()


def workers(kind: str) -> list[list[str]]:
    pool, slots = {"processes": ("prefork", "2"), "slots": ("threads", "16"), "waits": (VARIANT, "1000")}[kind]
    options = ["-P", pool, "-c", slots, "--without-gossip", "--without-mingle", "-l", "ERROR"]
    return [["celery", "-A", "benchmarks.peers.celery", "worker", *options]]


def noop(count: int) -> None:
    for _ in range(count):
        _noop.delay()


def waits(count: int, seconds: float) -> None:
    for _ in range(count):
        _nap.delay(seconds)


def stamp(begun: int) -> None:
    _stamp.delay(begun)


def slow(seconds: float) -> None:
    _slow.delay(seconds)


if not FORGET:

    def result() -> None:
        _noop.delay().get(timeout=30)

    def chain(length: int, count: int) -> None:
        for _ in range(count):
            canvas_chain(*[_step.s() for _ in range(length)]).apply_async()

    def fan_out(width: int) -> None:
        chord([_noop.si() for _ in range(width)])(_step.s())

    @app.task
    def _layer(depth: int, width: int) -> None:
        layers(depth, width)

    def layers(depth: int, width: int) -> None:
        """By hand: what follows a chord starts the next one. Of a chain of groups, Celery runs parts more than once."""
        parts = [_noop.si() for _ in range(width)]
        if depth > 1:
            chord(parts)(_layer.si(depth - 1, width))
        else:
            group(parts).apply_async()
