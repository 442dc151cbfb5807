"""The Redis store and its server: opening, outages, lost answers, forks, threads, big creations."""

import logging
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from redis import exceptions

from orchestra.engine.outcome import Completed, Expanded, Failed
from orchestra.engine.plan import StepInput
from orchestra.engine.rows import of_elements
from orchestra.errors import SettingsError, StoreUnavailable
from orchestra.model.ids import MessageRef, StepRef, new_id
from orchestra.model.record import ErrorInfo
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.store.contract import Claimed, ClaimRef, Lease, NewRun, RunFilter
from orchestra.store.redis.store import RedisStore
from tests.graphs import create, layered, planned, work
from tests.servers import PrivateRedis

MakeRedis = Callable[..., PrivateRedis]


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis(appendonly=True) as made:
        yield made


@pytest.fixture
def store(server: PrivateRedis) -> Iterator[RedisStore]:
    with server.client() as client:
        client.flushall()
    made = RedisStore(server.url)
    yield made
    made.close()


def claimed(store: RedisStore, message: MessageRef, worker: str = "w") -> Claimed:
    found = store.claim(message, worker, 2.0)
    assert isinstance(found, Claimed), found
    return found


def tell_twice(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lose the answer of every call once, but for those that look for what was lost."""
    connection: Any = store._connection
    send, seen = connection._send, set[object]()

    def losing(args: tuple[object, ...]) -> Any:
        answer = send(args)
        if args[0] == "FCALL" and not str(args[1]).endswith("_resend") and args not in seen:
            seen.add(args)
            raise exceptions.ConnectionError("the answer was lost")
        return answer

    monkeypatch.setattr(connection, "_send", losing)


# --- opening --------------------------------------------------------------------------------------------------------


def test_a_store_that_was_closed_waits_for_no_server(server: PrivateRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("orchestra.store.redis.connection.time.sleep", waits.append)
    made = RedisStore(server.url)
    made.close()
    with pytest.raises(StoreUnavailable, match="it was closed"):
        made.run("any")
    assert not waits


def test_a_server_that_evicts_keys_is_refused_with_the_command_that_helps(server: PrivateRedis) -> None:
    with server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            with pytest.raises(SettingsError, match=r"maxmemory-policy is 'allkeys-lru'.*CONFIG SET maxmemory-policy"):
                RedisStore(server.url)
        finally:
            client.config_set("maxmemory-policy", "noeviction")


def test_a_server_that_keeps_nothing_is_a_warning_and_refused_where_it_has_to(
    private_redis: MakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    server = private_redis()
    RedisStore(server.url).close()
    assert "appendonly is off" in caplog.text
    with pytest.raises(SettingsError, match="CONFIG SET appendonly yes"):
        RedisStore(f"{server.url}?durable=1")


def test_a_server_that_writes_every_second_says_so(server: PrivateRedis, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    RedisStore(f"{server.url}?durable=1").close()
    with server.client() as client:
        client.config_set("appendfsync", "everysec")
        try:
            RedisStore(server.url).close()
            assert "may lose the last second" in caplog.text
            with pytest.raises(SettingsError, match="appendfsync"):
                RedisStore(f"{server.url}?durable=1")
        finally:
            client.config_set("appendfsync", "always")


def test_a_server_that_forbids_config_is_asked_for_its_info(server: PrivateRedis) -> None:
    with server.client() as client:
        client.acl_setuser("limited", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all", "-config"])
        url = server.url.replace("redis://", "redis://limited:secret@")
        store = RedisStore(f"{url}?prefix=limited")
        assert "secret" not in store.url
        assert store.depth() == {}
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            with pytest.raises(SettingsError, match="maxmemory-policy"):
                RedisStore(url)
        finally:
            client.config_set("maxmemory-policy", "noeviction")


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(StoreUnavailable) as caught:
        RedisStore("redis://me:secret@127.0.0.1:1/0")
    assert "127.0.0.1:1" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_data_of_another_version_is_refused(server: PrivateRedis) -> None:
    with server.client() as client:
        client.hset("{newer}:meta", "schema", "99")
    with pytest.raises(SettingsError, match="schema version 99"):
        RedisStore(f"{server.url}?prefix=newer")


@pytest.mark.parametrize("query", ["durable=maybe", "prefix=", "prefix=a{b}", "socket_timeout=much"])
def test_what_the_url_says_is_checked(server: PrivateRedis, query: str) -> None:
    if query != "prefix=":
        with pytest.raises(SettingsError):
            RedisStore(f"{server.url}?{query}")


def test_stores_with_different_prefixes_share_a_database(server: PrivateRedis, store: RedisStore) -> None:
    other = RedisStore(f"{server.url}?prefix=other")
    run_id, _messages = create(other, [[]])
    assert store.run(run_id) is None
    assert other.run(run_id) is not None


# --- outages and lost answers ---------------------------------------------------------------------------------------


def test_an_operation_waits_for_a_server_that_comes_back(private_redis: MakeRedis) -> None:
    server = private_redis(appendonly=True)
    store = RedisStore(server.url)
    run_id, (message,) = create(store, [[]])
    server.kill()
    restart = threading.Timer(0.5, server.restart)
    restart.start()
    recorded = store.record(claimed(store, message).claim, Completed("1"), 3.0)
    restart.join()
    assert recorded is not None
    assert recorded.ended_run is WorkflowStatus.COMPLETED
    assert store.outputs(run_id, [0]) == {0: "1"}


def test_connections_may_be_lost_any_number_of_times(server: PrivateRedis, store: RedisStore) -> None:
    with server.client() as client:
        for _ in range(250):
            client.client_kill_filter(_type="normal", skipme=True)
            assert store.leases() == []


@pytest.mark.parametrize(
    ("trouble", "over"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    ],
)
def test_a_server_that_takes_no_writes_is_waited_for(
    server: PrivateRedis,
    store: RedisStore,
    trouble: tuple[str, ...],
    over: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            client.execute_command(*over)

    with server.client() as client:
        client.execute_command(*trouble)
        with monkeypatch.context() as patch:
            patch.setattr("orchestra.store.redis.connection.time", SimpleNamespace(**{**vars(time), "sleep": wait}))
            run_id, _messages = create(store, [[]])
    assert len(waits) == 3
    assert store.counts(run_id) == {TaskStatus.QUEUED: 1}


def test_functions_that_somebody_flushed_are_loaded_again(server: PrivateRedis, store: RedisStore) -> None:
    with server.client() as client:
        client.execute_command("FUNCTION", "FLUSH")
    run_id, _messages = create(store, [[]])
    assert store.counts(run_id) == {TaskStatus.QUEUED: 1}


def test_what_was_done_is_not_done_again_when_its_answer_was_lost(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell_twice(store, monkeypatch)
    (created,) = store.create_runs([NewRun("run", "w", "w", planned([[], [0]]), key="key")], 1.0)
    assert not created.existing
    assert [each.ref.step.n for each in created.dispatches] == [0]
    first = claimed(store, created.dispatches[0].ref)
    assert first.claim.claim == 1
    recorded = store.record(first.claim, Completed("1"), 3.0)
    assert recorded is not None
    # What the first answer named is with the broker for all that the store knows: it is found as lost messages are.
    assert [each.ref.step.n for each in store.resend(["q"], 4.0, 9, 4.0)] == [1]
    second = claimed(store, MessageRef(StepRef("run", 1), 0))
    assert second.claim.claim == 1
    last = store.record(second.claim, Completed("2"), 5.0)
    assert last is not None
    assert last.ended_run is WorkflowStatus.COMPLETED
    assert store.record(second.claim, Completed("3"), 5.0) is None
    store.emit("order.shipped", {}, 6.0)
    lease = Lease("w", "w", "h", "b", 1, 1.0, ["q"], 1, 1.0, 9.0)
    store.renew(lease)
    assert store.release_lease("w")
    assert not store.release_lease("w")
    told = [event.type for event in store.events(0)[0]]
    assert told.count("order.shipped") == told.count("workflow.completed") == told.count("workflow.started") == 1
    assert told.count("task.completed") == 2


def test_a_cancel_whose_answer_was_lost_says_that_it_was_done(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, _messages = create(store, [[], [0]])
    tell_twice(store, monkeypatch)
    recorded = store.cancel(run_id, None, 2.0)
    assert recorded is not None
    assert recorded.ended_run is WorkflowStatus.CANCELLED
    assert store.cancel(run_id, None, 2.0) is None
    assert store.counts(run_id) == {TaskStatus.CANCELLED: 2}


# --- processes and threads ------------------------------------------------------------------------------------------


def _work_in_child(store: RedisStore, messages: list[MessageRef], results: Any) -> None:
    results.put(work(store, messages, "child"))


def test_a_forked_child_makes_connections_of_its_own(store: RedisStore) -> None:
    run_id, messages = create(store, [[] for _ in range(60)])
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_work_in_child, args=(store, messages[:30], results))
    child.start()
    done = work(store, messages[30:], "parent")
    done += results.get(timeout=60)
    child.join()
    assert done == 60
    run = store.run(run_id)
    assert run is not None
    assert run.status is WorkflowStatus.COMPLETED


def test_eight_threads_record_each_step_of_one_run_once(store: RedisStore) -> None:
    run_id, messages = create(store, layered(6, 20))
    done: list[int] = []
    ended = threading.Event()

    def act(at: int) -> None:
        while not ended.is_set():
            done.append(work(store, messages, f"w{at}"))
            run = store.run(run_id)
            if run is not None and run.status.ended:
                ended.set()
            messages.extend(each.ref for each in store.refill(["q"], 4.0))

    threads = [threading.Thread(target=act, args=(at,)) for at in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert sum(done) == 120
    assert store.counts(run_id) == {TaskStatus.COMPLETED: 120}
    events, cursor = store.events(0, 10_000)
    assert cursor == store.last_event()
    assert sum(event.type == "task.completed" for event in events) == 120
    assert events[-1].type == "workflow.completed"


def test_only_commits_that_wrote_events_are_told_to_listeners(store: RedisStore) -> None:
    told: list[int] = []
    stop = store.watch(lambda: told.append(1))
    _run_id, (message,) = create(store, [[]])
    claim = claimed(store, message)
    assert len(told) == 1
    store.record(claim.claim, Completed("1"), 3.0)
    store.record(claim.claim, Completed("1"), 3.0)
    assert len(told) == 2
    stop()
    store.emit("a.b", {}, 4.0)
    assert len(told) == 2


# --- big creations --------------------------------------------------------------------------------------------------


def test_a_big_run_is_written_in_slices_that_nobody_sees(
    server: PrivateRedis, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection: Any = store._connection
    run, sizes = connection.run, list[int]()
    watcher = RedisStore(server.url)
    run_id = new_id()

    def watched(name: str, *args: object) -> Any:
        if name in ("stage_run", "create"):
            sizes.append(len(args))
            assert watcher.run(run_id) is None
            assert watcher.runs(RunFilter()) == []
            assert watcher.depth() == {}
            assert watcher.steps(run_id) == []
        return run(name, *args)

    monkeypatch.setattr(connection, "run", watched)
    plan = planned([*([[]] * 3000), list(range(3000))])
    (created,) = store.create_runs([NewRun(run_id, "w", "w", plan)], 1.0)
    assert len(created.dispatches) == 64
    assert len(sizes) == 8
    assert max(sizes) < 500 * 6 + 100
    assert store.counts(run_id) == {TaskStatus.QUEUED: 3000, TaskStatus.PENDING: 1}
    with server.client() as client:
        assert client.ttl(f"{{orchestra}}:r:{run_id}") == -1


def test_slices_without_an_end_go_by_themselves(server: PrivateRedis, store: RedisStore) -> None:
    store._connection.run("stage_run", "half", "f0", "[]")
    with server.client() as client:
        assert 3500 < int(client.ttl("{orchestra}:n:half")) <= 3600  # pyright: ignore[reportArgumentType]


def test_a_big_map_is_written_in_slices_and_gathered_in_order(store: RedisStore) -> None:
    run_id, (message,) = create(store, [[], [0]])
    claim = claimed(store, message)
    first, _join = store.reserve(run_id, 3000, 0)
    parts = of_elements(claim.row, [StepInput([n]) for n in range(3000)], first)
    recorded = store.record(claim.claim, Expanded(parts), 2.0)
    assert recorded is not None
    messages = [each.ref for each in recorded.dispatches]
    done = work(store, messages, outcome=lambda message: Completed(str(message.step.n)))
    assert done == 3000 + 1
    assert store.outputs(run_id, [0]) == {0: f"[{','.join(str(first + n) for n in range(3000))}]"}


def test_parts_of_a_claim_that_is_no_more_are_not_added(store: RedisStore) -> None:
    run_id, (message,) = create(store, [[]])
    claim = claimed(store, message)
    first, _join = store.reserve(run_id, 1500, 0)
    store.vanish(claim.claim, "it died", 2.0)
    parts = of_elements(claim.row, [StepInput([n]) for n in range(1500)], first)
    assert store.record(claim.claim, Expanded(parts), 3.0) is None
    assert [step.ref.n for step in store.steps(run_id)] == [0]


# --- texts ----------------------------------------------------------------------------------------------------------


def test_what_users_write_comes_back_as_it_went(store: RedisStore) -> None:
    run_id, (message,) = create(store, [[]])
    error = ErrorInfo('We"ird\n', "\x00 half \ud83d of a pair, 'quoted' \\ ü 😀", "trace\tback", ("A", "B"))
    store.record(claimed(store, message).claim, Failed(error), 3.0)
    step = store.step(StepRef(run_id, 0))
    assert step is not None
    assert step.error == error
    run = store.run(run_id)
    assert run is not None
    assert run.error is not None
    assert run.error.message == f"'s0': {error.message}"
    failed = next(event for event in store.events(0)[0] if event.type == "task.failed")
    assert failed.data["error"] == error.message


@pytest.mark.parametrize(
    "output", ["[]", "{}", "1.0", "1e400", "123456789012345678901234567890", '"\\u0000"', '{"a":[]}']
)
def test_an_output_is_never_read_by_the_store(store: RedisStore, output: str) -> None:
    run_id, (message,) = create(store, [[]])
    store.record(claimed(store, message).claim, Completed(output), 3.0)
    assert store.outputs(run_id, [0]) == {0: output}


def test_a_claim_of_a_step_that_is_not_there_is_refused(store: RedisStore) -> None:
    assert not isinstance(store.claim(MessageRef(StepRef("none", 0), 0), "w", 1.0), Claimed)
    assert store.record(ClaimRef(MessageRef(StepRef("none", 0), 0), 1), Completed("1"), 1.0) is None
    assert store.cancel("none", None, 1.0) is None
