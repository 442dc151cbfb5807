"""Taskiq on Redis streams, which are acknowledged: two worker processes, async tasks."""

import asyncio
import os

from taskiq_pipelines import Pipeline, PipelineMiddleware
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks import bodies

VERSIONS = ("taskiq", "taskiq-redis", "taskiq-pipelines")
REDIS = os.environ["BENCH_REDIS"]
broker = RedisStreamBroker(REDIS)
if RESULTS := os.environ["BENCH_VARIANT"] == "results":
    results = RedisAsyncResultBackend(REDIS, result_ex_time=3600)
    broker = broker.with_result_backend(results).with_middlewares(PipelineMiddleware())
_loop = asyncio.new_event_loop()


@broker.task
async def _noop() -> int:
    return bodies.noop()


@broker.task
async def _step(before: int = 0) -> int:
    return bodies.step()


@broker.task
async def _join(before: list[int]) -> int:
    return bodies.step()


@broker.task
async def _numbers(count: int) -> list[int]:
    return list(range(count))


@broker.task
async def _stamp(begun: int) -> int:
    return bodies.stamp(begun)


@broker.task
async def _nap(seconds: float) -> int:
    return await bodies.anap(seconds)


@broker.task
async def _slow(seconds: float) -> None:
    bodies.tick()
    await asyncio.sleep(seconds)


def prepare() -> None:
    _loop.run_until_complete(broker.startup())


def workers(kind: str) -> list[list[str]]:
    options = {"processes": ["2"], "slots": ["1"], "waits": ["1", "--max-async-tasks", "1000"]}[kind]
    return [["taskiq", "worker", "benchmarks.peers.taskiq:broker", "--log-level", "ERROR", "--workers", *options]]


def _send(task, count: int, *arguments) -> None:
    async def send() -> None:
        for _ in range(count):
            await task.kiq(*arguments)

    _loop.run_until_complete(send())


def noop(count: int) -> None:
    _send(_noop, count)


def waits(count: int, seconds: float) -> None:
    _send(_nap, count, seconds)


def stamp(begun: int) -> None:
    _send(_stamp, 1, begun)


def slow(seconds: float) -> None:
    _send(_slow, 1, seconds)


if RESULTS:

    def chain(length: int, count: int) -> None:
        pipeline = Pipeline(broker, _step)
        for _ in range(length - 1):
            pipeline = pipeline.call_next(_step)
        _send(pipeline, count, 0)

    def fan_out(width: int) -> None:
        _send(Pipeline(broker, _numbers).map(_step).call_next(_join), 1, width)

    def layers(depth: int, width: int) -> None:
        pipeline = Pipeline(broker, _numbers)
        for _ in range(depth):
            pipeline = pipeline.map(_step)
        _send(pipeline, 1, width)

    def result() -> None:
        async def wait() -> None:
            await (await _noop.kiq()).wait_result(check_interval=0.001)

        _loop.run_until_complete(wait())
