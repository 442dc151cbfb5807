"""The benchmark suite's arithmetic: what it makes of samples."""

import json
from pathlib import Path

import pytest

from benchmarks.cases import CASES
from benchmarks.contestants import chosen
from benchmarks.figures import Spread, drift, percentile, ratios, shown, spread
from benchmarks.report import chart, document, table
from benchmarks.samples import Run, Sample, by_contestant, excuses, joined
from benchmarks.schedule import Job, critical, drawn, lower_bound, read, remaining

NOOP = next(case for case in CASES if case.name == "noop")


def run(*samples: Sample) -> Run:
    return Run({"processor": "two cores"}, samples)


def noop(contestant: str, round: int, rate: float, problem: str = "") -> Sample:
    return Sample(round, "noop", contestant, "tiny", 20.0 + round, {"rate": rate} if rate else {}, problem)


def test_a_spread_is_the_median_and_both_ends() -> None:
    assert spread([5, 1, 9, 2]) == Spread(3.5, 1, 9, 4)
    with pytest.raises(ValueError, match="no samples"):
        spread([])


def test_ratios_are_made_within_a_round_so_that_a_machine_that_slows_down_does_not_count() -> None:
    assert ratios({0: 10, 1: 20, 2: 40}, {0: 20, 1: 40, 2: 80}) == [0.5, 0.5, 0.5]
    assert ratios({0: 10, 3: 7}, {0: 20, 1: 40}) == [0.5], "a round that one of them missed is left out"


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (1, 100), (0, 1)])
def test_a_percentile_is_a_sample_that_this_share_does_not_exceed(share: float, expected: int) -> None:
    assert percentile(range(100, 0, -1), share) == expected


def test_drift_is_the_slowest_loop_by_the_fastest() -> None:
    assert drift([20.0, 22.0, 25.0]) == 1.25


