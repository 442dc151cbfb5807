"""Jobs on the Redis store: lost answers, large workflows, and what is left behind."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from redis import exceptions

from orchestra.engine.plan import Plan
from orchestra.model.record import JobRecord
from orchestra.model.schedule import Schedule, ScheduleType
from orchestra.store.contract import Firing, NewRun, RunFilter
from orchestra.store.redis.store import RedisStore
from tests.graphs import planned
from tests.servers import PrivateRedis

EVERY = Schedule(ScheduleType.INTERVAL, interval_s=10.0)
FULL_PRECISION = 1767225610.123457


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as made:
        yield made


@pytest.fixture
def store(server: PrivateRedis) -> Iterator[RedisStore]:
    with server.client() as client:
        client.flushall()
    made = RedisStore(server.url)
    yield made
    made.close()


def lose_answers(store: RedisStore, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    """Lose the answer of every call of a function once."""
    connection: Any = store._connection
    send: Callable[..., Any] = connection._send
    seen = set[object]()

    def losing(args: tuple[object, ...]) -> Any:
        answer = send(args)
        if str(args[1]).endswith(f"_{function}") and args not in seen:
            seen.add(args)
            raise exceptions.ConnectionError("the answer was lost")
        return answer

    monkeypatch.setattr(connection, "_send", losing)


def put(store: RedisStore, job_id: str = "j", **fields: Any) -> JobRecord:
    at = FULL_PRECISION
    kept = store.put_job(replace(JobRecord(job_id, "job", EVERY, {}, 1.0, next_run_at=at, due_at=at), **fields))
    assert kept is not None
    return kept


def firing(job: JobRecord, *times: float, plan: Plan | None = None, by_hand: bool = False) -> Firing:
    runs = [
        NewRun(f"{job.id}-{at}", "run", "w", plan or planned([[]]), job_id=job.id, scheduled_for=at) for at in times
    ]
    following = times[-1] + 10.0
    return Firing(job, runs, following, following, by_hand=by_hand)


def test_a_firing_whose_answer_was_lost_happened_once_and_says_what_to_send(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = put(store)
    lose_answers(store, monkeypatch, "fire")
    (fired,) = store.fire([firing(job, FULL_PRECISION)], FULL_PRECISION)
    assert fired is not None
    assert fired.run_ids == [f"j-{FULL_PRECISION}"]
    assert [each.ref.step.run_id for each in fired.dispatches] == fired.run_ids
    kept = store.job("j")
    assert kept is not None
    assert (kept.version, kept.runs, kept.last_run_at) == (job.version + 1, 1, FULL_PRECISION)
    assert [each.type for each in store.events(0)[0]].count("job.fired") == 1
    assert store.fire([firing(job, FULL_PRECISION)], FULL_PRECISION) == [None]


def test_a_change_of_a_job_whose_answer_was_lost_says_that_it_was_done(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_answers(store, monkeypatch, "put_job")
    lose_answers(store, monkeypatch, "delete_job")
    job = put(store)
    assert store.put_job(job) is not None
    assert store.put_job(job) is None
    assert store.delete_job("j")
    assert not store.delete_job("j")


def test_a_job_of_a_large_workflow_is_created_as_a_whole_and_by_one_beat(
    store: RedisStore, server: PrivateRedis
) -> None:
    job = put(store)
    plan = planned([[] for _ in range(1200)])
    (fired,) = store.fire([firing(job, FULL_PRECISION, plan=plan)], FULL_PRECISION)
    assert fired is not None
    assert sum(store.counts(fired.run_ids[0]).values()) == 1200
    assert store.fire([firing(job, FULL_PRECISION, plan=plan)], FULL_PRECISION) == [None]
    with server.client() as client:
        assert client.keys("*:n:*") == []


def test_a_beat_whose_staged_rows_have_gone_has_to_begin_anew(
    store: RedisStore, server: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = put(store)
    connection: Any = store._connection
    run: Callable[..., Any] = connection.run

    def frozen(name: str, *args: object) -> Any:
        if name == "fire":
            with server.client() as client:
                client.delete(*client.keys("*:n:*"))
        return run(name, *args)

    monkeypatch.setattr(connection, "run", frozen)
    large = firing(job, FULL_PRECISION, plan=planned([[] for _ in range(600)]))
    assert store.fire([large], FULL_PRECISION) == [None]
    assert store.job("j") == job
    assert store.events(0)[0] == []


def test_deleted_jobs_and_pruned_runs_leave_no_keys_behind(store: RedisStore, server: PrivateRedis) -> None:
    with server.client() as client:
        before = set(client.keys("*"))
        job = put(store)
        put(store, "j/fill", backfills="j")
        (fired,) = store.fire([firing(job, FULL_PRECISION)], FULL_PRECISION)
        assert fired is not None
        assert store.cancel(fired.run_ids[0], None, FULL_PRECISION + 1) is not None
        assert store.delete_job("j")
        assert store.runs(RunFilter(job_id="j")) != []
        assert store.prune(FULL_PRECISION + 2, 100) == 1
        assert store.runs(RunFilter(job_id="j")) == []
        left = {key for key in client.keys("*") if b":done:" not in key} - before
        assert {key.partition(b":")[2] for key in left} <= {b"seq", b"open", b"events", b"steps"}
        # Its time is free again, since nothing remembers it.
        (again,) = store.fire([firing(put(store), FULL_PRECISION)], FULL_PRECISION)
        assert again is not None
        assert len(again.run_ids) == 1


def test_a_job_of_a_program_may_hold_any_text(store: RedisStore) -> None:
    job = put(store, "größe/\ud800\"'", name='a "b" \\ \ud800', payload={"deep": [[[None, 1.5, "\u2028"]]]}, error="é")
    assert store.jobs() == [job]
    (fired,) = store.fire([firing(job, FULL_PRECISION)], FULL_PRECISION)
    assert fired is not None
    kept = store.job(job.id)
    assert kept is not None
    assert (kept.payload, kept.name, kept.last_run_id) == (job.payload, job.name, fired.run_ids[0])
    (run,) = store.runs(RunFilter(job_id=job.id))
    assert (run.job_id, run.scheduled_for) == (job.id, FULL_PRECISION)
