"""An existing Celery application is adopted: its tasks become steps without editing, and stay what they were."""

import importlib
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from types import ModuleType
from uuid import UUID

import pytest

from orchestra import Orchestrator, RetryPolicy, Task, TaskStatus, Workflow, WorkflowStatus
from orchestra.errors import CannotTravel
from tests.bodies import TRACE
from tests.cluster import Cluster, Eavesdropper
from tests.processes import Process, least, wait_until
from tests.servers import PrivateRedis


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Redis as broker in database 0, and as the application's own result backend in database 1."""
    with PrivateRedis() as server, Cluster(tmp_path_factory.mktemp("adoption"), server.url, queue="celery") as made:
        made.app = "tests.legacy_flows:orch"
        yield made


@pytest.fixture(scope="module")
def environment(cluster: Cluster) -> dict[str, str]:
    """What the application reads when it is imported."""
    backend = f"{cluster.broker.removesuffix('/0')}/1"
    return {"LEGACY_BROKER": cluster.broker, "LEGACY_BACKEND": backend, "ORCHESTRA_STORE": cluster.store}


@pytest.fixture(scope="module")
def flows(cluster: Cluster, environment: dict[str, str]) -> Iterator[ModuleType]:
    """The application in this process, adopted."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**environment, TRACE: str(cluster.trace)}.items():
            patch.setenv(name, value)
        flows = importlib.import_module("tests.legacy_flows")
        importlib.import_module("tests.legacy_late")
        yield flows
        flows.orch.close()
        flows.app.close()


@pytest.fixture(scope="module")
def legacy(flows: ModuleType) -> ModuleType:
    return importlib.import_module("tests.legacy")


@pytest.fixture(scope="module")
def orch(flows: ModuleType) -> Orchestrator:
    return flows.orch


def start(cluster: Cluster, environment: dict[str, str], program: str, pool: str) -> Process:
    """Start a worker by our command or by Celery's; neither is told any queue."""
    # Settings are to come from the module alone, as they do for people.
    env = {**environment, "ORCHESTRA_QUEUE": None, "ORCHESTRA_BROKER": None}
    if program == "celery":
        options = ["-A", "tests.legacy_flows", "worker", "-P", pool, "-c", "2", "-l", "INFO"]
        return cluster.run(options, ready=True, env=env, module="celery")
    return cluster.worker("--pool", pool, "--concurrency", "2", env=env)


@pytest.fixture(
    scope="module",
    autouse=True,
    params=[("orchestra", "prefork"), ("celery", "prefork"), ("orchestra", "threads")],
    ids=["orchestra-prefork", "celery-prefork", "orchestra-threads"],
)
def worker(request: pytest.FixtureRequest, cluster: Cluster, environment: dict[str, str]) -> Iterator[Process]:
    """One worker for everything: steps and plain calls."""
    process = start(cluster, environment, *request.param)
    yield process
    process.kill9()


def test_it_is_distributed_and_its_steps_go_to_the_applications_queue(orch: Orchestrator, legacy: ModuleType) -> None:
    assert "distributed" in repr(orch)
    assert orch.submit(legacy.add, 1).wait(30).queue == "celery"


# As steps


def test_a_task_is_a_step(orch: Orchestrator, legacy: ModuleType) -> None:
    done = orch.submit(legacy.add, 1).wait(30)
    assert (done.status, done.output, done.name) == (TaskStatus.COMPLETED, 2, "tests.legacy.add")
    assert orch.submit(legacy.add, kwargs={"x": 1, "y": 2}).wait(30).output == 3
    assert orch.submit("tests.legacy.add", 5).wait(30).output == 6


def test_a_bound_task_sees_its_request(orch: Orchestrator, legacy: ModuleType) -> None:
    done = orch.submit(legacy.about, "x", kwargs={"key": 1}).wait(30)
    assert done.output == {
        "id": f"{done.id}.0.0",
        "name": "tests.legacy.about",
        "retries": 0,
        "args": ["x"],
        "kwargs": {"key": 1},
        "given": [["x"], {"key": 1}],
        "called_directly": False,
    }