@pytest.mark.parametrize(
    ("value", "text"),
    [(5123.4, "5,123"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (0.01234, "0.012"), (0, "0")],
)
def test_numbers_show_no_more_digits_than_mean_something(value: float, text: str) -> None:
    assert shown(value) == text


def test_names_choose_systems_or_configurations_and_orchestra_is_always_there() -> None:
    names = [each.name for each in chosen(["taskiq-results", "rq"])]
    assert names == [each for each in names if each.startswith("orchestra")] + ["taskiq-results", "rq", "rq-simple"]
    assert [each.name for each in chosen(["orchestra-embedded"])] == ["orchestra-embedded"]
    assert len(chosen([])) > len(names)
    assert {each.name for each in chosen([])} - {each.name for each in chosen([], without=["rq"])} == {"rq"}
    with pytest.raises(ValueError, match="nobody is called 'selery'; there are orchestra, celery"):
        chosen(["selery"])


def test_a_table_ranks_by_the_median_and_compares_with_bare_celery() -> None:
    played = run(
        *(noop("celery", number, rate) for number, rate in enumerate([100, 120, 110])),
        *(noop("huey", number, rate) for number, rate in enumerate([200, 600, 220])),
    )
    rows = table(played, NOOP).splitlines()
    assert [row.split("|")[1:4] for row in rows[2:]] == [
        [" huey ", " **220** (200–600) ", " 2.00 "],
        [" celery ", " **110** (100–120) ", " 1.00 "],
    ]
    assert chart(played, NOOP).splitlines()[2:4] == [
        f"huey                          220  {'█' * 40}",
        f"celery                        110  {'█' * 20}",
    ]


def test_what_failed_is_named_and_what_cannot_be_expressed_is_not() -> None:
    cannot = Sample(0, "noop", "langgraph", "tiny", problem="langgraph has no noop", offered=False)
    played = run(noop("celery", 0, 100), noop("rq", 0, 0, "TimeoutError: 3 of 50 bodies"), cannot)
    assert excuses(played.samples, "noop") == {"rq": "TimeoutError: 3 of 50 bodies"}
    assert by_contestant(played.samples, "noop", "rate") == {"celery": {0: 100}}
    page = document(played, CASES)
    assert "- rq: TimeoutError: 3 of 50 bodies" in page
    assert "## chain" not in page, "a case that nobody played is not shown"


def test_a_sample_comes_back_from_its_line_as_it_was(tmp_path: Path) -> None:
    sample = noop("celery", 1, 12.5)
    path = tmp_path / "samples.jsonl"
    path.write_text('{"machine": {"processor": "two cores"}}\n' + sample.line())
    assert Run.read(path) == run(sample)


def test_a_contestant_without_the_first_figure_stands_last() -> None:
    recovery = next(case for case in CASES if case.name == "recovery")
    samples = [
        Sample(0, "recovery", "huey", "tiny", 20, {"lost": 40}),
        Sample(0, "recovery", "orchestra", "tiny", 20, {"claimed_s": 2, "lost": 0}),
    ]
    rows = table(run(*samples), recovery).splitlines()[2:]
    assert [row.split("|")[1:4] for row in rows] == [[" orchestra ", " 2.00 ", " 0 "], [" huey ", " – ", " 40.0 "]]


def jobs(*all_jobs: tuple[float, tuple[int, ...]]) -> list[Job]:
    return [Job(f"t{at}", seconds, after) for at, (seconds, after) in enumerate(all_jobs)]


def test_no_schedule_is_shorter_than_the_longest_path_or_the_work_by_slots() -> None:
    diamond = jobs((1, ()), (2, (0,)), (5, (0,)), (1, (1, 2)))
    assert remaining(diamond) == [7, 3, 6, 1]
    assert lower_bound(diamond, 2) == 7
    assert lower_bound(diamond, 1) == 9


def test_the_schedule_takes_the_longest_remaining_path_first() -> None:
    assert critical(jobs((1, ()), (1, ()), (3, ())), 2) == 3, "the long one begins at once"
    assert critical(jobs((1, ()), (1, ()), (3, ())), 1) == 5


def test_drawn_graphs_are_the_same_each_time_and_every_job_comes_after_what_it_needs() -> None:
    assert drawn() == drawn()
    for graph in drawn():
        assert all(before < at for at, job in enumerate(graph) for before in job.after)
        assert critical(graph, 16) >= lower_bound(graph, 16)


def test_recorded_graphs_are_read_in_an_order_in_which_they_can_run(tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    path.write_text('{"tasks": [{"id": "b", "seconds": 2, "after": ["a"]}, {"id": "a", "seconds": 1, "after": []}]}')
    assert read(path) == [Job("a", 1, ()), Job("b", 2, (0,))]


def test_every_case_has_parameters_for_every_size_and_a_figure_to_compare() -> None:
    for case in CASES:
        assert set(case.sizes) == {"tiny", "quick", "full"}
        for parameters in case.sizes.values():
            assert case.asks.format(**parameters)
        assert case.figures


def test_what_is_published_has_no_paths_of_one_machine() -> None:
    problem = "OSError: no file '/tmp/bench-1/state.db' at 127.0.0.1:80/api\ndriver.log: /home/me/x.py"
    files = [f'{{"machine": {{"commit": "{n}"}}}}\n' + noop("rq", n, 0, problem).line() for n in range(2)]
    machine, *samples = map(json.loads, joined(files).splitlines())
    assert machine == {"machine": {"commit": "0"}}
    assert [each["round"] for each in samples] == [0, 1]
    assert {each["problem"] for each in samples} == {"OSError: no file '…' at 127.0.0.1:80/api"}


def test_waits_are_for_the_pools_of_celery_that_are_made_for_them() -> None:
    celery = [each for each in chosen(["celery"]) if each.peer == "celery"]
    assert [each.name for each in celery if each.takes("waits")] == ["celery-gevent", "celery-threads"]
    assert [each.name for each in celery if each.takes("noop")] == [
        "celery", "celery-forget", "celery-rabbitmq", "celery-rabbitmq-forget",
    ]  # fmt: skip
