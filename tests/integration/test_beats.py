"""Beats as processes: several at once, killed at any moment, under celery beat, inside workers."""

import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from orchestra import Orchestrator, ScheduledJob
from orchestra.model.record import JobRecord
from orchestra.model.schedule import JobStatus, Schedule, ScheduleType
from orchestra.runtime.jobs import STOCK
from orchestra.store.contract import RunFilter
from tests import bodies
from tests.cluster import ROOT, Cluster
from tests.commands import orchestra
from tests.forks import Program
from tests.processes import Process, least, wait_until
from tests.stores import store_url


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything."""

    jobs: int
    seconds: int
    kill_every_s: float
    ahead_s: int
    """How far ahead the first time is, so that all jobs are there by then."""


ENV = dict(os.environ)
PROCESSES = ("sqlite", "postgresql", "redis")
"""Stores that processes share."""
NEVER = Schedule(ScheduleType.INTERVAL)
QUICK = Scale(20, 6, 1.5, 6)
FULL = Scale(200, 60, 3.0, 15)


@pytest.fixture
def cluster(tmp_path: Path, redis_url: str) -> Iterator[Cluster]:
    with Cluster(tmp_path, redis_url, queue=f"beats-{tmp_path.name}") as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("scale", [QUICK, pytest.param(FULL, marks=[pytest.mark.soak, pytest.mark.timeout(300)])])
@pytest.mark.parametrize("kind", PROCESSES)
def test_three_beats_of_which_one_is_killed_again_and_again_fire_everything_once(
    cluster: Cluster, kind: str, scale: Scale, request: pytest.FixtureRequest
) -> None:
    cluster.store = store_url(kind, request)
    beats = [beat(cluster) for _ in range(3)]
    with cluster.orchestrator() as orch:
        heard: dict[str, float] = {}
        # When a reader of the log sees the firing, which is later than the commit by up to its poll.
        orch.on("job.fired", lambda event: heard.setdefault(event.run_id, time.time()))
        begin = datetime.fromtimestamp(int(time.time()) + scale.ahead_s, UTC)
        end = begin + timedelta(seconds=scale.seconds - 1)
        made = [
            orch.schedule(
                agent=bodies.echo, input=n, id=f"job-{n}", interval_seconds=1, starts_at=begin, ends_at=end
            )
            for n in range(scale.jobs)
        ]  # fmt: skip
        kills = kill_now_and_then(beats, until=end.timestamp() + 1, every_s=scale.kill_every_s)
        wait_until(lambda: all(each.status == "ENDED" for each in orch.jobs()), 60, "the last firings")
        wait_until(lambda: len(heard) >= scale.jobs * scale.seconds, 60, "the events of all firings")
        late: list[tuple[float, float]] = []
        for job in made:
            runs = orch.parts.store.runs(RunFilter(job_id=job.id, limit=10_000))
            times = Counter(int((each.scheduled_for or 0) - begin.timestamp()) for each in runs)
            assert times == Counter(range(scale.seconds)), (job.id, times)
            late += [(each.scheduled_for or 0.0, heard[each.id] - (each.scheduled_for or 0.0)) for each in runs]
        quiet = [by for at, by in late if not any(0 <= at - kill <= 3 for kill in kills)]
        print(f"{kind}: {len(late)} firings, {len(kills)} kills; seen in the log {told([by for _at, by in late])}")
        print(f"  outside three seconds after a kill: {len(quiet)} firings, {told(quiet)}")
        if scale is FULL:  # which has the machine for itself
            assert percentile(quiet, 99) <= 1.0


def percentile(values: list[float], percent: int) -> float:
    return sorted(values)[len(values) * percent // 100]


def told(values: list[float]) -> str:
    """Return how late firings were."""
    if not values:
        return "none"
    shown = ", ".join(f"p{each} {percentile(values, each):.3f} s" for each in (50, 99))
    return f"{shown}, max {max(values):.3f} s late"


def beat(cluster: Cluster) -> Process:
    """Start `orchestra beat` and wait until it looks for jobs."""
    process = cluster.run(["beat"])
    process.wait_for("ready.")
    return process


def kill_now_and_then(beats: list[Process], *, until: float, every_s: float) -> list[float]:
    """Kill a random beat again and again, start it again, and return when that was."""
    rng, kills = random.Random(3), list[float]()
    while time.time() + every_s < until:
        time.sleep(every_s)
        victim = rng.choice(beats)
        kills.append(time.time())
        victim.kill9()
        victim.start()
    return kills


def test_a_change_takes_effect_within_a_second_while_beats_run(cluster: Cluster) -> None:
    beat(cluster)
    with cluster.orchestrator() as orch:

        def fired_after() -> float:
            asked = time.time()
            job = orch.schedule(agent=bodies.noop, run_at=datetime.now(UTC))
            wait_until(lambda: job.runs(), 30, "the run")
            return time.time() - asked

        assert least(fired_after, 1.5) < 1.5
        every = orch.schedule(agent=bodies.noop, interval_seconds=0.2)
        wait_until(lambda: len(every.runs()) >= 2, 30, "two runs")
        every.pause()
        paused = len(every.runs())
        other = orch.schedule(agent=bodies.noop, run_at=datetime.now(UTC) + timedelta(seconds=1))
        wait_until(lambda: other.runs(), 30, "a later run of another job")
        assert len(every.runs()) == paused


def test_a_worker_with_a_beat_fires_jobs_and_runs_them(cluster: Cluster) -> None:
    cluster.worker("--beat", "--concurrency", "1")
    with cluster.orchestrator() as orch:
        job = orch.schedule(
            agent=bodies.echo, input="{scheduled_for} {now}", context={"now": bodies.process_id}, interval_seconds=0.5
        )
        wait_until(lambda: len(job.runs()) >= 2, 30, "two runs")
        run = job.runs()[-1].wait(30)
        assert run.scheduled_for is not None
        said, _, pid = str(run.output).partition(" ")
        assert datetime.fromisoformat(said) == run.scheduled_for
        assert int(pid) > 0


def test_a_beat_leaves_on_sigterm_and_touches_its_heartbeat(cluster: Cluster) -> None:
    heartbeat = cluster.folder / "heartbeat"
    process = cluster.run(["beat", "--heartbeat", str(heartbeat)])
    process.wait_for("ready.")
    wait_until(heartbeat.exists, 30, "the heartbeat")
    assert process.stop(30) == 0


ADOPTED = """
from datetime import timedelta

