"""One SQLite file under many processes: producers, workers, and children that pools fork at any moment."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestra import WorkflowStatus
from orchestra.store.sql.store import SqlStore
from tests import bodies
from tests.claims import check_claims
from tests.cluster import ROOT, TASKS_PER_CHILD, Cluster
from tests.forks import Program
from tests.servers import PrivateRedis

PRODUCER = """
import sys
from orchestra import Orchestrator
from tests import bodies

with Orchestrator(modules=["tests"]) as orch:
    runs = [orch.submit_workflow(bodies.overlapping) for _ in range(5)]
    tasks = [orch.submit(bodies.echo, f"{sys.argv[1]}-{n}") for n in range(25)]
    orch.wait_all(runs, timeout=60)
    orch.wait_all(tasks, timeout=60)
    assert [task.output for task in tasks] == [f"{sys.argv[1]}-{n}" for n in range(25)]
    assert all(run.output["F"] == "F(E(C(A())))" for run in runs)
"""


@pytest.fixture
def cluster(private_redis: Callable[..., PrivateRedis], tmp_path: Path) -> Iterator[Cluster]:
    """A Redis and a store without workers."""
    with Cluster(tmp_path, private_redis().url) as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    opened = SqlStore(f"sqlite:///{tmp_path / 'state.db'}")
    yield opened
    opened.close()


def in_child(work: Callable[[], object], limit_s: int = 30) -> int:
    """Fork, work, and return the child's exit status; a child that takes too long is ended by a signal."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(limit_s)
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_child_that_is_forked_while_its_parent_writes_can_write(store: SqlStore) -> None:
    writing = threading.Event()

    def slowly(tx: object) -> None:
        writing.set()
        time.sleep(0.3)

    parent = threading.Thread(target=lambda: store._database.write(slowly))
    parent.start()
    assert writing.wait(30)
    # SQLite counts locks per process: a child that inherits the writer's waits for a transaction that never ends.
    assert in_child(lambda: store.emit("child.wrote", {}, 1.0)) == 0
    parent.join()
    store.emit("parent.wrote", {}, 2.0)
    events, _cursor = store.events(0)
    assert sorted(event.type for event in events) == ["child.wrote", "parent.wrote"]


def test_children_that_are_replaced_after_every_task_do_not_hang(cluster: Cluster) -> None:
    worker = cluster.worker("--concurrency", "2", env={TASKS_PER_CHILD: "1"})
    orch = cluster.orchestrator()
    tasks = [orch.submit(bodies.process_id) for _ in range(24)]
    orch.wait_all(tasks, timeout=60)
    assert len({task.output for task in tasks}) == 24
    for task in tasks:
        assert task.crashes == 0
        check_claims(orch, orch.get_run(task.id))
    assert "Traceback" not in worker.output


def test_many_processes_share_the_file_and_none_is_told_that_it_is_locked(cluster: Cluster) -> None:
    workers = [cluster.worker("--concurrency", "2"), cluster.worker("--pool", "threads", "--concurrency", "2")]
    program = cluster.folder / "producer.py"
    program.write_text(PRODUCER)
    producers = [
        Program(
            [sys.executable, program, str(number)],
            log=cluster.folder / f"producer-{number}.log",
            cwd=ROOT,
            env={**cluster.env, "PYTHONPATH": str(ROOT)},
        ).start()
        for number in range(3)
    ]
    for producer in producers:
        assert producer.wait(90) == 0, producer.tail()
    for process in [*workers, *producers]:
        assert "locked" not in process.output, process.tail()
        assert "trying again" not in process.output, process.tail()
    orch = cluster.orchestrator()
    assert {run.status for run in orch.runs(limit=1000)} == {WorkflowStatus.COMPLETED}
    assert cluster.noted("echo") == {f"echo {p}-{n}": 1 for p in range(3) for n in range(25)}
    assert cluster.noted()["G"] == 15
