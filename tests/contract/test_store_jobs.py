"""Jobs in every store: who fires, what is missed, what changes. The clock is injected and no broker is needed."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Barrier, Thread
from typing import Any

import pytest

from orchestra import ScheduledJob, Task, Workflow, task, workflow
from orchestra.engine.outcome import Completed, NotFound, decide
from orchestra.model.ids import MessageRef
from orchestra.model.record import ErrorInfo, JobRecord
from orchestra.model.retry import ONCE
from orchestra.model.schedule import JobStatus
from orchestra.model.status import WorkflowStatus
from orchestra.runtime.cycle import Cycle
from orchestra.runtime.jobs import Jobs, run_of
from orchestra.runtime.registry import Registry
from orchestra.runtime.scheduler import Scheduler
from orchestra.store.contract import Claimed, Dispatch, RunFilter, Store
from orchestra.store.memory.store import MemoryStore
from tests.stores import KINDS, open_url, store_url

START = datetime(2026, 1, 1, tzinfo=UTC)


@task
def work(what: str) -> str:
    return what


@workflow
def two(what: str) -> Any:
    return work(work(what))


class Beats:
    """Producers and beats of one store, with a clock that passes when it is told to."""

    def __init__(self, store: Store) -> None:
        self.store, self.now = store, START.timestamp()
        self.sent: list[MessageRef] = []
        self.cycle = Cycle(store, self, lambda: self.now, "beat")
        self.jobs = Jobs(self.cycle, Registry(travels=False), "q")
        self.beat = Scheduler(self.cycle)

    def publish(self, dispatches: Sequence[Dispatch], following: Sequence[object] = ()) -> None:
        self.sent += [each.ref for each in dispatches]

    def add(self, **options: Any) -> JobRecord:
        options = options if {"task", "workflow"} & options.keys() else {"task": work, "input": "x", **options}
        return self.jobs.add(ScheduledJob(**options))

    def go(self, seconds: float) -> None:
        """Let time pass from due to due, as a beat would."""
        end = self.now + seconds
        while True:
            self.beat.tick()
            _due, following = self.store.due_jobs(self.now, 0)
            if following is None or following > end:
                break
            self.now = max(self.now, following)
        self.now = end
        self.beat.tick()

    def finish(self) -> None:
        """Do all work that was sent."""
        while self.sent:
            claimed = self.store.claim(self.sent.pop(), "w", self.now)
            if isinstance(claimed, Claimed):
                recorded = self.store.record(claimed.claim, Completed("1"), self.now)
                self.publish(recorded.dispatches if recorded else ())

    def times(self, job: JobRecord) -> list[float]:
        """Return the times of a job's runs, as seconds after the start."""
        found = self.store.runs(RunFilter(job_id=job.id, limit=100_000))
        return sorted(round((each.scheduled_for or 0.0) - START.timestamp(), 3) for each in found)

    def events(self, kind: str) -> list[Any]:
        return [each for each in self.store.events(0, 100_000)[0] if each.type == kind]


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    made = open_url(store_url(request.param, request))
    yield made
    made.close()


@pytest.fixture
def beats(store: Store) -> Beats:
    return Beats(store)


def test_an_interval_fires_every_time_once_and_the_runs_say_which(beats: Beats) -> None:
    job = beats.add(interval_seconds=10)
    beats.go(35)
    assert beats.times(job) == [10, 20, 30]
    (newest, *_rest) = beats.store.runs(RunFilter(job_id=job.id))
    assert newest.job_id == job.id
    assert len(beats.sent) == 3
    kept = beats.jobs.read(job.id)
    assert (kept.runs, kept.last_run_id, kept.missed) == (3, newest.id, 0)
    assert kept.next_run_at == START.timestamp() + 40


def test_job_fired_comes_before_what_it_causes_and_names_job_and_run(beats: Beats) -> None:
    job = beats.add(workflow=two, input="x", run_at=START + timedelta(seconds=5))
    beats.go(6)
    kinds = [each.type for each in beats.store.events(0)[0]]
    assert kinds[:3] == ["job.fired", "workflow.started", "task.submitted"]
    (fired,) = beats.events("job.fired")
    assert fired.job_id == job.id
    assert fired.run_id == beats.jobs.read(job.id).last_run_id
    assert fired.data["scheduled_for"] == START.timestamp() + 5


def test_a_once_job_fires_once_and_has_ended(beats: Beats) -> None:
    job = beats.add(run_at=START + timedelta(days=30))
    beats.go(40 * 86_400)
    assert beats.times(job) == [30 * 86_400]
    assert beats.jobs.read(job.id).status is JobStatus.ENDED
    assert beats.store.due_jobs(beats.now, 10) == ([], None)


