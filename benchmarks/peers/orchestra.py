"""Orchestra: every step recorded, in Redis, in PostgreSQL, or embedded in a SQLite file."""

import os
from itertools import pairwise

from benchmarks import bodies
from orchestra import Orchestrator, Task, Workflow

VERSIONS = ("orchestra-celery", "celery", "kombu", "redis")
VARIANT = os.environ["BENCH_VARIANT"]
EMBEDDED = VARIANT == "embedded"
if EMBEDDED:
    slots = {"slots": 16, "waits": 1000}.get(os.environ["BENCH_WORKERS"], 8)
    orch = Orchestrator(state_file=os.environ["BENCH_FOLDER"] + "/state.db", concurrency=slots)
else:
    store = os.environ["BENCH_STORE" if VARIANT == "redis" else "BENCH_POSTGRESQL"]
    orch = Orchestrator(broker=os.environ["BENCH_REDIS"], store=store, modules=["benchmarks"])


def workers(kind: str) -> list[list[str]]:
    if EMBEDDED:
        return []
    options = {
        "processes": ["-c", "2"],
        "slots": ["-P", "threads", "-c", "16"],
        "waits": ["-P", "asyncio", "-c", "1000"],
    }
    return [["orchestra", "worker", "-A", "benchmarks.peers.orchestra:orch", *options[kind], "-l", "ERROR"]]


def noop(count: int) -> None:
    for _ in range(count):
        orch.submit(bodies.noop)


def chain(length: int, count: int) -> None:
    names = [f"step-{n}" for n in range(length)]
    needs = {after: [before] for before, after in pairwise(names)}
    for _ in range(count):
        tasks = [Task(name=name, agent=bodies.step) for name in names]
        orch.submit_workflow(Workflow(name="chain", tasks=tasks, dependencies=needs))


def fan_out(width: int) -> None:
    parts = [f"part-{n}" for n in range(width)]
    tasks = [Task(name=name, agent=bodies.noop) for name in parts] + [Task(name="join", agent=bodies.step)]
    orch.submit_workflow(Workflow(name="fan-out", tasks=tasks, dependencies={"join": parts}))


def layers(depth: int, width: int) -> None:
    names = [[f"{layer}-{n}" for n in range(width)] for layer in range(depth)]
    tasks = [Task(name=name, agent=bodies.noop) for layer in names for name in layer]
    needs = {name: names[layer - 1] for layer in range(1, depth) for name in names[layer]}
    orch.submit_workflow(Workflow(name="layers", tasks=tasks, dependencies=needs))


def waits(count: int, seconds: float) -> None:
    tasks = [Task(name=f"wait-{n}", agent=bodies.anap, input=seconds) for n in range(count)]
    orch.submit_workflow(Workflow(name="waits", tasks=tasks))


def graph(steps: list[tuple[float, list[int]]]) -> None:
    tasks = [Task(name=f"t{n}", agent=bodies.nap, input=seconds) for n, (seconds, _) in enumerate(steps)]
    needs = {f"t{n}": [f"t{each}" for each in after] for n, (_, after) in enumerate(steps) if after}
    orch.submit_workflow(Workflow(name=f"graph-{len(steps)}", tasks=tasks, dependencies=needs))


def stamp(begun: int) -> None:
    orch.submit(bodies.stamp, input=begun)


def result() -> None:
    orch.submit(bodies.noop).wait(30)


if not EMBEDDED:  # there, the producer is the worker

    def slow(seconds: float) -> None:
        orch.submit(bodies.slow, input=seconds)
