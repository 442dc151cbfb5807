"""The tools that tests wait and kill with: what they report, and that they leave nothing running."""

import sys
from pathlib import Path

import pytest

from tests.processes import Process, lives, wait_until


def test_waiting_returns_what_the_condition_became() -> None:
    answers = iter([0, None, 7])
    assert wait_until(lambda: next(answers), 5) == 7


def test_waiting_in_vain_says_what_for_and_what_was_seen_last() -> None:
    with pytest.raises(AssertionError, match=r"waited 0.05 s for three workers; last seen: 0"):
        wait_until(lambda: 0, 0.05, "three workers")


def test_an_error_ends_the_wait_unless_it_means_not_yet() -> None:
    with pytest.raises(ZeroDivisionError):
        wait_until(lambda: 1 / 0, 5)
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        wait_until(lambda: 1 / 0, 0.05, ignoring=ZeroDivisionError)


def test_killing_takes_the_children_along(tmp_path: Path) -> None:
    script = "sleep 300 & echo child $!; wait"
    with Process(["bash", "-c", script], log=tmp_path / "log") as process:
        process.wait_for(r"child ")
        child = int(process.output.split()[1])
        process.kill9()
        wait_until(lambda: not lives(child), 30, "the child's end")
    assert process.popen.returncode == -9


def test_a_process_that_ends_too_early_is_reported_with_its_output(tmp_path: Path) -> None:
    with (
        Process([sys.executable, "-c", "print('no such app'); exit(3)"], log=tmp_path / "log") as process,
        pytest.raises(AssertionError, match=r"(?s)ended with status 3 before 'ready'.*no such app"),
    ):
        process.wait_for("ready")


def test_leaving_the_context_stops_the_command_and_its_children(tmp_path: Path) -> None:
    with Process(["bash", "-c", "sleep 300 & echo $!; wait"], log=tmp_path / "log") as process:
        process.wait_for("\n")
        child = int(process.output)
    assert not process.alive
    wait_until(lambda: not lives(child), 30, "the child's end")