def test_many_beats_at_once_fire_every_time_once(beats: Beats) -> None:
    made = [beats.add(interval_seconds=1, id=f"job-{n}") for n in range(20)]
    beats.now += 5
    barrier = Barrier(4)

    def race() -> None:
        barrier.wait()
        beats.beat.tick()

    threads = [Thread(target=race) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert all(beats.times(job) == [1, 2, 3, 4, 5] for job in made)
    assert len(set(beats.sent)) == len(beats.sent)


def test_scheduling_the_same_again_goes_on_and_another_schedule_begins_anew(beats: Beats) -> None:
    beats.add(id="j", interval_seconds=10)
    beats.go(15)
    again = beats.add(id="j", interval_seconds=10, input="y")
    assert (again.runs, again.next_run_at) == (1, START.timestamp() + 20)
    other = beats.add(id="j", interval_seconds=60)
    assert other.next_run_at == beats.now + 60
    assert other.last_run_at == START.timestamp() + 10


def test_a_paused_job_does_not_fire_and_misses_nothing(beats: Beats) -> None:
    job = beats.add(interval_seconds=10)
    beats.jobs.pause(job.id)
    beats.go(35)
    resumed = beats.jobs.resume(job.id)
    assert resumed.next_run_at == START.timestamp() + 40
    beats.go(10)
    assert beats.times(job) == [40]
    assert beats.jobs.read(job.id).missed == 0


def test_trigger_runs_now_and_leaves_the_schedule_alone(beats: Beats) -> None:
    job = beats.add(interval_seconds=10)
    beats.now += 3
    run_id = beats.jobs.trigger(job.id)
    assert beats.times(job) == [3]
    assert beats.jobs.read(job.id).last_run_id == run_id
    beats.go(10)
    assert beats.times(job) == [3, 10]
    assert len(beats.sent) == 2


def test_overlap_skip_leaves_a_time_out_while_a_run_is_open(beats: Beats) -> None:
    job = beats.add(interval_seconds=10, overlap="skip")
    beats.go(25)
    assert beats.times(job) == [10]
    beats.finish()
    beats.go(10)
    assert beats.times(job) == [10, 30]
    (missed,) = beats.events("job.missed")
    assert missed.job_id == job.id
    assert missed.data["scheduled_for"] == START.timestamp() + 20
    assert beats.jobs.read(job.id).missed == 1


def test_max_runs_ends_a_job_and_counts_only_runs(beats: Beats) -> None:
    job = beats.add(interval_seconds=10, overlap="skip", max_runs=2)
    beats.go(25)
    beats.finish()
    beats.go(30)
    assert beats.times(job) == [10, 30]
    assert beats.jobs.read(job.id).status is JobStatus.ENDED


@pytest.mark.parametrize(("misfire", "runs"), [("skip", 0), ("once", 1), ("all", 9)])
def test_misfire_says_what_becomes_of_a_long_absence(beats: Beats, misfire: str, runs: int) -> None:
    job = beats.add(interval_seconds=10, misfire=misfire, grace_seconds=0)
    beats.now += 95
    beats.beat.tick()
    assert len(beats.times(job)) == runs
    assert beats.jobs.read(job.id).missed == 9 - runs
    assert len(beats.events("job.missed")) == (runs < 9)
    assert beats.jobs.read(job.id).next_run_at == START.timestamp() + 100


def test_jitter_puts_a_firing_off_and_not_its_name(beats: Beats) -> None:
    job = beats.add(interval_seconds=100, jitter_seconds=50)
    beats.go(99.999)
    due = beats.jobs.read(job.id).due_at
    assert due is not None
    assert beats.now < due < beats.now + 51
    beats.go(60)
    assert beats.times(job) == [100]


def test_backfill_creates_the_missing_runs_a_few_at_a_time(beats: Beats) -> None:
    job = beats.add(interval_seconds=10)
    beats.jobs.pause(job.id)
    beats.go(100)
    beats.jobs.resume(job.id)
    beats.go(11)
    beats.finish()
    start, end = START + timedelta(seconds=20), START + timedelta(seconds=105)
    fill = beats.jobs.backfill(job.id, start, end, 3)
    beats.go(0.1)
    assert len(beats.sent) == 3
    for _round in range(5):
        beats.finish()
        beats.go(1)
        assert len(beats.sent) <= 3
    assert beats.times(job) == [20, 30, 40, 50, 60, 70, 80, 90, 100, 110]
    assert beats.jobs.read(fill.id).status is JobStatus.ENDED
    assert beats.jobs.delete(job.id)
    assert beats.store.jobs() == []


def test_a_task_that_is_gone_is_said_in_the_job_and_hurts_no_other(beats: Beats) -> None:
    gone, sound = beats.add(id="gone", interval_seconds=10), beats.add(id="sound", interval_seconds=10)
    beats.go(11)
    last = beats.jobs.read("gone").last_run_id
    for message in beats.sent:
        claimed = beats.store.claim(message, "w", beats.now)
        assert isinstance(claimed, Claimed)
        outcome = NotFound(ErrorInfo("TaskNotFound", "no task 'a:b' on this worker"))
        change = decide(outcome, name="n", attempts=0, crashes=0, retry=ONCE)
        beats.store.record(claimed.claim, change if message.step.run_id == last else Completed("1"), beats.now)
    assert "no task 'a:b'" in (beats.jobs.read("gone").error or "")
    (missed,) = beats.events("job.missed")
    assert (missed.job_id, missed.run_id) == ("gone", last)
    assert beats.jobs.read("sound").error is None
    run = beats.store.run(last or "")
    assert run is not None
    assert run.status is WorkflowStatus.FAILED
    beats.go(10)
    assert beats.times(gone) == beats.times(sound) == [10, 20]


def test_a_job_that_cannot_be_read_is_put_aside_and_hurts_no_other(beats: Beats) -> None:
    broken = beats.add(id="broken", interval_seconds=10)
    assert beats.store.put_job(replace(broken, payload={"plan": "?"})) is not None
    sound = beats.add(id="sound", interval_seconds=10)
    beats.go(21)
    assert beats.times(sound) == [10, 20]
    assert "KeyError" in (beats.jobs.read("broken").error or "")
    assert beats.events("job.missed")[0].job_id == "broken"


def test_due_jobs_come_earliest_first_and_no_more_than_asked_for(beats: Beats) -> None:
    for n in (3, 1, 2):
        beats.add(id=f"j{n}", interval_seconds=n)
    found, following = beats.store.due_jobs(beats.now + 10, 2)
    assert [each.id for each in found] == ["j1", "j2"]
    assert following == START.timestamp() + 1
    assert beats.store.due_jobs(beats.now, 2) == ([], START.timestamp() + 1)


def test_inputs_say_when_and_what_the_context_holds(beats: Beats) -> None:
    job = beats.add(
        task=work, input="{scheduled_for} {last_run_at} {who} {other} {{who}}", interval_seconds=10,
        context={"who": ["me"]}, timezone="Europe/Berlin",
    )  # fmt: skip
    beats.go(10)
    claimed = beats.store.claim(beats.sent[0], "w", beats.now)
    assert isinstance(claimed, Claimed)
    assert claimed.row.input["args"] == ["2026-01-01T01:00:10+01:00 never ['me'] {other} {{who}}"]
    later = run_of(beats.jobs.read(job.id), START.timestamp() + 20, START.timestamp() + 10)
    assert (
        later.plan.steps[0].input.args[0]
        == "2026-01-01T01:00:20+01:00 2026-01-01T01:00:10+01:00 ['me'] {other} {{who}}"
    )


def test_a_year_of_schedules_runs_in_seconds() -> None:
    beats = Beats(MemoryStore())
    daily = beats.add(cron="30 2 * * *", timezone="Europe/Berlin")
    hourly = beats.add(cron="0 * * * *", timezone="America/New_York")
    weekly = beats.add(cron="0 9 * * mon", timezone="Australia/Lord_Howe")
    every = beats.add(interval_seconds=7200)
    leap = beats.add(cron="0 0 29 2 *")
    once = beats.add(run_at=START + timedelta(days=200))
    beats.go(365 * 86_400)
    assert len(beats.times(daily)) == 365
    assert len(beats.times(hourly)) == 365 * 24 - 1  # one hour does not exist, and the one that occurs twice fires once
    assert len(beats.times(weekly)) == 52
    assert len(beats.times(every)) == 365 * 12
    assert beats.times(leap) == []
    assert beats.times(once) == [200 * 86_400]


def test_workflows_keep_their_shape(beats: Beats) -> None:
    flow = Workflow(
        "flow", [Task("a", work, "x", retry=3), Task("b", work, fallback=work)], {"b": ["a"]},
        conditions={("a", "b"): "output == '1'"},
    )  # fmt: skip
    job = beats.add(workflow=flow, interval_seconds=10)
    beats.go(10)
    (run,) = beats.store.runs(RunFilter(job_id=job.id))
    assert [each.name for each in beats.store.steps(run.id)] == ["a", "b"]
    beats.finish()
    ended = beats.store.run(run.id)
    assert ended is not None
    assert ended.status is WorkflowStatus.COMPLETED
