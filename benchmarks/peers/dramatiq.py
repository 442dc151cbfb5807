"""Dramatiq on Redis: two processes of eight threads, which is its default number."""

import os

import dramatiq
from dramatiq import group, pipeline
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import RedisBackend

from benchmarks import bodies

VERSIONS = ("dramatiq", "redis")
REDIS = os.environ["BENCH_REDIS"] + "?max_connections=5000"  # for the case with a thousand threads
broker = RedisBroker(url=REDIS)
broker.add_middleware(GroupCallbacks(RedisBackend(url=REDIS)))
dramatiq.set_broker(broker)
_noop, _step, _stamp, _nap, _slow = (
    dramatiq.actor(body) for body in (bodies.noop, bodies.step, bodies.stamp, bodies.nap, bodies.slow)
)


def workers(kind: str) -> list[list[str]]:
    options = {"processes": ["2", "-t", "8"], "slots": ["1", "-t", "16"], "waits": ["1", "-t", "1000"]}[kind]
    return [["dramatiq", "benchmarks.peers.dramatiq", "-p", *options]]


def noop(count: int) -> None:
    for _ in range(count):
        _noop.send()


def chain(length: int, count: int) -> None:
    for _ in range(count):
        pipeline([_step.message() for _ in range(length)]).run()


def fan_out(width: int) -> None:
    parts = group([_noop.message() for _ in range(width)])
    parts.add_completion_callback(_noop.message())
    parts.run()


@dramatiq.actor
def _layer(depth: int, width: int) -> None:
    layers(depth, width)


def layers(depth: int, width: int) -> None:
    """By hand: what follows a group starts the next one."""
    parts = group([_noop.message() for _ in range(width)])
    if depth > 1:
        parts.add_completion_callback(_layer.message(depth - 1, width))
    parts.run()


def waits(count: int, seconds: float) -> None:
    for _ in range(count):
        _nap.send(seconds)


def stamp(begun: int) -> None:
    _stamp.send(begun)


def slow(seconds: float) -> None:
    _slow.send(seconds)
