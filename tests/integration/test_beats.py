"""Beats as processes: several at once, killed at any moment, under celery beat, inside workers."""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from celery import Celery

from orchestra import Orchestrator, ScheduledJob
from orchestra.store.contract import RunFilter
from tests import bodies
from tests.cluster import ROOT, Cluster
from tests.processes import Process, wait_until
from tests.stores import store_url

pytestmark = pytest.mark.alone


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything."""

    jobs: int
    seconds: int
    kill_every_s: float


ENV = dict(os.environ)
QUICK = Scale(20, 6, 1.5)
FULL = Scale(200, 60, 3.0)


@pytest.fixture
def cluster(tmp_path: Path, redis_url: str) -> Iterator[Cluster]:
    with Cluster(tmp_path, redis_url, queue=f"beats-{tmp_path.name}") as made:
        yield made


@pytest.mark.parametrize("scale", [QUICK, pytest.param(FULL, marks=[pytest.mark.soak, pytest.mark.timeout(300)])])
@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "redis"])
def test_three_beats_of_which_one_is_killed_again_and_again_fire_everything_once(
    cluster: Cluster, kind: str, scale: Scale, request: pytest.FixtureRequest
) -> None:
    cluster.store = store_url(kind, request)
    beats = [beat(cluster) for _ in range(3)]
    with cluster.orchestrator() as orch:
        begin = datetime.fromtimestamp(int(time.time()) + 3, UTC)
        end = begin + timedelta(seconds=scale.seconds - 1)
        made = [
            orch.schedule(
                agent=bodies.echo, input=n, id=f"job-{n}", interval_seconds=1, starts_at=begin, ends_at=end
            )
            for n in range(scale.jobs)
        ]  # fmt: skip
        heard: dict[str, float] = {}
        # When a reader of the log sees the firing, which is later than the commit by up to its poll.
        orch.on("job.fired", lambda event: heard.setdefault(event.run_id, time.time()))
        kills = kill_now_and_then(beats, until=end.timestamp() + 1, every_s=scale.kill_every_s)
        wait_until(lambda: all(each.status == "ENDED" for each in orch.jobs()), 30, "the last firings")
        wait_until(lambda: len(heard) >= scale.jobs * scale.seconds, 30, "the events of all firings")
        late: list[tuple[float, float]] = []
        for job in made:
            runs = orch.parts.store.runs(RunFilter(job_id=job.id, limit=10_000))
            times = Counter(int((each.scheduled_for or 0) - begin.timestamp()) for each in runs)
            assert times == Counter(range(scale.seconds)), (job.id, times)
            late += [(each.scheduled_for or 0.0, heard[each.id] - (each.scheduled_for or 0.0)) for each in runs]
        quiet = [by for at, by in late if not any(0 <= at - kill <= 3 for kill in kills)]
        print(f"{kind}: {len(late)} firings, {len(kills)} kills; seen in the log {told([by for _at, by in late])}")
        print(f"  outside three seconds after a kill: {len(quiet)} firings, {told(quiet)}")
        assert percentile([by for _at, by in late], 99) <= 1.0


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
        asked = time.time()
        job = orch.schedule(agent=bodies.noop, run_at=datetime.now(UTC))
        wait_until(lambda: job.runs(), 5, "the run")
        assert time.time() - asked < 1.5
        every = orch.schedule(agent=bodies.noop, interval_seconds=0.2)
        wait_until(lambda: len(every.runs()) >= 2, 5, "two runs")
        every.pause()
        paused = len(every.runs())
        other = orch.schedule(agent=bodies.noop, run_at=datetime.now(UTC) + timedelta(seconds=1))
        wait_until(lambda: other.runs(), 5, "a later run of another job")
        assert len(every.runs()) == paused


def test_a_worker_with_a_beat_fires_jobs_and_runs_them(cluster: Cluster) -> None:
    cluster.worker("--beat", "--concurrency", "1")
    with cluster.orchestrator() as orch:
        job = orch.schedule(
            agent=bodies.echo, input="{scheduled_for} {now}", context={"now": bodies.process_id}, interval_seconds=0.5
        )
        wait_until(lambda: len(job.runs()) >= 2, 10, "two runs")
        run = job.runs()[-1].wait(10)
        assert run.scheduled_for is not None
        said, _, pid = str(run.output).partition(" ")
        assert datetime.fromisoformat(said) == run.scheduled_for
        assert int(pid) > 0


def test_a_beat_leaves_on_sigterm_and_touches_its_heartbeat(cluster: Cluster) -> None:
    heartbeat = cluster.folder / "heartbeat"
    process = cluster.run(["beat", "--heartbeat", str(heartbeat)])
    process.wait_for("ready.")
    wait_until(heartbeat.exists, 5, "the heartbeat")
    started = time.monotonic()
    assert process.stop() == 0
    assert time.monotonic() - started < 3


ADOPTED = """
from celery import Celery
from celery.schedules import schedule