from celery import Celery
from celery.schedules import crontab

from orchestra import Orchestrator

app = Celery("adopted", broker={broker!r})
app.conf.update(task_default_queue={queue!r}, task_ignore_result=True, beat_schedule={entries})
orch = Orchestrator(app=app, store={store!r})


@app.task(name="tick")
def tick(word):
    with open({trace!r}, "a") as file:
        print(word, file=file)
"""


class Adopted:
    """A Celery application with entries of its own, the processes that stock commands start of it, and what it did."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder, self.trace = cluster, folder, folder / "ticks"
        self.trace.touch()

    def write(self, **entries: str) -> None:
        """Write its module; an entry is given by its schedule as source text, and its task notes the entry's name."""
        made = ", ".join(
            f"{name!r}: dict(task='tick', schedule={each}, args=[{name!r}])" for name, each in entries.items()
        )
        values = {"broker": self.cluster.broker, "queue": self.cluster.queue, "store": self.cluster.store}
        text = ADOPTED.format(entries=f"{{{made}}}", trace=str(self.trace), **values)
        (self.folder / "adopted.py").write_text(text)

    def celery(self, *arguments: str) -> Process:
        log = self.folder / f"{arguments[0]}-{len(list(self.folder.glob('*.log')))}.log"
        log.touch()
        command = [sys.executable, "-m", "celery", "-A", "adopted:app", *arguments, "-l", "INFO"]
        return Program(command, log=log, cwd=self.folder, env={"PYTHONPATH": f"{self.folder}:{ROOT}"})

    def worker(self) -> Process:
        return self.celery("worker", "-c", "1")

    def beat(self) -> Process:
        return self.celery("beat", "-S", "orchestra", "--pidfile=")

    def said(self, word: str) -> int:
        return self.trace.read_text().split().count(word)

    def orchestrator(self) -> Orchestrator:
        """Return a producer of the same application in this process."""
        app = Celery("producer", broker=self.cluster.broker, set_as_current=False)
        app.conf.task_default_queue = self.cluster.queue
        app.task(name="tick")(bodies.echo)
        return Orchestrator(app=app, store=self.cluster.store)


