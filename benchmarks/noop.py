"""A durable no-op step beside a bare Celery no-op with Redis results: prefork 2 each, interleaved, same machine.

    python benchmarks/noop.py --redis redis://127.0.0.1:6379/9 --store redis://127.0.0.1:6380/0 --runs 5

Counts work by one byte appended to a file for each body, so neither side is timed through its own results. The seconds
run from the first submit to the last body, and ours are one workflow of independent steps as well as single submits.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from celery import Celery

from orchestra import Orchestrator, Task, Workflow

HERE = str(Path(__file__).parent)
BROKER = os.environ.get("BENCH_REDIS", "redis://127.0.0.1:6379/9")
TICKS = Path(os.environ.get("BENCH_TICKS", tempfile.gettempdir() + "/orchestra-noop-ticks"))
app = Celery("noop", broker=BROKER, backend=BROKER)
app.conf.update(task_default_queue="benchmark-celery", task_acks_late=True, worker_prefetch_multiplier=32)


def tick() -> None:
    """Count one body."""
    fd = os.open(TICKS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(fd, b"x")
    os.close(fd)


@app.task(name="noop.bare")
def bare() -> None:
    """A bare Celery task."""
    tick()


def durable() -> None:
    """A step."""
    tick()


def until(count: int) -> None:
    """Wait for so many bodies."""
    end = time.monotonic() + 180
    while (TICKS.stat().st_size if TICKS.exists() else 0) < count:
        if time.monotonic() > end:
            raise TimeoutError(f"{TICKS.stat().st_size} of {count} bodies after 180 s")
        time.sleep(0.002)


def timed(submit: Callable[[], object], count: int) -> float:
    """Return the seconds from the first submit to the last body."""
    TICKS.unlink(missing_ok=True)
    begun = time.perf_counter()
    submit()
    until(count)
    return time.perf_counter() - begun


def start(command: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a worker."""
    full = {**os.environ, **env, "PYTHONPATH": HERE, "BENCH_TICKS": str(TICKS), "BENCH_REDIS": BROKER}
    return subprocess.Popen([sys.executable, "-m", *command], cwd=HERE, env=full)


def main() -> None:
    """Print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", required=True)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    import noop  # the module as workers import it, since __main__ does not travel

    env = {"ORCHESTRA_BROKER": BROKER, "ORCHESTRA_STORE": given.store, "ORCHESTRA_QUEUE": "benchmark-noop"}
    env["ORCHESTRA_MODULES"] = "noop"
    os.environ.update(env)
    celery = ["celery", "-A", "noop", "worker", "-c", "2", "-l", "ERROR", "--without-gossip", "--without-mingle"]
    ours = ["orchestra", "worker", "-c", "2", "-l", "ERROR"]
    workers = [start(celery, {}), start(ours, env)]
    times: dict[str, list[float]] = {"celery": [], "workflow": [], "submits": []}
    try:
        with Orchestrator() as orch:
            orch.submit(noop.durable).wait(30)
            noop.bare.apply_async()
            until(2)

            def workflow() -> None:
                tasks = [Task(name=f"s{n}", agent=noop.durable) for n in range(given.count)]
                orch.submit_workflow(Workflow(name="noop", tasks=tasks))

            for _ in range(given.runs):
                times["celery"].append(
                    timed(lambda: [noop.bare.apply_async() for _ in range(given.count)], given.count)
                )
                times["workflow"].append(timed(workflow, given.count))
                times["submits"].append(
                    timed(lambda: [orch.submit(noop.durable) for _ in range(given.count)], given.count)
                )
                time.sleep(1)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait(20)
    base = statistics.median(times["celery"])
    for name, each in times.items():
        middle = statistics.median(each)
        spread = f"{min(each):.2f}-{max(each):.2f}"
        print(f"{name:<10}{middle:>7.2f} s ({spread}){given.count / middle:>8.0f}/s{middle / base:>7.2f} × celery")


if __name__ == "__main__":
    main()