from orchestra import Orchestrator

app = Celery("adopted", broker={broker!r})
app.conf.update(
    task_default_queue={queue!r},
    task_ignore_result=True,
    beat_schedule={{"tick": {{"task": "tick", "schedule": 1.0, "args": ["stock"]}}}},
)
orch = Orchestrator(app=app, store={store!r})


@app.task(name="tick")
def tick(word):
    with open({trace!r}, "a") as file:
        print(word, file=file)
"""


def test_stock_entries_and_jobs_fire_once_under_several_celery_beats(cluster: Cluster, tmp_path: Path) -> None:
    trace = tmp_path / "ticks"
    trace.touch()
    text = ADOPTED.format(broker=cluster.broker, queue=cluster.queue, store=cluster.store, trace=str(trace))
    (tmp_path / "adopted.py").write_text(text)
    celery = [sys.executable, "-m", "celery", "-A", "adopted:app"]
    env = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    with Process([*celery, "worker", "-c", "1", "-l", "INFO"], log=tmp_path / "w.log", cwd=tmp_path, env=env) as worker:
        worker.wait_for(" ready.")
        command = [*celery, "beat", "-S", "orchestra.runtime.beat:BeatScheduler", "-l", "INFO", "--pidfile="]
        first, second = (Process(command, log=tmp_path / f"b{n}.log", cwd=tmp_path, env=env) for n in range(2))
        with first, second:
            for each in (first, second):
                each.wait_for("beat: Starting...")
            begun = time.monotonic()
            app = Celery("producer", broker=cluster.broker, set_as_current=False)
            app.conf.task_default_queue = cluster.queue
            app.task(name="tick")(bodies.echo)
            with Orchestrator(app=app, store=cluster.store) as orch:
                job = orch.schedule(ScheduledJob("tick", kwargs={"word": "job"}, interval_seconds=1, id="j"))
                wait_until(lambda: trace.read_text().split().count("stock") >= 5, 20, "five ticks")
                wait_until(lambda: trace.read_text().split().count("job") >= 4, 20, "four firings")
                span = time.monotonic() - begun
                words = Counter(trace.read_text().split())
                assert words["stock"] <= span + 3
                assert words["job"] <= len(job.runs())
                assert [each.id for each in orch.jobs()] == ["j"]
    assert not (tmp_path / "celerybeat-schedule").exists()


def test_the_command_line_lists_adds_and_changes_jobs(cluster: Cluster) -> None:
    def jobs(*arguments: str) -> str:
        command = [sys.executable, "-m", "orchestra", "jobs", *arguments]
        done = subprocess.run(command, cwd=ROOT, env={**ENV, **cluster.env}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    jobs("add", "--task", "tests.bodies:echo", "--input", '"hello"', "--cron", "0 9 * * mon-fri", "--id", "daily")
    (row,) = json.loads(jobs("list", "--json"))
    assert (row["id"], row["status"], row["cron"]) == ("daily", "ACTIVE", "0 9 * * mon-fri")
    times = json.loads(jobs("next", "daily", "-n", "3", "--json"))
    assert len(times) == 3
    assert all(each.endswith("T09:00:00+00:00") for each in times)
    assert json.loads(jobs("pause", "daily", "--json"))[0]["status"] == "PAUSED"
    assert json.loads(jobs("resume", "daily", "--json"))[0]["status"] == "ACTIVE"
    run_id = jobs("trigger", "daily").strip()
    with cluster.orchestrator() as orch:
        assert orch.get_run(run_id).job_id == "daily"
    jobs("delete", "daily")
    assert json.loads(jobs("list", "--json")) == []


def test_the_command_line_says_what_is_wrong_with_an_expression() -> None:
    command = [sys.executable, "-m", "orchestra", "jobs", "add", "--task", "tests.bodies:echo", "--cron", "0 25 * * *"]
    done = subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, text=True)
    assert done.returncode == 2
    assert "character 3" in done.stderr
    assert "0 to 23" in done.stderr