def audited(cluster: Cluster, *values: int) -> Counter[str]:
    """Return what is noted of `audited.double` with these values.

    A step is over once it is recorded, and `after_return` comes after that. So a test waits for its own notes, and no
    two tests double the same values: the notes of one may come late, in the midst of the next.
    """
    of_these = tuple(f" [{value}]" for value in values)
    return Counter(note.what for note in cluster.notes("audited.double") if any(of in note.what for of in of_these))


def test_own_hooks_and_an_own_call_are_called_with_the_arguments_of_the_step(
    orch: Orchestrator, legacy: ModuleType, cluster: Cluster
) -> None:
    before = audited(cluster, 21, -1)  # of the workers before this one
    assert orch.submit(legacy.double, 21).wait(30).output == 42
    failed = orch.submit(legacy.double, -1).wait(30)
    assert (failed.status, str(failed.error)) == (TaskStatus.FAILED, "-1 is negative")
    wait_until(lambda: (audited(cluster, 21, -1) - before).total() >= 8, 30, "four notes of each call")
    assert audited(cluster, 21, -1) - before == {
        "audited.double before_start [21] {}": 1,
        "audited.double before_start [-1] {}": 1,
        "audited.double call [21] with an id": 1,
        "audited.double call [-1] with an id": 1,
        "audited.double on_success 42 [21]": 1,
        "audited.double on_failure ValueError('-1 is negative') [-1]": 1,
        "audited.double after_return SUCCESS [21]": 1,
        "audited.double after_return FAILURE [-1]": 1,
    }


def unique(name: str) -> str:
    """Return a key that no other test used."""
    return f"{name}-{time.monotonic_ns()}"


@contextmanager
def no_message_waits_for_a_time(cluster: Cluster) -> Iterator[None]:
    """A message with an ETA would sit in a worker until it is due."""
    with Eavesdropper(cluster.redis()) as heard:
        yield
    assert heard.sent
    assert [each for each in heard.sent if each.eta] == []


def test_a_retry_that_the_body_asks_for_waits_in_the_store(
    orch: Orchestrator, legacy: ModuleType, cluster: Cluster
) -> None:
    key = unique("retry")
    with no_message_waits_for_a_time(cluster):
        done = orch.submit(legacy.second_time, key).wait(60)
    assert (done.status, done.output, done.attempts) == (TaskStatus.COMPLETED, key, 2)
    (told,) = orch.history(run=done.id, type="task.retrying")
    assert (told.data["error"], told.data["after_s"]) == ("not yet", 0.2)
    first, second = cluster.notes(f"second_time {key}")
    assert 0.2 <= second.time - first.time < 60  # without a word, Celery waits for three minutes
    cluster.wait_for_note(f"audited.second_time on_retry ConnectionError('not yet') ['{key}']")


def test_a_retry_at_a_time_waits_in_the_store(orch: Orchestrator, legacy: ModuleType, cluster: Cluster) -> None:
    key = unique("later")
    with no_message_waits_for_a_time(cluster):
        task = orch.submit(legacy.later, key).wait(60)
    assert task.output == key
    assert len(orch.history(run=task.id, type="task.retrying")) == 1
    first, second = cluster.notes(f"later {key}")
    assert 0.25 <= second.time - first.time < 60


