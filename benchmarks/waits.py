"""1,000 tasks that wait for a second each: our asyncio pool, durable, beside Celery's gevent and threads pools, bare.

    python benchmarks/waits.py --broker redis://127.0.0.1:6379/9 --store redis://127.0.0.1:6380/0 --runs 3

One worker process each, 1,000 slots, Redis as broker; ours records every step in a Redis store, Celery keeps results in
Redis. The seconds run from the first submit until the last record or result can be read; memory is the worker's
resident set after that. gevent has to be installed for its row.
"""

import argparse
import asyncio
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from celery import Celery
from celery.result import ResultSet

from orchestra import Orchestrator, Task, Workflow, WorkflowStatus

HERE = str(Path(__file__).parent)
BROKER = os.environ.get("BENCH_REDIS", "redis://127.0.0.1:6379/9")
app = Celery("waits", broker=BROKER, backend=BROKER)
app.conf.update(result_expires=600, task_acks_late=True, worker_prefetch_multiplier=1)


@app.task(name="waits.bare")
def bare(seconds: float) -> None:
    """A bare Celery task."""
    time.sleep(seconds)


async def durable(seconds: float) -> None:
    """A step."""
    await asyncio.sleep(seconds)


def start(command: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a worker."""
    full = {**os.environ, **env, "PYTHONPATH": HERE, "BENCH_REDIS": BROKER}
    return subprocess.Popen([sys.executable, "-m", *command], cwd=HERE, env=full, stderr=subprocess.DEVNULL)


def celery(count: int, queue: str) -> float:
    """Return the seconds of a round of bare tasks."""
    begun = time.perf_counter()
    results = ResultSet([bare.apply_async((1.0,), queue=queue) for _ in range(count)])
    results.get(timeout=120)
    return time.perf_counter() - begun


def ours(count: int, orch: Orchestrator) -> float:
    """Return the seconds of a round of steps."""
    import waits  # the module as workers import it, since __main__ does not travel

    tasks = [Task(name=f"s{n}", agent=waits.durable, input=1.0) for n in range(count)]
    begun = time.perf_counter()
    run = orch.submit_workflow(Workflow(name="waits", tasks=tasks))
    assert run.wait(120).status is WorkflowStatus.COMPLETED
    return time.perf_counter() - begun


def measured(name: str, command: list[str], env: dict[str, str], once: Callable[[int], float], runs: int) -> None:
    """Start a worker, do rounds, and print a line."""
    worker = start(command, env)
    try:
        once(2)
        times = sorted(once(1000) for _ in range(runs))
        memory = psutil.Process(worker.pid).memory_info().rss / 1e6
    finally:
        worker.terminate()
        worker.wait(30)
    print(f"{name:<22}{times[len(times) // 2]:>7.2f} s ({times[0]:.2f}-{times[-1]:.2f}){memory:>8.0f} MB", flush=True)


def main() -> None:
    """Print a line per pool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", default=BROKER)
    parser.add_argument("--store", required=True)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    if given.broker != BROKER:
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "BENCH_REDIS": given.broker})
    env = {"ORCHESTRA_BROKER": BROKER, "ORCHESTRA_STORE": given.store, "ORCHESTRA_QUEUE": "waits-asyncio"}
    os.environ.update(env, ORCHESTRA_MODULES="waits")
    env["ORCHESTRA_MODULES"] = "waits"
    with Orchestrator() as orch:
        command = ["orchestra", "worker", "--pool", "asyncio", "-c", "1000", "-l", "ERROR"]
        measured("asyncio, durable", command, env, lambda count: ours(count, orch), given.runs)
    for pool in ("gevent", "threads"):
        if pool == "gevent" and importlib.util.find_spec("gevent") is None:
            print("gevent is not installed")
            continue
        options = ["-A", "waits", "worker", "-P", pool, "-c", "1000", "-l", "ERROR", "-Q", f"waits-{pool}"]
        measured(
            f"celery {pool}",
            ["celery", *options, "--without-gossip", "--without-mingle"],
            {},
            lambda count, queue=f"waits-{pool}": celery(count, queue),
            given.runs,
        )


if __name__ == "__main__":
    main()
