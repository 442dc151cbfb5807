"""The benchmark suite measures something: Orchestra in one process, and in a soak bare Celery beside it."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.samples import Run


@pytest.mark.timeout(240)
def test_rounds_are_played_shown_and_kept_as_lines_of_json(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "samples.jsonl"
    options = ["--case", "noop,chain", "--peers", "orchestra-embedded", "--rounds", "2", "--size", "tiny"]
    command = [sys.executable, "-m", "benchmarks", *options, "--out", out]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=220)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| orchestra-embedded | **" in done.stdout
    samples = Run.read(out).samples
    assert [(each.round, each.case, each.problem) for each in samples] == [
        (number, case, "") for number in range(2) for case in ("noop", "chain")
    ]
    assert all(figure > 0 for each in samples for name, figure in each.figures.items() if name != "server_cpu_s")


def test_a_case_that_does_not_exist_is_named_with_those_that_do(root: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--case", "chains"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("no case is called 'chains'; there are noop, chain")


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_make_bench_installs_a_peer_and_measures_it_beside_us(root: Path) -> None:
    command = ["make", "bench", "CASE=noop", "PEERS=celery", "ROUNDS=1", "SIZE=tiny"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=380)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| orchestra-redis |" in done.stdout
    assert "| celery-rabbitmq |" in done.stdout