@pytest.fixture
def adopted(cluster: Cluster, tmp_path: Path) -> Adopted:
    return Adopted(cluster, tmp_path)


@pytest.mark.parametrize("kind", PROCESSES)
def test_stock_entries_and_jobs_fire_once_under_several_celery_beats(
    cluster: Cluster, adopted: Adopted, kind: str, request: pytest.FixtureRequest
) -> None:
    cluster.store = store_url(kind, request)
    adopted.write(number="1.0", delta="timedelta(seconds=2)", minutely="crontab()", never="timedelta(days=300)")
    with adopted.orchestrator() as orch:
        # Beats were away for an hour: what is due by then is sent at once, and once.
        hour_ago = time.time() - 3600
        entry = JobRecord(f"{STOCK}minutely", "minutely", NEVER, {}, hour_ago, JobStatus.PAUSED, last_run_at=hour_ago)
        assert orch.parts.store.put_job(entry) is not None
        begun = time.time()
        with adopted.worker(), adopted.beat() as first, adopted.beat() as second:
            for each in (first, second):
                each.wait_for("beat: Starting...")
            job = orch.schedule(ScheduledJob("tick", kwargs={"word": "job"}, interval_seconds=1, id="j"))
            wait_until(lambda: adopted.said("number") >= 5, 30, "five ticks")
            wait_until(lambda: adopted.said("delta") >= 2, 30, "two of the timedelta")
            wait_until(lambda: adopted.said("job") >= 4, 30, "four firings")
            wait_until(lambda: adopted.said("minutely") >= 1, 30, "what was due for an hour")
            said = {word: adopted.said(word) for word in ("number", "delta", "minutely", "never", "job")}
            ended = time.time()  # and then how many there may be by now
            assert said["number"] <= ended - begun + 3
            assert said["delta"] <= (ended - begun) / 2 + 3
            assert said["minutely"] <= 1 + ended // 60 - begun // 60
            assert said["never"] == 0
            assert said["job"] <= len(job.runs())
            assert [each.id for each in orch.jobs()] == ["j"]
    assert not (adopted.folder / "celerybeat-schedule").exists()


def test_a_stock_entry_that_was_changed_or_removed_is_so_after_a_restart_of_the_beat(adopted: Adopted) -> None:
    adopted.write(kept="1.0", changed="3600.0", removed="1.0")
    with adopted.worker():
        with adopted.beat():
            wait_until(lambda: min(adopted.said("kept"), adopted.said("removed")) >= 2, 30, "two ticks of each")
        before = adopted.said("kept")
        adopted.write(kept="1.0", changed="timedelta(seconds=1)", new="1.0")
        with adopted.beat():
            wait_until(lambda: min(adopted.said("changed"), adopted.said("new")) >= 1, 30, "the changed and the new")
            removed = adopted.said("removed")
            wait_until(lambda: adopted.said("kept") >= before + 3, 30, "three more ticks of what stayed")
            assert adopted.said("removed") == removed


def jobs(cluster: Cluster, *arguments: str) -> str:
    """Run ``orchestra jobs`` and return what it printed."""
    done = orchestra("jobs", *arguments, env={**ENV, **cluster.env})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", PROCESSES)
def test_the_command_line_lists_adds_and_changes_jobs(
    cluster: Cluster, kind: str, request: pytest.FixtureRequest
) -> None:
    cluster.store = store_url(kind, request)
    added = ("--task", "tests.bodies:echo", "--input", '"hello"', "--cron", "0 9 * * mon-fri", "--id", "daily")
    jobs(cluster, "add", *added, "--starts-at", "2030-01-01T00:00Z")
    (row,) = json.loads(jobs(cluster, "list", "--json"))
    assert (row["id"], row["status"], row["cron"]) == ("daily", "ACTIVE", "0 9 * * mon-fri")
    times = json.loads(jobs(cluster, "next", "daily", "-n", "3", "--json"))
    assert [each[:19] for each in times] == ["2030-01-01T09:00:00", "2030-01-02T09:00:00", "2030-01-03T09:00:00"]
    assert json.loads(jobs(cluster, "pause", "daily", "--json"))[0]["status"] == "PAUSED"
    assert json.loads(jobs(cluster, "resume", "daily", "--json"))[0]["status"] == "ACTIVE"
    run_id = jobs(cluster, "trigger", "daily").strip()
    with cluster.orchestrator() as orch:
        assert orch.get_run(run_id).job_id == "daily"
    assert json.loads(jobs(cluster, "delete", "daily", "--json")) == {"id": "daily", "deleted": True}
    assert json.loads(jobs(cluster, "list", "--json")) == []


