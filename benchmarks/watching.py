"""What metrics and live delivery cost: durable no-ops on a worker without either and on one with both, in turns.

    python benchmarks/watching.py --redis redis://127.0.0.1:6379/9 --store redis://127.0.0.1:6379/8 --pairs 5

Two workers of two processes each serve queues of their own, on the same broker and store. One serves metrics, which are
scraped every second, tells of its commits over the broker, and has this process hear of each end of a step; the other
does none of that. The seconds run from the submit of one workflow of independent steps, or with `--one-by-one` from the
first of as many submits, to the last body; the order of the two changes from pair to pair. `--deaf` leaves out who
hears, to see what the worker alone pays. Beside the seconds there is the processor time of the worker's processes, and
of these with Redis and this process, who submits and listens: it says the same where the machine is busy with others.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import redis

from orchestra import Orchestrator, Task, Workflow
from orchestra.bus.live import Live

HERE = str(Path(__file__).parent)
TICKS = Path(os.environ.get("BENCH_TICKS", tempfile.gettempdir() + "/orchestra-watching-ticks"))
PORT = 9807
AGENT = "watching:durable"  # as workers import it, since __main__ does not travel
WATCHED = "BENCH_WATCHED"
if os.environ.get(WATCHED) == "0":
    Live.tell = lambda self: None
if WATCHED in os.environ:
    orch = Orchestrator(modules=["watching"])


def durable() -> None:
    """A step: one byte more in a file, so that nobody is timed through his own results."""
    with TICKS.open("ab", buffering=0) as ticks:
        ticks.write(b"x")


def timed(submit: Callable[[], object], count: int) -> float:
    """Return the seconds from the submit to the last body."""
    TICKS.unlink(missing_ok=True)
    begun = time.perf_counter()
    submit()
    while (TICKS.stat().st_size if TICKS.exists() else 0) < count:
        if time.perf_counter() - begun > 180:
            raise TimeoutError(f"{count} bodies did not end within 180 s")
        time.sleep(0.002)
    return time.perf_counter() - begun


def worker(queue: str, watched: bool, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a worker that processes one queue."""
    metrics = ["--metrics-port", str(PORT)] if watched else []
    options = ["--app", "watching:orch", "-c", "2", "-l", "ERROR", "-Q", queue, *metrics]
    full = {**os.environ, **env, "PYTHONPATH": HERE, "BENCH_TICKS": str(TICKS), WATCHED: str(int(watched))}
    return subprocess.Popen([sys.executable, "-m", "orchestra", "worker", *options], cwd=HERE, env=full)


def scrape(over: threading.Event) -> None:
    """Be a Prometheus that asks every second."""
    while not over.wait(1.0):
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=10) as answer:
            answer.read()


def main() -> None:
    """Print the median of each and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redis", required=True)
    parser.add_argument("--store", required=True)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--deaf", action="store_true")
    parser.add_argument("--one-by-one", action="store_true")
    given = parser.parse_args()
    env = {"ORCHESTRA_BROKER": given.redis, "ORCHESTRA_STORE": given.store, "ORCHESTRA_MODULES": "watching"}
    os.environ.update(env)
    queues = {"plain": "benchmark-plain", "watched": "benchmark-watched"}
    workers = [worker(queue, name == "watched", env) for name, queue in queues.items()]
    times: dict[str, list[float]] = {name: [] for name in queues}
    used: dict[str, list[float]] = {name: [] for name in queues}
    total: dict[str, list[float]] = {name: [] for name in queues}
    servers = [redis.Redis.from_url(url) for url in dict.fromkeys((given.redis, given.store)) if "redis" in url]
    heard: list[str] = []
    try:
        with Orchestrator() as orch:
            make = one_by_one if given.one_by_one else at_once
            submits = {queue: make(orch, queue, given.count) for queue in queues.values()}
            for queue in queues.values():
                orch.submit(AGENT, queue=queue).wait(60)
            for pair in range(given.pairs):
                for at in (pair % 2, 1 - pair % 2):
                    name, queue = list(queues.items())[at]
                    before, others = processor(workers[at].pid), time.process_time() + of_servers(servers)
                    times[name].append(measured(submits[queue], name, given.count, None if given.deaf else heard))
                    used[name].append(processor(workers[at].pid) - before)
                    total[name].append(used[name][-1] + time.process_time() + of_servers(servers) - others)
    finally:
        for each in workers:
            each.terminate()
        for each in workers:
            each.wait(30)
    for what, found in (("seconds", times), ("worker", used), ("all", total)):
        for name, each in found.items():
            middle = statistics.median(each)
            print(
                f"{what:<10}{name:<8}{middle:>7.2f} s ({min(each):.2f}-{max(each):.2f}){given.count / middle:>8.0f}/s"
            )
        ratios = [watched / plain for plain, watched in zip(found["plain"], found["watched"], strict=True)]
        print(f"{what:<10}watched ÷ plain {statistics.median(ratios):.3f} (median of {len(ratios)} pairs)")
    print(f"{len(heard)} events heard, of which there were {given.count * given.pairs}")


def processor(pid: int) -> float:
    """Return the processor seconds that a process and its children have used."""
    root = psutil.Process(pid)
    return sum(sum(each.cpu_times()[:2]) for each in (root, *root.children(recursive=True)))


def at_once(orch: Orchestrator, queue: str, count: int) -> Callable[[], object]:
    """Return what submits all as one workflow."""
    work = Workflow(name="noop", tasks=[Task(name=f"s{n}", agent=AGENT, queue=queue) for n in range(count)])
    return lambda: orch.submit_workflow(work)


def one_by_one(orch: Orchestrator, queue: str, count: int) -> Callable[[], object]:
    """Return what submits as many single tasks."""
    return lambda: [orch.submit(AGENT, queue=queue) for _ in range(count)]


def of_servers(servers: list[redis.Redis]) -> float:
    """Return the processor seconds that Redis servers have used."""
    found = [server.info("cpu") for server in servers]
    return sum(each["used_cpu_user"] + each["used_cpu_sys"] for each in found)


def measured(submit: Callable[[], object], name: str, count: int, heard: list[str] | None) -> float:
    """Run no-ops, watched or not, and return the seconds."""
    if name == "plain":
        return timed(submit, count)
    over = threading.Event()
    scraper = threading.Thread(target=scrape, args=[over])
    scraper.start()
    try:
        if heard is None:
            return timed(submit, count)
        with Orchestrator() as listener:
            listener.on("task.completed", lambda event: heard.append(event.id))
            return timed(submit, count)
    finally:
        over.set()
        scraper.join()


if __name__ == "__main__":
    main()
