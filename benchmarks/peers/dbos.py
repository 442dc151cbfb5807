"""DBOS on PostgreSQL: two worker processes with a queue polled every 50 ms instead of every second, 32 workflows each.

Inline there is no queue: the calling process runs the steps.
"""

import asyncio
import os
import time

from dbos import DBOS, DBOSClient, DBOSConfig

from benchmarks import bodies

VERSIONS = ("dbos", "psycopg")
INLINE = os.environ["BENCH_VARIANT"] == "inline"
URL = os.environ["BENCH_POSTGRESQL"]
QUEUE = "bench"
SOON = {"polling_interval_sec": 0.02}  # of results; a second by default


def launch() -> None:
    config = DBOSConfig(
        name="bench", system_database_url=URL, application_version="1", log_level="ERROR", run_admin_server=False
    )
    DBOS(config=config)
    DBOS.launch()


@DBOS.workflow()
def _noop() -> int:
    return bodies.noop()


@DBOS.step()
def _step() -> int:
    return bodies.noop()


@DBOS.step()
async def _astep() -> int:
    return bodies.noop()


@DBOS.workflow()
def _chain(length: int) -> None:
    for _ in range(length):
        _step()


@DBOS.workflow()
def _layers(depth: int, width: int, join: bool) -> None:
    for _ in range(depth):
        for each in [DBOS.enqueue_workflow(QUEUE, _noop) for _ in range(width)]:
            each.get_result(**SOON)
    if join:
        _step()


@DBOS.workflow()
async def _inline_layers(depth: int, width: int, join: bool) -> None:
    for _ in range(depth):
        await asyncio.gather(*[_astep() for _ in range(width)])
    if join:
        await _astep()


@DBOS.step()
async def _nap_step(seconds: float) -> None:
    await bodies.anap(seconds)


@DBOS.workflow()
async def _nap(seconds: float) -> None:
    await _nap_step(seconds)


@DBOS.workflow()
def _stamp(begun: int) -> None:
    bodies.stamp(begun)


@DBOS.workflow()
def _slow(seconds: float) -> None:
    bodies.slow(seconds)


def work(slots: int) -> None:
    launch()
    DBOS.register_queue(QUEUE, polling_interval_sec=0.05, worker_concurrency=slots)
    while True:
        time.sleep(3600)


def workers(kind: str) -> list[list[str]]:
    copies, slots = {"processes": (2, 32), "slots": (1, 16), "waits": (1, 1000)}[kind]
    program = f"from benchmarks.peers import dbos; dbos.work({slots})"
    return [] if INLINE else [["python", "-c", program]] * copies


_client = None


def prepare() -> None:
    global _client
    launch()  # makes the tables
    if not INLINE:
        DBOS.register_queue(QUEUE)
        DBOS.destroy()
        _client = DBOSClient(system_database_url=URL)


def _send(workflow, count: int, *arguments) -> list:
    options = {"queue_name": QUEUE, "workflow_name": workflow.__qualname__}
    return [_client.enqueue(options, *arguments) for _ in range(count)]


if INLINE:

    def noop(count: int) -> None:
        for _ in range(count):
            _noop()

    def chain(length: int, count: int) -> None:
        for each in [DBOS.start_workflow(_chain, length) for _ in range(count)]:
            each.get_result()

    def fan_out(width: int) -> None:
        asyncio.run(_inline_layers(1, width, True))

    def layers(depth: int, width: int) -> None:
        asyncio.run(_inline_layers(depth, width, False))

else:

    def noop(count: int) -> None:
        _send(_noop, count)

    def chain(length: int, count: int) -> None:
        _send(_chain, count, length)

    def fan_out(width: int) -> None:
        _send(_layers, 1, 1, width, True)

    def layers(depth: int, width: int) -> None:
        _send(_layers, 1, depth, width, False)

    def waits(count: int, seconds: float) -> None:
        _send(_nap, count, seconds)

    def stamp(begun: int) -> None:
        _send(_stamp, 1, begun)

    def slow(seconds: float) -> None:
        _send(_slow, 1, seconds)

    def result() -> None:
        _send(_noop, 1)[0].get_result(**SOON)
