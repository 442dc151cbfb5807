"""RQ on Redis: two workers that fork for every job, as is its default, or two that do not (simple)."""

import os
import time

from redis import Redis
from rq import Queue, Retry

from benchmarks import bodies

VERSIONS = ("rq", "redis")
REDIS = os.environ["BENCH_REDIS"]
queue = Queue("bench", connection=Redis.from_url(REDIS))


def workers(kind: str) -> list[list[str]]:
    worker = "rq.worker.SimpleWorker" if os.environ["BENCH_VARIANT"] == "simple" else "rq.worker.Worker"
    return [["rq", "worker", "-q", "-u", REDIS, "-w", worker, "bench"]] * {"processes": 2, "slots": 16}[kind]


def noop(count: int) -> None:
    for _ in range(count):
        queue.enqueue(bodies.noop)


def chain(length: int, count: int) -> None:
    for _ in range(count):
        before = None
        for _ in range(length):
            before = queue.enqueue(bodies.noop, depends_on=before)


def fan_out(width: int) -> None:
    queue.enqueue(bodies.noop, depends_on=[queue.enqueue(bodies.noop) for _ in range(width)])


def layers(depth: int, width: int) -> None:
    before = None
    for _ in range(depth):
        before = [queue.enqueue(bodies.noop, depends_on=before) for _ in range(width)]


def graph(steps: list[tuple[float, list[int]]]) -> None:
    jobs = []
    for seconds, after in steps:
        jobs.append(queue.enqueue(bodies.nap, seconds, depends_on=[jobs[each] for each in after] or None))


def stamp(begun: int) -> None:
    queue.enqueue(bodies.stamp, begun)


def slow(seconds: float) -> None:
    queue.enqueue(bodies.slow, seconds, retry=Retry(max=3))


def result() -> None:
    job = queue.enqueue(bodies.noop)
    while job.latest_result() is None:
        time.sleep(0.001)
