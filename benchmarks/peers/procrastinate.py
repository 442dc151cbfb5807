"""Procrastinate on PostgreSQL: two worker processes with ten async tasks each."""

import asyncio
import os

import procrastinate

from benchmarks import bodies

VERSIONS = ("procrastinate", "psycopg")
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["BENCH_POSTGRESQL"]))
_loop = asyncio.new_event_loop()


@app.task
async def _noop() -> None:
    bodies.noop()


@app.task
async def _link(left: int) -> None:
    """By hand: it has no chains, so a task defers the next."""
    if left > 1:
        await _link.defer_async(left=left - 1)
    bodies.noop()


@app.task
async def _nap(seconds: float) -> None:
    await bodies.anap(seconds)


@app.task
async def _stamp(begun: int) -> None:
    bodies.stamp(begun)


@app.task(retry=3)
async def _slow(seconds: float) -> None:
    bodies.tick()
    await asyncio.sleep(seconds)


def prepare() -> None:
    _loop.run_until_complete(app.open_async())
    _loop.run_until_complete(app.schema_manager.apply_schema_async())


def workers(kind: str) -> list[list[str]]:
    copies, slots = {"processes": (2, 10), "slots": (1, 16), "waits": (1, 1000)}[kind]
    return [["procrastinate", "--app", "benchmarks.peers.procrastinate.app", "worker", "-c", str(slots)]] * copies


def _send(task, count: int, **arguments) -> None:
    async def send() -> None:
        for _ in range(count):
            await task.defer_async(**arguments)

    _loop.run_until_complete(send())


def noop(count: int) -> None:
    _send(_noop, count)


def chain(length: int, count: int) -> None:
    _send(_link, count, left=length)


def waits(count: int, seconds: float) -> None:
    _loop.run_until_complete(_nap.batch_defer_async(*[{"seconds": seconds}] * count))


def stamp(begun: int) -> None:
    _send(_stamp, 1, begun=begun)


def slow(seconds: float) -> None:
    _send(_slow, 1, seconds=seconds)
