"""Pool children go on with short steps by themselves, and what their parent has to know of it."""

import os
import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from orchestra import Orchestrator, Task, TaskStatus, Workflow, WorkflowRun
from tests import bodies
from tests.cluster import Cluster
from tests.processes import Process, lives, wait_until
from tests.servers import PrivateRedis

TRIES = 20
"""On a busy machine even short bodies take long: whether a certain step is continued with is then a matter of luck."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with PrivateRedis() as server, Cluster(tmp_path, server.url) as made:
        yield made


@pytest.fixture
def orch(cluster: Cluster) -> Orchestrator:
    return cluster.orchestrator()


@pytest.fixture
def worker(cluster: Cluster) -> Process:
    process = cluster.worker("-c", "1", "-l", "INFO")
    time.sleep(1.2)  # until its parent has allowed it
    return process


def chain(orch: Orchestrator, links: int, last: str | None = None) -> WorkflowRun:
    """Submit a chain of short steps, of which the last may hold until it is released."""
    names = [f"{n}" for n in range(links)]
    tasks = [Task(name=name, agent=bodies.hold_or_not, input=last if name == names[-1] else None) for name in names]
    needs = {after: [before] for before, after in pairwise(names)}
    return orch.submit_workflow(Workflow(name="chain", tasks=tasks, dependencies=needs))


def received(worker: Process, run: WorkflowRun) -> set[str]:
    """Return the Celery ids of a run's steps that came to the worker as messages."""
    words = (line.split() for line in worker.output.splitlines() if line.endswith(" received"))
    return {word.partition("[")[2].rstrip("]") for line in words for word in line if f"[{run.id}." in word}


def held_without_message(cluster: Cluster, orch: Orchestrator, worker: Process) -> tuple[WorkflowRun, str, int]:
    """Return a run whose last step runs in a child that was not sent it, what to release it with, and the process."""
    for at in range(TRIES):
        name = f"{worker.pid}-{at}"
        run = chain(orch, 8, name)
        pid = cluster.wait_for_note(f"{name} begins").pid
        if f"{run.id}.7.0" not in received(worker, run):
            return run, name, pid
        cluster.release(name)
        run.wait(20)
    pytest.fail(f"no child went on by itself in {TRIES} chains\n{worker.tail()}")


def test_most_links_of_a_chain_of_short_steps_need_no_message(orch: Orchestrator, worker: Process) -> None:
    seen: list[int] = []
    for _ in range(TRIES):
        run = chain(orch, 40)
        run.wait(30)
        assert [each.status for each in run.tasks] == [TaskStatus.COMPLETED] * 40
        assert [each.claims for each in run.tasks] == [1] * 40
        told = [event.type for event in orch.history(run=run.id)]
        assert (told.count("task.started"), told.count("task.completed")) == (40, 40)
        seen.append(len(received(worker, run)))
        if seen[-1] <= 20:
            return
    pytest.fail(f"messages of chains of 40: {seen}")


def test_a_child_that_is_killed_at_such_a_step_costs_one_crash_of_that_step(
    cluster: Cluster, orch: Orchestrator, worker: Process
) -> None:
    run, name, pid = held_without_message(cluster, orch, worker)
    os.kill(pid, signal.SIGKILL)
    at = time.monotonic()
    again = cluster.wait_for_note(f"{name} begins", 2)
    print(f"claimed again after {time.monotonic() - at:.2f} s")
    cluster.release(name)
    run.wait(20)
    assert again.pid != pid
    assert [(each.claims, each.crashes) for each in run.tasks] == [(1, 0)] * 7 + [(2, 1)]


def test_a_step_that_holds_on_for_long_is_not_taken_from_its_child(
    cluster: Cluster, orch: Orchestrator, worker: Process
) -> None:
    run, name, pid = held_without_message(cluster, orch, worker)
    time.sleep(3.5)  # three looks of the parent at what it holds
    cluster.release(name)
    run.wait(20)
    assert [each.claims for each in run.tasks] == [1] * 8
    assert [each.pid for each in cluster.notes(f"{name} begins")] == [pid]


def test_a_cancelled_step_that_takes_no_notice_is_killed(cluster: Cluster, orch: Orchestrator, worker: Process) -> None:
    run, _name, pid = held_without_message(cluster, orch, worker)
    assert orch.cancel(run.id)
    wait_until(lambda: "its process is killed" in worker.output, 15, "the parent to kill its child")
    wait_until(lambda: not lives(pid), 10, "the child to be gone")
    assert [each.status for each in run.tasks] == [TaskStatus.COMPLETED] * 7 + [TaskStatus.CANCELLED]
    assert orch.submit(bodies.echo, 1).wait(20).output == 1


def test_every_step_has_a_message_where_monitors_watch(orch: Orchestrator, worker: Process) -> None:
    orch.parts.app.control.enable_events()  # as Flower does

    def all_have() -> bool:
        run = chain(orch, 20)
        run.wait(30)
        return len(received(worker, run)) == 20

    wait_until(all_have, 20, "a chain of 20 with as many messages")


def test_every_step_has_a_message_where_continuing_is_left_out(cluster: Cluster, orch: Orchestrator) -> None:
    worker = cluster.worker("-c", "1", "-l", "INFO", env={"ORCHESTRA_WITHOUT": "continuation"})
    time.sleep(1.2)
    run = chain(orch, 20)
    run.wait(30)
    assert len(received(worker, run)) == 20