@pytest.mark.parametrize("kind", PROCESSES)
def test_a_change_by_the_command_line_takes_effect_within_a_second(
    cluster: Cluster, kind: str, request: pytest.FixtureRequest
) -> None:
    cluster.store = store_url(kind, request)
    beat(cluster)
    with cluster.orchestrator() as orch:

        def fires_after(job: str) -> float:
            done, known = time.time(), len(orch.get_job(job).runs())
            wait_until(lambda: len(orch.get_job(job).runs()) > known, 30, "a run")
            newest = orch.get_job(job).runs()[0]
            assert newest.created_at is not None
            return newest.created_at.timestamp() - done

        def added() -> float:
            job = f"j{len(orch.jobs())}"
            jobs(cluster, "add", "--task", "tests.bodies:noop", "--every", "0.2", "--id", job)
            return fires_after(job)

        def resumed() -> float:
            jobs(cluster, "pause", "j0")
            paused = len(orch.get_job("j0").runs())
            later = orch.schedule(agent=bodies.noop, run_at=datetime.now(UTC) + timedelta(seconds=1))
            wait_until(later.runs, 30, "a later run of another job")
            assert len(orch.get_job("j0").runs()) == paused
            jobs(cluster, "resume", "j0")
            return fires_after("j0")

        assert least(added, 1.0) < 1.0
        assert least(resumed, 1.0) < 1.0


@pytest.mark.parametrize("kind", PROCESSES)
def test_a_job_whose_task_is_gone_says_so_and_hurts_no_other(
    cluster: Cluster, kind: str, request: pytest.FixtureRequest
) -> None:
    cluster.store = store_url(kind, request)
    cluster.worker("--beat", "--concurrency", "1")
    with cluster.orchestrator() as orch:
        heard: list[Any] = []
        orch.on("job.missed", lambda event: heard.append((event.job_id, event.data["reason"])))
        gone = orch.schedule(agent="tests.bodies:no_such_function", id="gone", interval_seconds=0.5)
        sound = orch.schedule(agent=bodies.echo, input="x", id="sound", interval_seconds=0.5)
        wait_until(lambda: gone.error, 30, "the error of the job")
        assert "no_such_function" in str(gone.error)
        wait_until(lambda: heard, 30, "the event")
        assert heard[0][0] == "gone"
        assert "no_such_function" in heard[0][1]
        wait_until(lambda: len(sound.runs()) >= 3, 30, "runs of the other")
        assert sound.runs()[-1].wait(30).output == "x"
        assert sound.error is None


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["--cron", "0 25 * * *"], ["character 3", "0 to 23"]),
        (["--cron", "@daily", "--timezone", "Europe/Berln"], ["character 12", "Europe/Berlin"]),
        (["--every", "5x"], ["--every", "character 2", "12h"]),
        (["--every", "0"], ["interval_seconds", "at least 0.1 s"]),
        (["--at", "tomorrow"], ["--at", "2030-12-31T09:00"]),
        (["--every", "5", "--cron", "@daily"], ["one of run_at"]),
    ],
)
def test_the_command_line_says_what_is_wrong_and_stores_nothing(
    tmp_path: Path, wrong: list[str], told: list[str]
) -> None:
    env = {**ENV, "ORCHESTRA_BROKER": "redis://localhost:1/0", "ORCHESTRA_STORE": f"sqlite:///{tmp_path}/state.db"}
    done = orchestra("jobs", "add", "--task", "tests.bodies:echo", *wrong, env=env)
    assert done.returncode == 2
    assert all(each in done.stderr for each in told), done.stderr
    listed = orchestra("jobs", "list", "--json", env=env)
    assert json.loads(listed.stdout) == [], listed.stderr


def test_the_command_line_refuses_to_keep_jobs_nowhere() -> None:
    done = orchestra("jobs", "add", "--task", "tests.bodies:echo", "--every", "5m")
    assert done.returncode == 2
    assert "ORCHESTRA_STORE" in done.stderr
