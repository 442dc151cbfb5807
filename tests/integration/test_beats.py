"""Beats as processes: several at once, killed at any moment, under celery beat, inside workers."""

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

from orchestra import Orchestrator, ScheduledJob
from orchestra.store.contract import RunFilter
from tests import bodies
from tests.cluster import ROOT, Cluster
from tests.processes import Process, wait_until


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything."""

    jobs: int
    seconds: int
    kill_every_s: float


QUICK = Scale(20, 6, 1.5)
FULL = Scale(200, 60, 3.0)


@pytest.fixture
def cluster(tmp_path: Path, redis_url: str) -> Iterator[Cluster]:
    with Cluster(tmp_path, redis_url, queue=f"beats-{tmp_path.name}") as made:
        yield made


@pytest.mark.parametrize("scale", [QUICK, pytest.param(FULL, marks=[pytest.mark.soak, pytest.mark.timeout(300)])])
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_three_beats_of_which_one_is_killed_again_and_again_fire_everything_once(
    cluster: Cluster, kind: str, scale: Scale, request: pytest.FixtureRequest
) -> None:
    if kind == "postgresql":
        cluster.store = request.getfixturevalue("postgres_store_url")
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
        kills = kill_now_and_then(beats, until=end.timestamp() + 1, every_s=scale.kill_every_s)
        wait_until(lambda: all(each.status == "ENDED" for each in orch.jobs()), 30, "the last firings")
        late: list[float] = []
        for job in made:
            runs = orch.parts.store.runs(RunFilter(job_id=job.id, limit=10_000))
            times = Counter(int((each.scheduled_for or 0) - begin.timestamp()) for each in runs)
            assert times == Counter(range(scale.seconds)), (job.id, times)
            late += [
                each.created_at - (each.scheduled_for or 0)
                for each in runs
                if not any(0 <= (each.scheduled_for or 0) - kill <= 3 for kill in kills)
            ]
        late.sort()
        if late:
            p99, worst = late[int(len(late) * 0.99)], late[-1]
            print(f"{kind}: {len(made) * scale.seconds} firings, {len(kills)} kills, {len(late)} measured,")
            print(f"lateness p50 {late[len(late) // 2]:.3f} s, p99 {p99:.3f} s, max {worst:.3f} s")
            assert p99 <= 1.0


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
