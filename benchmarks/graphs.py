"""Real workflow graphs on one worker with 16 threads and ``sleep`` bodies, scaled to a lower bound of about 5 s.

python benchmarks/graphs.py FOLDER --broker redis://127.0.0.1:6379/9 --store postgresql://…/bench
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from schedule import Job, greedy, lower_bound, read

from orchestra import Orchestrator, Task, Workflow

QUEUE = "benchmark-graphs"


def nap(seconds: float) -> None:
    """The body of every task."""
    time.sleep(seconds)


def run(orch: Orchestrator, name: str, jobs: list[Job]) -> float:
    """Run a graph and return its makespan."""
    import graphs  # the module as workers import it, since __main__ does not travel

    tasks = [Task(id=job.name, name=job.name, agent=graphs.nap, input=job.seconds) for job in jobs]
    needs = {job.name: [jobs[each].name for each in job.after] for job in jobs if job.after}
    begun = time.perf_counter()
    orch.submit_workflow(Workflow(name=name, tasks=tasks, dependencies=needs)).wait(120).raise_for_status()
    return time.perf_counter() - begun


def main() -> None:
    """Print a table row for each file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--store", required=True)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0, help="the lower bound to scale to")
    given = parser.parse_args()
    settings = {"ORCHESTRA_BROKER": given.broker, "ORCHESTRA_STORE": given.store, "ORCHESTRA_QUEUE": QUEUE}
    os.environ.update(settings, ORCHESTRA_MODULES="graphs")
    command = [sys.executable, "-m", "orchestra", "worker", "--pool", "threads", "--concurrency", str(given.slots)]
    here = str(Path(__file__).parent)
    worker = subprocess.Popen([*command, "--loglevel", "ERROR"], cwd=here, env={**os.environ, "PYTHONPATH": here})
    try:
        with Orchestrator() as orch:
            import graphs

            orch.submit(graphs.nap, 0.0).wait(30)
            print(f"{'graph':<44}{'steps':>6}{'makespan':>10}{'÷ bound':>9}{'÷ greedy':>10}")
            for path in sorted(given.folder.glob("*.json")):
                jobs = read(path)
                factor = given.seconds / lower_bound(jobs, given.slots)
                scaled = [replace(job, seconds=job.seconds * factor) for job in jobs]
                took = run(orch, path.stem, scaled)
                bound, greedily = lower_bound(scaled, given.slots), greedy(scaled, given.slots)
                print(
                    f"{path.stem:<44}{len(jobs):>6}{took:>9.2f}s{took / bound:>9.3f}{took / greedily:>10.3f}",
                    flush=True,
                )
    finally:
        worker.terminate()
        worker.wait(20)


if __name__ == "__main__":
    main()
