"""Jobs under random operations: stores that are told the same agree, also with what a few lines say must happen."""

import uuid
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test

from orchestra.errors import InvalidOption
from orchestra.model.schedule import JobStatus
from orchestra.runtime.scheduler import firing_of
from orchestra.store.contract import RunFilter
from tests.contract.test_store_jobs import START, Beats
from tests.stores import open_url

BEGIN = START.timestamp()
IDS = st.sampled_from(["a", "b", "c"])
SECONDS = st.sampled_from([0.25, 1.0, 2.5, 7.0, 60.0])


@dataclass
class Expected:
    """What becomes of a job that fires all its times, whatever comes between."""

    every: float
    anchor: float
    following: float | None
    fired: set[float] = field(default_factory=set[float])

    def resume(self, now: float) -> None:
        passed = int((now - self.anchor) // self.every)
        self.following = self.anchor + (passed + 1) * self.every

    def tick(self, now: float) -> None:
        while self.following is not None and self.following <= now:
            self.fired.add(self.following)
            self.following += self.every


class Machine(RuleBasedStateMachine):
    """Does the same to a memory, a SQLite and a Redis store, and looks at them after each step."""

    redis_url = ""
    stale = Bundle("stale")

    def __init__(self) -> None:
        super().__init__()
        urls = ("memory://", "sqlite://", f"{self.redis_url}?prefix=machine-{uuid.uuid4().hex[:8]}")
        self.beats = [Beats(open_url(url)) for url in urls]
        self.plain: dict[str, Expected] = {}
        """Jobs without options, by id."""

    @property
    def now(self) -> float:
        return self.beats[0].now

    def known(self, job_id: str) -> bool:
        return self.beats[0].store.job(job_id) is not None

    def teardown(self) -> None:
        for each in self.beats:
            each.store.close()

    @rule(job_id=IDS, every=st.sampled_from([1.0, 2.5, 7.0]))
    def add_plain(self, job_id: str, every: float) -> None:
        if self.known(job_id):
            return
        for each in self.beats:
            each.add(id=job_id, interval_seconds=every, misfire="all")
        self.plain[job_id] = Expected(every, self.now, self.now + every)

    @rule(
        job_id=IDS, every=st.sampled_from([1.0, 2.5]), misfire=st.sampled_from(["skip", "once", "all"]),
        overlap=st.sampled_from(["allow", "skip"]), grace=st.sampled_from([0, 2, 60]),
        most=st.sampled_from([None, 1, 3]), jitter=st.sampled_from([0, 0.5]),
    )  # fmt: skip
    def add_or_replace(self, job_id: str, every: float, misfire: str, overlap: str, grace: float, **more: Any) -> None:
        self.plain.pop(job_id, None)
        for each in self.beats:
            each.add(
                id=job_id, interval_seconds=every, misfire=misfire, overlap=overlap, grace_seconds=grace,
                max_runs=more["most"], jitter_seconds=more["jitter"],
            )  # fmt: skip

    @rule(job_id=IDS)
    def pause(self, job_id: str) -> None:
        if self.known(job_id):
            for each in self.beats:
                each.jobs.pause(job_id)
            if job_id in self.plain:
                self.plain[job_id].following = None

    @rule(job_id=IDS)
    def resume(self, job_id: str) -> None:
        if self.known(job_id):
            for each in self.beats:
                each.jobs.resume(job_id)
            if job_id in self.plain and self.plain[job_id].following is None:
                self.plain[job_id].resume(self.now)

    @rule(job_id=IDS)
    def delete(self, job_id: str) -> None:
        self.plain.pop(job_id, None)
        assert len({each.jobs.delete(job_id) for each in self.beats}) == 1

    @rule(job_id=IDS)
    def trigger(self, job_id: str) -> None:
        if self.known(job_id):
            before = Counter(self.times(self.beats[0], job_id))
            for each in self.beats:
                each.jobs.trigger(job_id)
            if job_id in self.plain:
                (at,) = (Counter(self.times(self.beats[0], job_id)) - before).elements()
                self.plain[job_id].fired.add(at)

    @rule(job_id=IDS, ago=SECONDS, most=st.sampled_from([1, 3]))
    def backfill(self, job_id: str, ago: float, most: int) -> None:
        if not self.known(job_id) or job_id in self.plain:
            return
        end = START + timedelta(seconds=self.now - BEGIN)
        for each in self.beats:
            try:
                made = each.jobs.backfill(job_id, end - timedelta(seconds=ago), end, most)
            except InvalidOption:
                continue
            # Its id is random; the stores must agree about it.
            each.store.delete_job(made.id)
            again = replace(made, id=f"{job_id}/{self.now}", version=0)
            each.store.put_job(again)

    @rule(seconds=SECONDS)
    def pass_time(self, seconds: float) -> None:
        for each in self.beats:
            each.now += seconds
            each.beat.tick()
        for expected in self.plain.values():
            expected.tick(self.now)

    @rule()
    def finish(self) -> None:
        for each in self.beats:
            each.finish()

    @rule(target=stale, seconds=SECONDS)
    def decide_and_freeze(self, seconds: float) -> Any:
        """A beat reads what will be due, and is frozen before it fires."""
        then = self.now + seconds
        frozen = [[firing_of(job, then) for job in each.store.due_jobs(then, 10)[0]] for each in self.beats]
        return multiple(frozen)

    @rule(firings=stale)
    def thaw(self, firings: Any) -> None:
        """It goes on; where nothing has changed meanwhile, and the time has come, that is a firing like any other."""
        for each, its in zip(self.beats, firings, strict=True):
            late = [one for one in its if all((run.scheduled_for or 0.0) <= self.now for run in one.runs)]
            for fired in each.store.fire(late, self.now):
                each.publish(fired.dispatches if fired else ())
            each.beat.tick()
        for expected in self.plain.values():
            expected.tick(self.now)

    @invariant()
    def all_say_the_same(self) -> None:
        one, *others = (self.seen(each) for each in self.beats)
        for other in others:
            assert one == other

    @invariant()
    def no_time_has_two_runs(self) -> None:
        for job_id in "abc":
            assert max(Counter(self.times(self.beats[0], job_id)).values(), default=1) == 1

    @invariant()
    def plain_jobs_have_fired_as_they_must(self) -> None:
        for job_id, expected in self.plain.items():
            record = self.beats[0].jobs.read(job_id)
            assert expected.fired <= set(self.times(self.beats[0], job_id))
            assert record.next_run_at == expected.following
            assert record.status is (JobStatus.PAUSED if expected.following is None else JobStatus.ACTIVE)
            assert record.missed == 0

    def times(self, beats: Beats, job_id: str) -> list[float]:
        return [each.scheduled_for or 0.0 for each in beats.store.runs(RunFilter(job_id=job_id, limit=100_000))]

    def seen(self, beats: Beats) -> Any:
        # Versions count every change, and ids of runs are random.
        jobs = [replace(each, version=0, last_run_id=None, payload={}) for each in beats.store.jobs()]
        ends = {each.id: each.last_run_id is not None for each in beats.store.jobs()}
        missed = Counter(
            (each.job_id, each.data["scheduled_for"], each.data["count"], each.data["reason"])
            for each in beats.events("job.missed")
        )
        fired = Counter((each.job_id, each.data["scheduled_for"]) for each in beats.events("job.fired"))
        due, following = beats.store.due_jobs(beats.now, 100)
        return jobs, ends, missed, fired, sorted(each.id for each in due), following, len(beats.sent)


def test_stores_agree_about_jobs_whatever_is_done_to_them(redis_url: str) -> None:
    machine = type("Machine", (Machine,), {"redis_url": redis_url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_stores_agree_about_jobs_whatever_is_done_to_them_for_long(redis_url: str) -> None:
    machine = type("Machine", (Machine,), {"redis_url": redis_url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=400,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
