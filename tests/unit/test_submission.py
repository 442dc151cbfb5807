"""Submitting, as far as it can be seen without a store: when Python looks for garbage meanwhile."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestra import Orchestrator, Task, Workflow, submission
from orchestra.engine.plan import Plan
from tests.bodies import noop


class Interrupted(Exception):
    """Whatever may come in between."""


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Whether garbage was collected each time that a plan was made, which then ends with an error."""
    seen: list[bool] = []

    def plan(*_args: object, **_options: object) -> Plan:
        seen.append(gc.isenabled())
        raise Interrupted

    monkeypatch.setattr(submission, "plan", plan)
    yield seen
    gc.enable()


def submit(folder: Path, steps: int) -> None:
    with Orchestrator(state_file=folder / "state.db") as orch, pytest.raises(Interrupted):
        orch.submit_workflow(Workflow("w", [Task(f"{n}", noop) for n in range(steps)]))


def test_no_garbage_is_collected_while_a_large_graph_is_made(tmp_path: Path, collected: list[bool]) -> None:
    submit(tmp_path, 1000)
    assert (collected, gc.isenabled()) == ([False], True)


def test_of_small_graphs_nobody_notices(tmp_path: Path, collected: list[bool]) -> None:
    submit(tmp_path, 999)
    assert (collected, gc.isenabled()) == ([True], True)


def test_a_program_that_collects_none_is_left_alone(tmp_path: Path, collected: list[bool]) -> None:
    gc.disable()
    submit(tmp_path, 1000)
    assert (collected, gc.isenabled()) == ([False], False)
