"""Jobs: how they are kept, and how their times become runs, each once."""

from collections.abc import Sequence
from dataclasses import replace
from threading import Barrier, Thread

import pytest

from orchestra.model.record import JobRecord
from orchestra.model.schedule import JobStatus, Overlap, Schedule, ScheduleType
from orchestra.store.contract import Fired, Firing, RunFilter
from orchestra.testing.contract.desk import Desk, graph, must

INTERVAL_S = 10.0


def job(job_id: str = "j", *, at: float | None = 100.0, **fields: object) -> JobRecord:
    """Return a job that is due at a time, not stored yet; ``fields`` are those of its schedule."""
    schedule = replace(Schedule(ScheduleType.INTERVAL, interval_s=INTERVAL_S, starts_at=0.0), **fields)  # pyright: ignore[reportArgumentType]
    return JobRecord(job_id, "größe", schedule, {"agent": "m:f", "n": [1, None]}, 1.0, next_run_at=at, due_at=at)


def firing(desk: Desk, read: JobRecord, times: Sequence[float], *, by_hand: bool = False) -> Firing:
    """Return the decision that times become runs of one step."""
    runs = [desk.new(graph([]), job_id=read.backfills or read.id, scheduled_for=each) for each in times]
    following = None if read.next_run_at is None else times[-1] + INTERVAL_S
    return Firing(read, runs, following, following, by_hand=by_hand)


def fire(desk: Desk, read: JobRecord, *times: float, by_hand: bool = False) -> Fired | None:
    """Let times of one job become runs."""
    return desk.store.fire([firing(desk, read, times, by_hand=by_hand)], desk.clock())[0]


def times_of(desk: Desk, job_id: str = "j") -> list[float]:
    """Return the times of a job's runs."""
    return sorted(run.scheduled_for or 0.0 for run in desk.store.runs(RunFilter(job_id=job_id)))


class Scheduling:
    """Jobs and firings."""

    def test_a_job_is_kept_as_it_was_put(self, desk: Desk) -> None:
        made = job(timezone="Asia/Tokyo", overlap=Overlap.SKIP, jitter_s=0.25, max_runs=3)
        assert desk.store.put_job(made) == replace(made, version=1)
        assert desk.store.job("j") == replace(made, version=1)
        assert desk.store.put_job(job("k")) is not None
        assert [each.id for each in desk.store.jobs()] == ["j", "k"]
        assert desk.store.job("other") is None

    def test_only_what_has_not_changed_is_replaced(self, desk: Desk) -> None:
        made = must(desk.store.put_job(job()))
        assert desk.store.put_job(job()) is None
        paused = must(desk.store.put_job(replace(made, status=JobStatus.PAUSED)))
        assert (desk.store.put_job(made), desk.store.job("j")) == (None, paused)

    def test_active_jobs_are_due_in_the_order_of_their_times(self, desk: Desk) -> None:
        for job_id, at in (("late", 300.0), ("second", 200.0), ("first", 100.0), ("never", None)):
            desk.store.put_job(job(job_id, at=at))
        desk.store.put_job(replace(job("paused", at=50.0), status=JobStatus.PAUSED))
        due, following = desk.store.due_jobs(200.0, 10)
        assert ([each.id for each in due], following) == (["first", "second"], 100.0)
        assert [each.id for each in desk.store.due_jobs(200.0, 1)[0]] == ["first"]
        assert desk.store.due_jobs(99.0, 10) == ([], 100.0)

    def test_a_firing_creates_runs_moves_the_job_on_and_says_so(self, desk: Desk) -> None:
        made = must(desk.store.put_job(job()))
        fired = must(fire(desk, made, 100.0, 110.0))
        assert (times_of(desk), len(fired.dispatches)) == ([100.0, 110.0], 2)
        kept = must(desk.store.job("j"))
        assert (kept.runs, kept.last_run_at, kept.last_run_id) == (2, 110.0, fired.run_ids[1])
        assert (kept.next_run_at, kept.due_at, kept.version) == (120.0, 120.0, 2)
        told = [each for each in desk.store.events(0)[0] if each.type == "job.fired"]
        assert [(each.job_id, each.run_id) for each in told] == [("j", run_id) for run_id in fired.run_ids]

    def test_of_many_that_decide_about_a_time_one_creates_its_run(self, desk: Desk) -> None:
        read = [must(desk.store.put_job(job(f"j{n}"))) for n in range(5)]
        barrier, answers = Barrier(4), list[Fired | None]()

        def race() -> None:
            firings = [firing(desk, each, [100.0]) for each in read]
            barrier.wait()
            answers.extend(desk.store.fire(firings, desk.clock()))

        threads = [Thread(target=race) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert (len(answers), sum(each is not None for each in answers)) == (20, 5)
        assert [times_of(desk, each.id) for each in read] == [[100.0]] * 5

    def test_a_time_that_has_a_run_gets_no_second_one(self, desk: Desk) -> None:
        made = must(desk.store.put_job(job()))
        assert fire(desk, made, 100.0) is not None
        set_back = must(desk.store.put_job(replace(must(desk.store.job("j")), next_run_at=100.0, due_at=100.0)))
        assert must(fire(desk, set_back, 100.0, 110.0)).run_ids
        assert times_of(desk) == [100.0, 110.0]

    @pytest.mark.parametrize("change", ["pause", "delete"])
    def test_a_job_that_changed_since_it_was_read_does_not_fire(self, desk: Desk, change: str) -> None:
        made = must(desk.store.put_job(job()))
        if change == "pause":
            desk.store.put_job(replace(made, status=JobStatus.PAUSED))
        else:
            assert desk.store.delete_job("j")
            assert not desk.store.delete_job("j")
        assert fire(desk, made, 100.0) is None
        assert times_of(desk) == []

    def test_a_job_that_skips_overlaps_gets_no_run_while_one_is_open(self, desk: Desk) -> None:
        made = must(desk.store.put_job(job(overlap=Overlap.SKIP)))
        fire(desk, made, 100.0)
        assert must(fire(desk, must(desk.store.job("j")), 110.0)).run_ids == []
        kept = must(desk.store.job("j"))
        assert (times_of(desk), kept.runs, kept.missed) == ([100.0], 1, 1)
        [missed] = [each for each in desk.store.events(0)[0] if each.type == "job.missed"]
        assert missed.data["scheduled_for"] == 110.0

    def test_max_runs_ends_a_job_and_a_run_by_hand_does_not_count(self, desk: Desk) -> None:
        made = must(desk.store.put_job(job(max_runs=1)))
        by_hand = must(fire(desk, made, 55.0, by_hand=True))
        kept = must(desk.store.job("j"))
        assert (kept.last_run_id, kept.runs, kept.next_run_at) == (by_hand.run_ids[0], 0, 100.0)
        fire(desk, kept, 100.0)
        ended = must(desk.store.job("j"))
        assert (ended.status, ended.next_run_at, ended.due_at) == (JobStatus.ENDED, None, None)

    def test_a_deleted_job_leaves_its_runs(self, desk: Desk) -> None:
        made = must(desk.store.put_job(job()))
        fire(desk, made, 100.0)
        assert desk.store.delete_job("j")
        assert (desk.store.job("j"), times_of(desk)) == (None, [100.0])
