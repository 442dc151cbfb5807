"""The main job on Redis: this process submits, worker processes of each pool run, a SQLite file is between them."""

import contextlib
import queue
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestra import Orchestrator, RetryPolicy, Task, TaskStatus, Workflow, WorkflowStatus
from tests import bodies
from tests.claims import check_claims
from tests.cluster import Cluster
from tests.processes import lives, wait_until
from tests.servers import PrivateRedis

SLOW_S = 4.0


@pytest.fixture(scope="module", params=["prefork", "threads", "solo"])
def pool(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def cluster(pool: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One worker of a pool, with two slots where the pool has several."""
    with PrivateRedis() as server, Cluster(tmp_path_factory.mktemp(pool), server.url) as made:
        made.worker("--pool", pool, "--concurrency", "2")
        yield made


@pytest.fixture(scope="module")
def orch(cluster: Cluster) -> Orchestrator:
    return cluster.orchestrator()


def test_a_task_runs_in_a_worker_process(orch: Orchestrator, cluster: Cluster) -> None:
    done = orch.submit(bodies.echo, {"a": [1, "ü"]}, metadata={"customer": "c-17"}).wait(30)
    assert (done.status, done.output, done.attempts) == (TaskStatus.COMPLETED, {"a": [1, "ü"]}, 1)
    assert done.metadata == {"customer": "c-17"}
    times = [each for each in (done.created_at, done.started_at, done.completed_at) if each is not None]
    assert len(times) == 3
    assert times == sorted(times)
    assert cluster.noted("echo {'a'") == {"echo {'a': [1, 'ü']}": 1}


def test_overlapping_joins_start_each_step_when_its_own_predecessors_are_done(
    orch: Orchestrator, cluster: Cluster
) -> None:
    run = orch.submit_workflow(bodies.overlapping).wait(30)
    assert run.status is WorkflowStatus.COMPLETED, run.error
    assert run.output == {"D": "D(A(),B())", "F": "F(E(C(A())))", "G": "G(A(),B(),E(C(A())))"}
    assert all(task.attempts == 1 and task.crashes == 0 for task in run.tasks)
    check_claims(orch, run)
    noted = [each.what for each in cluster.notes() if each.what in "ABCDEFG"]
    assert sorted(noted) == list("ABCDEFG")


def test_a_map_runs_a_step_per_element_and_joins_them_in_order(orch: Orchestrator) -> None:
    run = orch.submit_workflow(bodies.squares, 30).wait(30)
    assert (run.status, run.output) == (WorkflowStatus.COMPLETED, sum(n * n for n in range(30)))
    assert len(run.tasks) == 3 + 30


def test_an_empty_map_is_done_at_once(orch: Orchestrator) -> None:
    assert orch.submit_workflow(bodies.squares, 0).wait(30).output == 0


def test_a_workflow_of_task_objects_passes_outputs_on(orch: Orchestrator) -> None:
    gather = Task("gather", bodies.echo, "sources")
    analyse = Task("analyse", bodies.echo, lambda: f"analysed {gather.output}")
    write = Task("write", bodies.echo)
    chain = Workflow("report", [gather, analyse, write], {"analyse": ["gather"], "write": ["analyse"]})
    assert orch.submit_workflow(chain).wait(30).output == "analysed sources"
    assert write.output == "analysed sources"


def test_a_failure_ends_the_run_and_says_so_on_what_it_kept_from_running(orch: Orchestrator) -> None:
    first, second = Task("first", bodies.boom, "on purpose"), Task("second", bodies.echo)
    run = orch.submit_workflow(Workflow("failing", [first, second], {"second": ["first"]})).wait(30)
    assert run.status is WorkflowStatus.FAILED
    assert first.status is TaskStatus.FAILED
    assert first.error is not None
    assert (first.error.type, first.error.message) == ("ValueError", "on purpose")
    assert "bodies.py" in first.error.traceback
    assert second.status is TaskStatus.SKIPPED
    assert "'first'" in str(second.error)


def test_a_retry_policy_is_kept_by_workers(orch: Orchestrator, cluster: Cluster) -> None:
    value = f"policy-{time.time()}"
    done = orch.submit(bodies.stubborn, value).wait(30)
    assert (done.status, done.output, done.attempts) == (TaskStatus.COMPLETED, value, 3)
    assert cluster.noted(f"third_time {value}").total() == 3


def test_attempts_end_with_the_last_error(orch: Orchestrator) -> None:
    done = orch.submit(bodies.boom, "always", retry=RetryPolicy(2, delay=0.02)).wait(30)
    assert (done.status, done.attempts, str(done.error)) == (TaskStatus.FAILED, 2, "always")


def test_handlers_in_the_producer_hear_what_happens_on_workers(orch: Orchestrator) -> None:
    heard: queue.SimpleQueue[tuple[str, object]] = queue.SimpleQueue()

    @orch.on("task.completed")
    def completed(task: Task) -> None:
        heard.put(("task", task.output))

    @orch.on("workflow.completed")
    def ended(run: object) -> None:
        heard.put(("run", run))

    run = orch.submit_workflow(Workflow("two", [Task("a", bodies.echo, 1), Task("b", bodies.echo)], {"b": ["a"]}))
    found = [heard.get(timeout=30) for _ in range(3)]
    assert found[:2] == [("task", 1), ("task", 1)]
    assert getattr(found[2][1], "id", None) == run.id


def test_a_callback_is_called_once_with_the_ended_task(orch: Orchestrator) -> None:
    ended: queue.SimpleQueue[Task] = queue.SimpleQueue()
    orch.submit(bodies.echo, "callback", callback=ended.put)
    orch.submit(bodies.boom, "callback", callback=ended.put)
    found = [ended.get(timeout=30) for _ in range(2)]
    assert sorted(str(each.status) for each in found) == ["COMPLETED", "FAILED"]
    # Whatever came of the first two would come before what comes of a third.
    last = orch.submit(bodies.echo, "last", callback=ended.put)
    assert ended.get(timeout=30).id == last.id
    assert ended.empty()


def test_a_queued_step_that_is_cancelled_never_runs(orch: Orchestrator, cluster: Cluster, pool: str) -> None:
    slots = 1 if pool == "solo" else 2
    blockers = [orch.submit(bodies.hold, f"blocker {n}") for n in range(slots)]
    cluster.wait_for_note("blocker", slots)
    victim = orch.submit(bodies.echo, "cancelled before")
    assert orch.cancel(victim.id)
    for n in range(slots):
        cluster.release(f"blocker {n}")
    orch.wait_all(blockers, timeout=30)
    orch.submit(bodies.noop).wait(30)
    assert victim.wait(30).status is TaskStatus.CANCELLED
    assert not orch.cancel(victim.id)
    assert not cluster.noted("echo cancelled before")


def test_the_late_outcome_of_a_cancelled_step_is_discarded(orch: Orchestrator, cluster: Cluster) -> None:
    for at in range(10):
        name = f"cancelled {at}"
        running = orch.submit(bodies.hold, name)
        pid = cluster.wait_for_note(f"{name} begins").pid
        assert orch.cancel(running.id)
        assert running.wait(30).status is TaskStatus.CANCELLED
        cluster.release(name)
        wait_until(lambda name=name, pid=pid: cluster.notes(f"{name} ends") or not lives(pid), 30, "the body's end")
        orch.submit(bodies.noop).wait(30)
        assert orch.get_task(running.id).status is TaskStatus.CANCELLED
        assert orch.get_task(running.id).output is None
        if cluster.notes(f"{name} ends"):  # it was not killed, because this process stalled and let it wait for long
            return
    pytest.fail("no body came to its end")


def test_a_body_that_runs_too_long_is_recorded_as_timed_out(orch: Orchestrator, cluster: Cluster, pool: str) -> None:
    late = orch.submit(bodies.nap_of, kwargs={"name": "slow", "seconds": SLOW_S}, timeout=0.5).wait(30)
    assert (late.status, late.attempts, late.crashes) == (TaskStatus.FAILED, 1, 0)
    assert late.error is not None
    assert late.error.type == "TaskTimedOut"
    assert "0.5 s" in late.error.message
    # The slot is free again, at once where the body's process could be killed.
    assert orch.submit(bodies.echo, "after").wait(30).output == "after"
    assert late.completed_at is not None
    if pool == "prefork":
        wait_until(lambda: not any(lives(each.pid) for each in cluster.notes("slow begins")), 30, "the body's process")
        assert cluster.notes("slow ends") == []
    else:
        ends = cluster.wait_for_note("slow ends")
        assert late.completed_at.timestamp() < ends.time


def test_a_coroutine_that_runs_too_long_is_cancelled(orch: Orchestrator) -> None:
    late = orch.submit(bodies.nap_async, 60, timeout=0.3).wait(30)
    assert (late.status, late.attempts) == (TaskStatus.FAILED, 1)
    assert late.error is not None
    assert late.error.type == "TaskTimedOut"
    assert orch.submit(bodies.nap_async, 0.01, timeout=30).wait(30).output == 0.01


def test_a_timed_out_step_is_tried_again(orch: Orchestrator, cluster: Cluster) -> None:
    for at in range(10):
        given = {"name": f"twice {at}", "seconds": 3.0}
        late = orch.submit(bodies.nap_of, kwargs=given, timeout=0.3, retry=RetryPolicy(2, delay=0)).wait(60)
        assert (late.status, late.attempts, late.claims) == (TaskStatus.FAILED, 2, 2)
        begun = cluster.noted(f"twice {at} begins").total()
        assert begun <= 2
        if begun == 2:  # on a machine that stalls its time may be over before a body begins
            return
    pytest.fail("no body began twice")


def test_a_timeout_of_the_bodys_own_keeps_its_name(orch: Orchestrator) -> None:
    done = orch.submit(bodies.times_out_by_itself, timeout=60).wait(30)
    assert done.error is not None
    assert (done.error.type, done.error.message) == ("TimeoutError", "the other side does not answer")


@pytest.mark.parametrize(
    ("body", "type_name"),
    [
        (bodies.leave, "EndedWithoutOutcome"),
        (bodies.out_of_memory, "MemoryError"),
        (bodies.cancelled_inside, "EndedWithoutOutcome"),
    ],
)
def test_a_body_that_raises_what_is_no_ordinary_error_fails_once(
    orch: Orchestrator, cluster: Cluster, body: object, type_name: str
) -> None:
    done = orch.submit(body).wait(30)
    assert (done.status, done.attempts, done.crashes) == (TaskStatus.FAILED, 1, 0)
    assert done.error is not None
    assert done.error.type == type_name
    assert orch.submit(bodies.echo, "still here").wait(30).output == "still here"


def test_an_output_that_json_cannot_hold_is_a_failure_that_names_it(orch: Orchestrator) -> None:
    done = orch.submit(bodies.unserialisable).wait(30)
    assert (done.status, done.attempts) == (TaskStatus.FAILED, 1)
    assert done.error is not None
    assert done.error.type == "UnserialisableOutput"
    assert "'unserialisable'" in done.error.message
    assert "object" in done.error.message


def test_outputs_become_json_as_pydantic_has_it(orch: Orchestrator) -> None:
    assert orch.submit(bodies.moment).wait(30).output == "2025-01-02T00:00:00Z"


def test_many_tasks_are_each_run_once(orch: Orchestrator, cluster: Cluster) -> None:
    tasks = [orch.submit(bodies.echo, f"many {n}") for n in range(150)]
    orch.wait_all(tasks, timeout=30)
    assert [task.output for task in tasks] == [f"many {n}" for n in range(150)]
    assert cluster.noted("echo many") == {f"echo many {n}": 1 for n in range(150)}


def test_nothing_is_left_in_the_broker_when_all_is_done(orch: Orchestrator, cluster: Cluster) -> None:
    orch.submit(bodies.noop).wait(30)
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not (cluster.unacknowledged() or cluster.messages()), 30, "all messages to be handled")
    assert cluster.unacknowledged() == []
    assert cluster.messages() == []


def test_a_second_producer_sees_the_same_runs(orch: Orchestrator, cluster: Cluster, tmp_path: Path) -> None:
    done = orch.submit(bodies.echo, "seen by others").wait(30)
    other = cluster.orchestrator()
    assert other.get_task(done.id).output == "seen by others"
    assert other.status(done.id) is TaskStatus.COMPLETED
