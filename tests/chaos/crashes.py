"""What crash tests have in common: a workload of 50 ms steps, victims, and how soon what they held goes on."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from orchestra import Orchestrator, Task, TaskStatus, Workflow, WorkflowRun
from orchestra.store.contract import ClaimRef
from tests import bodies
from tests.claims import check_claims
from tests.cluster import Cluster
from tests.processes import Process


def many_short_steps(chains: int, links: int) -> Workflow:
    """Return chains of 50 ms steps that end in one join."""
    tasks = [
        [Task(f"c{c}-{n}", bodies.short, kwargs={"name": f"c{c}-{n}"}) for n in range(links)] for c in range(chains)
    ]
    after = {chain[n].name: [chain[n - 1].name] for chain in tasks for n in range(1, links)}
    last = Task("last", bodies.short, kwargs={"name": "last"})
    after["last"] = [chain[-1].name for chain in tasks]
    return Workflow("short steps", [*[task for chain in tasks for task in chain], last], after)


@dataclass(frozen=True, slots=True)
class Orphan:
    """A step that a victim was running when it was killed."""

    claim: ClaimRef
    killed_at: float


class Morgue:
    """Remembers who was killed when, and what they held."""

    def __init__(self, cluster: Cluster, orch: Orchestrator) -> None:
        self._cluster, self._orch = cluster, orch
        self._orphans: list[Orphan] = []

    def kill(self, worker: Process) -> None:
        """Kill the whole process group of a worker."""
        store = self._orch.parts.store
        (lease,) = [each for each in store.leases() if each.pid == worker.pid]
        # Others of its machine reopen what it holds at once: so that is asked before, while it stands still.
        os.killpg(worker.pid, signal.SIGSTOP)
        held = store.held(lease.incarnation)
        killed_at = time.time()
        worker.kill9()
        self._orphans += [Orphan(claim, killed_at) for claim in held]

    def delays(self) -> list[float]:
        """Return for each orphan, when all have ended, how many seconds passed from the kill to its next begin."""
        store = self._orch.parts.store
        orphans: list[tuple[str, float]] = []
        for each in self._orphans:
            record = store.step(each.claim.ref.step)
            assert record is not None
            if record.claims > each.claim.claim:  # or the server had the record of its end on its way
                orphans.append((record.name, each.killed_at))
        begins: dict[str, list[float]] = {}
        for note in self._cluster.notes():
            name, _, what = note.what.partition(" ")
            if what == "begins":
                begins.setdefault(name, []).append(note.time)
        return sorted(next(at for at in begins[name] if at > killed_at) - killed_at for name, killed_at in orphans)


def report(what: str, delays: Sequence[float]) -> None:
    """Print the figures of a test."""
    ordered = sorted(delays)
    p50, p99 = (ordered[len(ordered) * percent // 100] for percent in (50, 99))
    print(
        f"{what}: {len(delays)} orphaned steps, claimed again after"
        f" p50 {p50:.2f} s, p99 {p99:.2f} s, max {max(delays):.2f} s"
    )


def each_once(orch: Orchestrator, run: WorkflowRun) -> None:
    """Assert that each step of a run has completed, was recorded once, and reported once."""
    tasks = run.tasks
    assert {task.status for task in tasks} == {TaskStatus.COMPLETED}, Counter(task.status for task in tasks)
    assert {task.attempts for task in tasks} == {1}
    check_claims(orch, run)
    reported = Counter(event.task_id for event in orch.history(run=run.id, type="task.completed", limit=100_000))
    assert (len(reported), reported.total()) == (len(tasks), len(tasks))


class Supervisor:
    """Starts a worker anew whenever it has died, as a process manager does."""

    def __init__(self, cluster: Cluster, workers: int, *options: str) -> None:
        self.starts = 0
        self._cluster, self._options = cluster, options
        self._workers = [self._start() for _ in range(workers)]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _start(self) -> Process:
        self.starts += 1
        return self._cluster.worker(*self._options, ready=False)

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self._workers = [each if each.alive else self._start() for each in self._workers]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def stopped(worker: Process, number: int) -> None:
    """Send a signal to a worker and all of its children."""
    os.killpg(worker.pid, number)
