"""Large graphs: a fan-out of 10,000 with join, and 10 layers × 200 fully connected.

    python benchmarks/large.py --broker redis://127.0.0.1:6379/9 --store postgresql://…/bench

Prints seconds of submit, seconds to the end, and the workers' memory before and after. The soak test of large graphs
weighs the messages as well.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from orchestra import Orchestrator, Task, Workflow

HERE = str(Path(__file__).parent)


def nothing() -> None:
    """The body of every step."""


def count(outputs: dict[str, object] | None = None) -> int:
    """The join."""
    return len(outputs or {})


def fan_out(size: int) -> Workflow:
    """Return so many steps and one that joins them."""
    import large

    parts = [Task(name=f"part-{n}", agent=large.nothing) for n in range(size)]
    return Workflow(
        name="fan-out",
        tasks=[*parts, Task(name="join", agent=large.count)],
        dependencies={"join": [each.name for each in parts]},
    )


def layers(depth: int, width: int) -> Workflow:
    """Return layers in which every step waits for all of the layer before."""
    import large

    names = [[f"{layer}-{n}" for n in range(width)] for layer in range(depth)]
    tasks = [Task(name=name, agent=large.nothing) for layer in names for name in layer]
    needs = {name: names[layer - 1] for layer in range(1, depth) for name in names[layer]}
    return Workflow(name="layers", tasks=tasks, dependencies=needs)


def memory(process: subprocess.Popen[bytes]) -> float:
    """Return the resident megabytes of a worker and its children."""
    root = psutil.Process(process.pid)
    return sum(each.memory_info().rss for each in [root, *root.children(recursive=True)]) / 1e6


def main() -> None:
    """Print a table row for each graph."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--store", required=True)
    given = parser.parse_args()
    env = {"ORCHESTRA_BROKER": given.broker, "ORCHESTRA_STORE": given.store, "ORCHESTRA_QUEUE": "benchmark-large"}
    os.environ.update(env, ORCHESTRA_MODULES="large")
    command = [sys.executable, "-m", "orchestra", "worker", "-c", "2", "-l", "ERROR"]
    worker = subprocess.Popen(command, cwd=HERE, env={**os.environ, "PYTHONPATH": HERE})
    try:
        with Orchestrator() as orch:
            import large

            orch.submit(large.nothing).wait(30)
            for workflow in (large.fan_out(10_000), large.layers(10, 200)):
                before = memory(worker)
                begun = time.perf_counter()
                run = orch.submit_workflow(workflow)
                submitted = time.perf_counter() - begun
                run.wait(300).raise_for_status()
                took = time.perf_counter() - begun
                print(
                    f"{workflow.name:<10}{len(workflow.tasks):>7} steps  submit {submitted:5.2f} s  end {took:6.2f} s"
                    f"  worker memory {before:.0f} → {memory(worker):.0f} MB",
                    flush=True,
                )
    finally:
        worker.terminate()
        worker.wait(20)


if __name__ == "__main__":
    sys.path.insert(0, HERE)
    main()
