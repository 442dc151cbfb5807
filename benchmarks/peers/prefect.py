"""Prefect with a server of its own on SQLite; flows run in the producer, their tasks on threads."""

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor

PORT = os.environ["BENCH_PORTS"].split(",")[0]
ENV = {
    "PREFECT_HOME": os.environ["BENCH_FOLDER"] + "/prefect",
    "PREFECT_API_URL": f"http://127.0.0.1:{PORT}/api",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "DO_NOT_TRACK": "1",
}
os.environ.update(ENV)

from prefect import flow, task  # noqa: E402  (its settings are read when it is imported)
from prefect.task_runners import ThreadPoolTaskRunner  # noqa: E402

from benchmarks import bodies  # noqa: E402

VERSIONS = ("prefect",)
EIGHT, SIXTEEN, THOUSAND = (ThreadPoolTaskRunner(max_workers=count) for count in (8, 16, 1000))


def workers(kind: str) -> list[list[str]]:
    return [["prefect", "server", "start", "--host", "127.0.0.1", "--port", PORT, "--no-ui"]]


def ready() -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", int(PORT)), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("the server does not answer")


@task
def _noop(before: object = None) -> int:
    return bodies.noop()


_nap = task(bodies.nap)


@flow(task_runner=EIGHT)
def noop(count: int) -> None:
    _noop.map(range(count)).wait()


@flow
def _chain(length: int) -> None:
    for number in range(length):
        _noop(number)


def chain(length: int, count: int) -> None:
    with ThreadPoolExecutor(2) as pool:  # with more, its server on SQLite is soon unavailable
        list(pool.map(lambda _: _chain(length), range(count)))


@flow(task_runner=EIGHT)
def fan_out(width: int) -> None:
    _noop.submit(_noop.map(range(width))).wait()


@flow(task_runner=EIGHT)
def layers(depth: int, width: int) -> None:
    """By hand: the flow waits for a layer, which costs it less than twenty futures for every task."""
    for _ in range(depth):
        _noop.map(range(width)).wait()


@flow(task_runner=THOUSAND)
def waits(count: int, seconds: float) -> None:
    _nap.map([seconds] * count).wait()


@flow(task_runner=SIXTEEN)
def graph(steps: list) -> None:
    made = []
    for seconds, after in steps:
        made.append(_nap.submit(seconds, wait_for=[made[each] for each in after]))
    for each in made:
        each.wait()
