"""The demo's run: progress, summary, and the worker processes that it starts and stops."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from orchestra.cli.demo import fleet as fleets
from orchestra.cli.demo.fleet import Fleet, WorkersNotReady
from orchestra.cli.demo.graph import build_graph
from orchestra.cli.demo.measure import measure
from orchestra.cli.demo.progress import LiveDisplay, PlainDisplay, Running, Snapshot, follow, panel, source_of
from orchestra.cli.demo.rankings import rank_modules
from orchestra.cli.demo.records import Measure
from orchestra.cli.demo.report import write_files
from orchestra.cli.demo.summary import lines, proof, summarise

# --- progress --------------------------------------------------------------------------------------------------


def snapshots() -> Iterator[Snapshot]:
    held = [Running("measure_module", "json.decoder", "w1")]
    yield Snapshot("RUNNING", {"PENDING": 4, "RUNNING": 1}, [Running("list_modules", "list_modules", "w1")], 0.1)
    yield Snapshot("RUNNING", {"QUEUED": 9, "RUNNING": 1, "COMPLETED": 1}, held, 0.3)
    yield Snapshot("RUNNING", {"QUEUED": 8, "RUNNING": 1, "COMPLETED": 2}, held, 0.5)
    yield Snapshot("RUNNING", {"QUEUED": 6, "RUNNING": 1, "COMPLETED": 4}, held, 1.4)
    yield Snapshot("COMPLETED", {"COMPLETED": 11}, [], 1.9)


def test_plain_progress_is_a_line_a_second_and_one_per_phase() -> None:
    source, written = snapshots(), list[str]()
    last = follow(lambda: next(source), PlainDisplay(written.append), pause=lambda _: None)
    assert last.status == "COMPLETED"
    assert [line.split("] ")[1].split(",")[0] for line in written] == [
        "listing the modules: 0 of 5 steps",
        "measuring: 1 of 11 steps",
        "measuring: 4 of 11 steps",
        "completed: 11 of 11 steps",
    ]
    assert "running json.decoder on w1" in written[1]


def test_watchers_see_every_snapshot() -> None:
    source, seen = snapshots(), list[int]()
    follow(lambda: next(source), PlainDisplay(lambda _: None), lambda _: None, [lambda each: seen.append(each.done)])
    assert seen == [0, 1, 2, 4, 11]


def test_live_progress_keeps_its_height_and_shows_what_runs_where() -> None:
    console = Console(file=StringIO(), width=100)
    heights = set[int]()
    for snapshot in snapshots():
        with console.capture() as shown:
            console.print(panel(snapshot, "measuring", 12.0))
        heights.add(len(shown.get().splitlines()))
        assert all(f"{each.name} on {each.worker}" in shown.get() for each in snapshot.running)
    assert len(heights) == 1


def test_live_progress_ends_with_the_run() -> None:
    source, out = snapshots(), StringIO()
    display = LiveDisplay(Console(file=out, force_terminal=True, width=100))
    assert follow(lambda: next(source), display, lambda _: None).ended


@dataclass
class FakeStep:
    name: str
    id: str = "s"
    worker: str | None = "w1"
    output: object = None
    status: str = "COMPLETED"
    attempts: int = 1
    crashes: int = 0
    error: object = None
    started_at: datetime | None = None
    completed_at: datetime | None = None


@dataclass
class FakeRun:
    status: str
    output: object = None
    error: object = None
    tasks: list[FakeStep] = field(default_factory=list[FakeStep])


class FakeEngine:
    def get_run(self, run_id: str, /) -> FakeRun:
        return FakeRun("RUNNING")

    def counts(self, run_id: str, /) -> dict[str, int]:
        return {"RUNNING": 1, "COMPLETED": 2}

    def running(self, run_id: str, /) -> list[FakeStep]:
        return [FakeStep("measure_module[1]"), FakeStep("rank")]


def test_the_source_names_parts_of_the_fan_out_by_module() -> None:
    snapshot = source_of(FakeEngine(), "r", clock=lambda: 5.0, modules=["abc", "ast"])()
    assert [(each.step, each.name) for each in snapshot.running] == [("measure_module", "ast"), ("rank", "rank")]
    assert (snapshot.done, snapshot.total, snapshot.elapsed_s) == (2, 3, 0.0)


# --- summary ---------------------------------------------------------------------------------------------------


@pytest.fixture
def measures(tmp_path: Path) -> list[Measure]:
    sources = {"first": "import os\n", "second": "import sys\n", "broken": "def ("}
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(source)
    return [measure(str(tmp_path / f"{name}.py"), tmp_path) for name in sources]


def ended_run(measures: list[Measure], out: Path) -> FakeRun:
    headline = write_files(rank_modules(measures), build_graph(measures), measures, out)
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    parts = [
        FakeStep(f"measure_module[{index}]", started_at=begin, completed_at=begin + timedelta(seconds=index))
        for index in range(len(measures))
    ]
    fan_out = FakeStep("measure_module", started_at=begin, completed_at=begin + timedelta(hours=1))
    listing = FakeStep("list_modules", output=["a"] * len(measures))
    return FakeRun("COMPLETED", headline, None, [listing, fan_out, *parts])


def test_the_summary_proves_that_nothing_was_lost(measures: list[Measure], tmp_path: Path) -> None:
    run = ended_run(measures, tmp_path / "out")
    run.tasks[2].crashes, run.tasks[3].attempts = 1, 2
    summary = summarise(run, 2.0, ["first", "second", "broken"])
    assert summary.nothing_lost
    assert (summary.taken_over, summary.retried, summary.steps) == (1, 1, 5)
    assert summary.slowest[0] == ("broken", 2.0)
    assert proof(summary)[0] == "Nothing was lost: 3 modules listed, 3 in the report."
    said = dict(lines(summary))
    assert said["Modules"] == "3 measured, 1 of them could not be parsed"
    assert said["Report"].endswith("report.html")


def test_the_summary_notices_a_lost_module(measures: list[Measure], tmp_path: Path) -> None:
    run = ended_run(measures, tmp_path / "out")
    run.tasks[0].output = ["a"] * 4
    assert not summarise(run, 2.0, []).nothing_lost


def test_the_summary_of_a_failed_run_says_what_failed() -> None:
    run = FakeRun("FAILED", None, "disk full", [FakeStep("write_report", status="FAILED", error="disk full")])
    said = lines(summarise(run, 1.0, []))
    assert ("Error", "disk full") in said
    assert ("Failed", "write_report: disk full") in said


# --- worker processes ------------------------------------------------------------------------------------------


def test_a_fleet_waits_until_its_workers_are_ready_and_stops_them(tmp_path: Path) -> None:
    with Fleet(["sh", "-c", "echo node ready.; exec sleep 60"], {}, tmp_path) as fleet:
        first, second = fleet.start(), fleet.start()
        fleet.wait_ready()
        fleet.kill(first)
        assert not first.running
        assert second.running
    assert not second.running


def test_a_worker_that_ends_at_once_is_reported_with_its_log(tmp_path: Path) -> None:
    with Fleet(["sh", "-c", "echo no such app; exit 3"], {}, tmp_path) as fleet:
        fleet.start()
        with pytest.raises(WorkersNotReady, match=r"worker 1 ended with 3.*\n.*no such app"):
            fleet.wait_ready()


def test_a_worker_that_ignores_the_request_to_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleets, "GRACE_S", 0.2)
    with Fleet(["sh", "-c", "trap '' TERM; echo is ready; while :; do sleep 1; done"], {}, tmp_path) as fleet:
        worker = fleet.start()
        fleet.wait_ready()
    assert not worker.running
