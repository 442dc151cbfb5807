"""Pool children go on with short steps by themselves, and what their parent has to know of it."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from orchestra import Orchestrator, Task, TaskStatus, Workflow, WorkflowRun
from orchestra.runtime.hand import NOT_BEGUN
from tests import bodies
from tests.claims import check_claims
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
    return cluster.worker("-c", "1", "-l", "INFO")


def looks(orch: Orchestrator, times: int) -> None:
    """Wait until the worker has looked so often at what it holds: before each look it removes leases of the dead."""
    store = orch.parts.store
    (its,) = store.leases()
    for at in range(times):
        dead = replace(its, incarnation=f"dead/{at}", worker="dead", boot_id="before the machine was started anew")
        store.renew(dead)
        wait_until(lambda dead=dead: dead not in store.leases(), 30, "the worker to look")


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


def only_given_back(orch: Orchestrator, run: WorkflowRun) -> None:
    """Assert that no step was claimed again, save those that a child had in hand and not begun for too long."""
    check_claims(orch, run)
    told = orch.history(run=run.id, type="task.retrying", limit=100_000)
    assert {event.data["error"] for event in told} <= {NOT_BEGUN}
    assert {each.crashes for each in run.tasks} == {0}


def held_without_message(cluster: Cluster, orch: Orchestrator, worker: Process) -> tuple[WorkflowRun, str, int]:
    """Return a run whose last step runs in a child that was not sent it, what to release it with, and the process."""
    for at in range(TRIES):
        name = f"{worker.pid}-{at}"
        run = chain(orch, 8, name)
        pid = cluster.wait_for_note(f"{name} begins").pid
        if f"{run.id}.7.0" not in received(worker, run):
            return run, name, pid
        cluster.release(name)
        run.wait(30)
    pytest.fail(f"no child went on by itself in {TRIES} chains\n{worker.tail()}")


def test_most_links_of_a_chain_of_short_steps_need_no_message(orch: Orchestrator, worker: Process) -> None:
    seen: list[int] = []
    for _ in range(TRIES):
        run = chain(orch, 40)
        run.wait(30)
        assert [each.status for each in run.tasks] == [TaskStatus.COMPLETED] * 40
        only_given_back(orch, run)
        told = [event.type for event in orch.history(run=run.id, limit=1000)]
        assert told.count("task.started") == sum(each.claims for each in run.tasks)
        assert told.count("task.completed") == 40
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
    run.wait(30)
    assert again.pid != pid
    assert [each.crashes for each in run.tasks] == [0] * 7 + [1]
    check_claims(orch, run)


def fan(orch: Orchestrator, agent: object, width: int, last: str | None = None) -> WorkflowRun:
    """Submit a step, many that wait for it, and one behind these. The one in the middle is given a name."""
    names = [f"{n}" for n in range(width)]
    middle = [Task(name=each, agent=agent, input=last if each == names[width // 2] else None) for each in names]
    ends = [Task(name=each, agent=agent, input=None) for each in ("first", "last")]
    needs = {"last": names, **{each: ["first"] for each in names}}
    return orch.submit_workflow(Workflow(name="fan", tasks=[*ends, *middle], dependencies=needs))


def test_a_child_that_is_killed_with_several_steps_in_hand_costs_one_crash_of_the_one_that_it_was_at(
    cluster: Cluster, orch: Orchestrator, worker: Process
) -> None:
    for at in range(TRIES):
        fan(orch, bodies.nothing_or_kill_child, 60).wait(30)
        run = fan(orch, bodies.nothing_or_kill_child, 60, f"{at}")
        run.wait(30)
        steps = {each.name: each.crashes for each in run.tasks}
        assert steps.pop("30") == 1, worker.tail()
        assert set(steps.values()) == {0}
        again = sorted(name for name, times in check_claims(orch, run).items() if times and name != "30")
        if again:
            print(f"{len(again)} steps were in hand: {again}")
            return
    pytest.fail(f"no child held several steps in {TRIES} runs")


def test_a_step_that_takes_long_keeps_nobody_waiting_who_was_behind_it(cluster: Cluster, orch: Orchestrator) -> None:
    cluster.worker("-c", "2", "-l", "INFO")
    for at in range(TRIES):
        fan(orch, bodies.hold_or_not, 60).wait(30)
        name = f"{os.getpid()}-{at}"
        run = fan(orch, bodies.hold_or_not, 60, name)
        cluster.wait_for_note(f"{name} begins")
        done = {TaskStatus.COMPLETED: 60, TaskStatus.RUNNING: 1, TaskStatus.PENDING: 1}
        wait_until(lambda run=run, done=done: orch.counts(run.id) == done, 30, "all others to be done")
        cluster.release(name)
        run.wait(30)
        if any(each.claims > 1 for each in run.tasks):
            return
    pytest.fail(f"nothing was behind the step that takes long in {TRIES} runs")


def test_a_step_that_holds_on_for_long_is_not_taken_from_its_child(
    cluster: Cluster, orch: Orchestrator, worker: Process
) -> None:
    run, name, pid = held_without_message(cluster, orch, worker)
    looks(orch, 4)  # the last of them may not be over
    cluster.release(name)
    run.wait(30)
    only_given_back(orch, run)
    assert [each.pid for each in cluster.notes(f"{name} begins")] == [pid]


def test_a_cancelled_step_that_takes_no_notice_is_killed(cluster: Cluster, orch: Orchestrator, worker: Process) -> None:
    run, _name, pid = held_without_message(cluster, orch, worker)
    assert orch.cancel(run.id)
    wait_until(lambda: "its process is killed" in worker.output, 30, "the parent to kill its child")
    wait_until(lambda: not lives(pid), 30, "the child to be gone")
    assert [each.status for each in run.tasks] == [TaskStatus.COMPLETED] * 7 + [TaskStatus.CANCELLED]
    assert orch.submit(bodies.echo, 1).wait(30).output == 1


def test_every_step_has_a_message_where_monitors_watch(orch: Orchestrator, worker: Process) -> None:
    orch.parts.app.control.enable_events()  # as Flower does

    def all_have() -> bool:
        run = chain(orch, 20)
        run.wait(30)
        return len(received(worker, run)) == 20

    wait_until(all_have, 30, "a chain of 20 with as many messages")


def test_every_step_has_a_message_where_continuing_is_left_out(cluster: Cluster, orch: Orchestrator) -> None:
    worker = cluster.worker("-c", "1", "-l", "INFO", env={"ORCHESTRA_WITHOUT": "continuation"})
    run = chain(orch, 20)
    run.wait(30)
    assert len(received(worker, run)) == 20
