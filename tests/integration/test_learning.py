"""What steps took in one run orders those of the next."""

import time

import pytest

from orchestra import Orchestrator, Task, Workflow
from orchestra.store.learning import knows_nothing


def slow() -> None:
    """Take a while."""
    time.sleep(0.2)


def quick() -> None:
    """Take no time."""


def begun(orch: Orchestrator) -> list[str]:
    """Run a workflow of a long way of one step and a short way of three, and return the steps as they were begun."""
    tasks = [Task(name=name, agent=quick) for name in ("one", "two", "three")] + [Task(name="long", agent=slow)]
    run = orch.submit_workflow(Workflow("ways", tasks, {"two": ["one"], "three": ["two"]}))
    run.wait(30).raise_for_status()
    steps = orch.parts.store.steps(run.id)
    return [step.name for step in sorted(steps, key=lambda step: step.started_at or 0.0)]


def test_the_second_run_begins_with_what_took_longest_in_the_first() -> None:
    def second_begins_with() -> str:
        with Orchestrator(concurrency=1) as orch:
            orch.parts.cycle.learned = orch.parts.store.durations  # read each time
            assert begun(orch)[0] == "one"
            return begun(orch)[0]

    # On a machine that stalls, a quick step may take longer than the slow one.
    assert "long" in (second_begins_with() for _ in range(5))


def test_learning_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRA_WITHOUT", "learning")
    with Orchestrator(concurrency=1) as orch:
        assert orch.parts.cycle.learned is knows_nothing
        assert not orch.parts.cycle.learns
        assert [begun(orch)[0], begun(orch)[0]] == ["one", "one"]