def test_autoretry_keeps_its_back_off(
    orch: Orchestrator, flows: ModuleType, cluster: Cluster, request: pytest.FixtureRequest
) -> None:
    if "celery-prefork" not in request.node.name:
        pytest.skip("three seconds of waiting, once")
    key = unique("auto")
    run = orch.submit_workflow(flows.tried, key).wait(30)
    assert (run.status, run.output) == (WorkflowStatus.COMPLETED, key)
    times = [note.time for note in cluster.notes(f"flaky {key}")]
    assert len(times) == 3
    assert [event.data["after_s"] for event in orch.history(run=run.id, type="task.retrying")] == [1.0, 2.0]
    assert times[1] - times[0] >= 1.0
    assert times[2] - times[1] >= 2.0
    (step,) = [task for task in run.tasks if task.name == "tests.legacy.flaky"]
    assert (step.attempts, step.claims, step.crashes) == (3, 3, 0)


def test_retries_of_the_body_end_at_its_own_limit(orch: Orchestrator, legacy: ModuleType, cluster: Cluster) -> None:
    key = unique("hopeless")
    done = orch.submit(legacy.hopeless, key).wait(30)
    assert (done.status, done.attempts, str(done.error)) == (TaskStatus.FAILED, 3, f"never {key}")
    assert done.error is not None
    assert done.error.type == "ConnectionError"
    assert cluster.noted(f"hopeless {key}").total() == 3


def test_a_retry_without_an_error_ends_as_celery_ends_it(orch: Orchestrator, legacy: ModuleType) -> None:
    done = orch.submit(legacy.gives_up, unique("gives-up")).wait(30)
    assert (done.status, done.attempts) == (TaskStatus.FAILED, 2)
    assert done.error is not None
    assert done.error.type == "MaxRetriesExceededError"


def test_a_retry_with_other_arguments_is_refused_rather_than_run_with_the_old_ones(
    orch: Orchestrator, legacy: ModuleType
) -> None:
    done = orch.submit(legacy.next_page, 1).wait(30)
    assert (done.status, done.attempts) == (TaskStatus.FAILED, 1)
    assert "return a workflow instead" in str(done.error)
    assert legacy.next_page.delay(1).get(timeout=30) == 3
    key = unique("page")
    assert orch.submit(legacy.same_page, key).wait(30).output == key


def test_a_policy_of_the_step_comes_on_top_of_what_the_body_does(
    orch: Orchestrator, legacy: ModuleType, cluster: Cluster
) -> None:
    key = unique("both")
    done = orch.submit(legacy.hopeless, key, retry=RetryPolicy(5, delay=0.01)).wait(30)
    assert (done.status, done.attempts) == (TaskStatus.FAILED, 5)


def test_results_that_plain_celery_would_ignore_are_kept_of_steps(orch: Orchestrator, legacy: ModuleType) -> None:
    assert orch.submit(legacy.quiet, "kept").wait(30).output == "kept"
    key = unique("quiet")
    done = orch.submit(legacy.quiet_retry, key).wait(30)
    assert (done.output, done.attempts) == (key, 2)
    failed = orch.submit(legacy.quiet_boom).wait(30)
    assert (failed.status, str(failed.error)) == (TaskStatus.FAILED, "heard all the same")


def test_shared_renamed_and_late_tasks_are_steps(orch: Orchestrator, legacy: ModuleType) -> None:
    late = importlib.import_module("tests.legacy_late").late
    assert orch.submit("shared.echo", 1).wait(30).output == 1
    assert orch.submit(legacy.app.tasks["shared.echo"], 2).wait(30).output == 2
    assert orch.submit("audited.double", 3).wait(30).output == 6
    assert orch.submit(late, 4).wait(30).output == 4
    assert orch.submit("tests.legacy_late.late", 5).wait(30).output == 5


def test_adopted_tasks_keep_the_types_that_kombu_carries(orch: Orchestrator, legacy: ModuleType) -> None:
    expected = {"at": datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC), "id": UUID(int=7), "price": Decimal("1.10")}
    assert orch.submit(legacy.typed).wait(30).output == expected
    first, second = Task("first", legacy.typed), Task("second", legacy.type_names)
    run = orch.submit_workflow(Workflow("types", [first, second], {"second": ["first"]})).wait(30)
    assert run.output == {"at": "datetime", "id": "UUID", "price": "Decimal"}


