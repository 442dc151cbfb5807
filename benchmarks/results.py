"""Result backends beside each other: waiting for 1,000 single results, and a chord of 1,000 whose worker is killed.

    python benchmarks/results.py roundtrips stock redis postgresql sqlite
    python benchmarks/results.py chord stock redis postgresql sqlite

A Redis of its own is the broker of all, and holds the results of `stock` (Celery's `redis://`) and of `redis` (ours).
Round trips: one after the other `add.delay(1).get()` with one prefork child, taking turns of 100. Chord: `kill -9` of
the worker and its children when 400 parts have run, then another worker; late acks and a visibility timeout of 3 s for
all.
"""

import argparse
import importlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType

from celery import chord

from tests.processes import Process, wait_until
from tests.servers import PrivateRedis, postgres_server

ROUNDS, TURN, PARTS, KILL_AFTER = 1000, 100, 1000, 400


def backend_url(kind: str, broker: str, folder: Path, servers: ExitStack) -> str:
    """Return the URL of empty results of a kind."""
    server = broker.removesuffix("/0")
    match kind:
        case "stock":
            return f"{server}/1"
        case "redis":
            return f"orchestra+{server}/2"
        case "sqlite":
            return f"orchestra+sqlite:///{folder}/results.db"
        case "postgresql":
            return f"orchestra+{servers.enter_context(postgres_server())}"
        case _:
            raise SystemExit(f"no such results: {kind!r}")


def application(kind: str, env: dict[str, str]) -> ModuleType:
    """Return the application of the tests, told where its servers are."""
    os.environ.update(env)
    sys.modules.pop("tests.results_app", None)
    return importlib.import_module("tests.results_app")


def worker(kind: str, number: int, concurrency: int, env: dict[str, str], folder: Path) -> Process:
    """Return a worker that is not started."""
    command = [sys.executable, "-m", "celery", "-A", "tests.results_app", "worker", "-n", f"{kind}{number}@%h"]
    more = ["-c", str(concurrency), "--without-gossip", "--without-mingle", "--loglevel", "INFO"]
    return Process([*command, *more], log=folder / f"{kind}{number}.log", env=env)


@contextmanager
def prepared(kinds: list[str]) -> Iterator[dict[str, tuple[ModuleType, dict[str, str]]]]:
    """Give the application and the environment of each kind; each has a broker's database of its own."""
    with ExitStack() as servers, tempfile.TemporaryDirectory() as name:
        redis = servers.enter_context(PrivateRedis())
        made: dict[str, tuple[ModuleType, dict[str, str]]] = {}
        for at, kind in enumerate(kinds):
            broker = f"{redis.url.removesuffix('/0')}/{8 + at}"
            env = {
                "RESULTS_BROKER": broker,
                "RESULTS_BACKEND": backend_url(kind, redis.url, Path(name), servers),
                "RESULTS_FOLDER": name,
            }
            made[kind] = application(kind, env), env
        yield made


def roundtrips(kinds: list[str]) -> None:
    """Print p50 and p99 of single results."""
    with prepared(kinds) as made, ExitStack() as workers:
        for kind, (_tasks, env) in made.items():
            workers.enter_context(worker(kind, 1, 1, env, Path(env["RESULTS_FOLDER"]))).wait_for("ready")
        seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
        for turn in range(-1, ROUNDS // TURN):
            for kind, (tasks, _env) in made.items():
                for _ in range(TURN if turn >= 0 else 20):  # the first turn warms up
                    begun = time.perf_counter()
                    assert tasks.add.delay(1).get(timeout=30) == 2
                    if turn >= 0:
                        seconds[kind].append(time.perf_counter() - begun)
    print("| results | p50 | p99 |\n|---|---|---|")
    for kind, took in seconds.items():
        p50, p99 = (1000 * statistics.quantiles(took, n=100)[at] for at in (49, 98))
        print(f"| {kind} | {p50:.2f} ms | {p99:.2f} ms |")


def killed_chord(kinds: list[str]) -> None:
    """Print whether a chord whose worker is killed completes, and when."""
    print("| results | result | undisturbed | with the kill |\n|---|---|---|---|")
    with prepared(kinds) as made:
        for kind, (tasks, env) in made.items():
            folder = Path(env["RESULTS_FOLDER"])
            header = [tasks.slow.s(n, 0.002) for n in range(PARTS)]
            with worker(kind, 1, 2, env, folder) as first:
                first.wait_for("ready")
                begun = time.monotonic()
                assert chord(header, tasks.total.s()).apply_async().get(timeout=120) == sum(range(PARTS))
                undisturbed = time.monotonic() - begun
                wanted = first.output.count("slow[") + 2 * KILL_AFTER  # a line when it comes, one when it is done
                begun = time.monotonic()
                result = chord(header, tasks.total.s()).apply_async()
                wait_until(partial(_has, first, wanted), 60, "parts")
                first.kill9()
            with worker(kind, 2, 2, env, folder) as second:
                second.wait_for("ready")
                try:
                    got = result.get(timeout=90)
                    said = "complete" if got == sum(range(PARTS)) else f"wrong: {got}"
                except Exception as error:
                    said = f"{type(error).__name__}: {error}"
                print(f"| {kind} | {said} | {undisturbed:.1f} s | {time.monotonic() - begun:.1f} s |", flush=True)


def _has(process: Process, lines: int) -> bool:
    return process.output.count("slow[") >= lines


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["roundtrips", "chord"])
    parser.add_argument("kinds", nargs="+", help="stock, redis, postgresql, sqlite")
    asked = parser.parse_args()
    {"roundtrips": roundtrips, "chord": killed_chord}[asked.what](asked.kinds)


if __name__ == "__main__":
    main()