def test_an_error_that_pickle_cannot_carry_keeps_its_name(orch: Orchestrator, legacy: ModuleType) -> None:
    done = orch.submit(legacy.odd_error, retry=RetryPolicy(2, delay=0.01, retry_on="Unpicklable")).wait(30)
    assert (done.status, done.attempts) == (TaskStatus.FAILED, 2)
    assert done.error is not None
    assert (done.error.type, done.error.message) == ("Unpicklable", "7: on purpose")


@pytest.mark.parametrize(("name", "raised"), [("ignores", "Ignore()"), ("rejects", "reject requeue=True: on purpose")])
def test_a_body_that_ends_without_an_outcome_is_a_failure(
    orch: Orchestrator, legacy: ModuleType, name: str, raised: str
) -> None:
    done = orch.submit(getattr(legacy, name)).wait(30)
    assert (done.status, done.attempts) == (TaskStatus.FAILED, 1)
    assert done.error is not None
    assert done.error.type == "EndedWithoutOutcome"
    assert raised in done.error.message


def test_a_step_cannot_put_a_signature_in_its_own_place(orch: Orchestrator, legacy: ModuleType) -> None:
    done = orch.submit(legacy.replaces).wait(30)
    assert done.status is TaskStatus.FAILED
    assert "return a workflow instead" in str(done.error)


def test_time_limits_of_the_task_itself_hold(
    orch: Orchestrator, legacy: ModuleType, request: pytest.FixtureRequest
) -> None:
    if "threads" in request.node.name:
        pytest.skip("a thread cannot be interrupted: Celery's own limits hold in processes only")
    done = orch.submit(legacy.limited).wait(30)
    assert (done.status, done.attempts, done.crashes) == (TaskStatus.FAILED, 1, 0)
    assert done.error is not None
    assert done.error.type == "TaskTimedOut"
    assert "3 s" in done.error.message
    assert orch.submit(legacy.softly_limited).wait(30).output == "noticed"


def test_adopted_tasks_called_inside_a_workflow_become_steps(
    orch: Orchestrator, flows: ModuleType, cluster: Cluster
) -> None:
    run = orch.submit_workflow(flows.mixed, 4).wait(30)
    assert (run.status, run.output) == (WorkflowStatus.COMPLETED, 28)
    assert [task.name for task in run.tasks] == ["tests.legacy.add", "audited.double", "tell"]


def test_an_adopted_task_can_be_mapped(orch: Orchestrator, flows: ModuleType, cluster: Cluster) -> None:
    values = list(range(100, 110))
    before = cluster.noted("audited.double call")
    earlier = audited(cluster, *values)
    run = orch.submit_workflow(flows.mapped, values).wait(30)
    assert (run.status, run.output) == (WorkflowStatus.COMPLETED, 2 * sum(values))
    wait_until(lambda: (audited(cluster, *values) - earlier).total() >= 40, 30, "four notes of each call")
    assert audited(cluster, *values) - earlier == Counter(
        f"audited.double {what}"
        for value in values
        for what in (
            f"before_start [{value}] {{}}",
            f"call [{value}] with an id",
            f"on_success {2 * value} [{value}]",
            f"after_return SUCCESS [{value}]",
        )
    )
    # The map that unfolds is no call of the user's task.
    assert (cluster.noted("audited.double call") - before).total() == 10


def test_a_task_that_the_workers_application_does_not_have_is_no_attempt(
    orch: Orchestrator, legacy: ModuleType
) -> None:
    @legacy.app.task(name="only.here", shared=False)
    def only_here() -> None: ...

    try:
        done = orch.submit(only_here, retry=3).wait(30)
    finally:
        legacy.app.tasks.unregister("only.here")
    assert (done.status, done.attempts) == (TaskStatus.FAILED, 0)
    assert done.error is not None
    assert done.error.type == "TaskNotFound"
    assert "'only.here'" in done.error.message


def test_a_task_of_another_application_cannot_travel(orch: Orchestrator) -> None:
    celery = importlib.import_module("celery")
    other = celery.Celery("other", set_as_current=False)

    @other.task(name="elsewhere", shared=False)
    def elsewhere() -> None: ...

    with pytest.raises(CannotTravel, match="another Celery application"):
        orch.submit(elsewhere)


# Beside them, plain Celery


def test_plain_calls_go_on_in_the_applications_own_backend(legacy: ModuleType) -> None:
    assert legacy.add.delay(2, 3).get(timeout=30) == 5
    assert legacy.typed.delay().get(timeout=30)["price"] == Decimal("1.10")
    about = legacy.about.apply_async(("x",), countdown=0.1).get(timeout=30)
    assert about["given"] == [["x"], {}]
    with pytest.raises(ValueError, match="is negative"):
        legacy.double.delay(-3).get(timeout=30)
    assert legacy.add(1, 1) == 2
    assert legacy.add.apply((1, 1)).get() == 2


def test_plain_chains_and_chords_go_on(legacy: ModuleType) -> None:
    assert legacy.plain_chain().delay().get(timeout=30) == 16
    assert legacy.plain_chord().delay().get(timeout=30) == 20
    assert legacy.add.map([1, 2]).delay().get(timeout=30) == [2, 3]


def test_plain_retries_go_on(legacy: ModuleType, cluster: Cluster) -> None:
    key = unique("plain")
    with Eavesdropper(cluster.redis()) as heard:
        assert legacy.second_time.delay(key).get(timeout=30) == key
    assert [bool(each.eta) for each in heard.sent if each.name == "audited.second_time"] == [False, True]
    assert legacy.quiet_retry.delay(key).get(timeout=30) is None
    cluster.wait_for_note(f"quiet_retry {key}", 2)


def test_a_plain_task_may_still_be_replaced(legacy: ModuleType) -> None:
    assert legacy.replaces.delay().get(timeout=30) == 3


def test_steps_leave_nothing_in_the_applications_backend(
    orch: Orchestrator, legacy: ModuleType, environment: dict[str, str]
) -> None:
    import redis

    done = orch.submit(legacy.add, 1).wait(30)
    orch.submit(legacy.double, -1).wait(30)
    with redis.Redis.from_url(environment["LEGACY_BACKEND"]) as client:
        assert [key for key in client.scan_iter("celery-task-meta-*") if done.id.encode() in key] == []


def test_steps_and_plain_calls_share_the_worker(orch: Orchestrator, legacy: ModuleType, flows: ModuleType) -> None:
    def takes() -> float:
        begun = time.monotonic()
        run = orch.submit_workflow(flows.naps, 20)
        plain = [legacy.add.delay(n, n) for n in range(20)]
        assert [each.get(timeout=30) for each in plain] == [2 * n for n in range(20)]
        assert run.wait(30).output == [f"nap {n}" for n in range(20)]
        return time.monotonic() - begun

    # Half a second of sleep on two slots: nobody waited for a poll to be due.
    assert least(takes, 3, rounds=10) < 3


def test_a_coroutine_task_runs_to_its_end_on_every_pool(orch: Orchestrator, legacy: ModuleType) -> None:
    plain = legacy.twice_slowly.delay(3)
    assert orch.submit(legacy.twice_slowly, 5).wait(30).output == 20
    assert plain.get(timeout=30) == 12


def test_a_coroutine_task_that_is_retried_for_its_errors_is(orch: Orchestrator, legacy: ModuleType) -> None:
    key = unique("round")
    task = orch.submit(legacy.comes_round, key).wait(30)
    assert (task.output, task.attempts) == (2, 2)


def test_everything_was_acknowledged(cluster: Cluster) -> None:
    wait_until(lambda: not cluster.unacknowledged() and not cluster.messages(), 30, "all to be acknowledged")
