"""Shapes in an embedded orchestrator: random graphs against the interpreter, and loops, on every store."""

import os
from collections.abc import Iterator

import pytest

from orchestra import Orchestrator, Task, TaskStatus, Workflow, WorkflowStatus, task, workflow
from orchestra.testing import check_history
from tests.drawn import check_random_graphs
from tests.shapes import broken, digest, loop, nested_failing, several
from tests.stores import KINDS, store_url

GRAPHS = int(os.environ.get("ORCHESTRA_GRAPHS", "20"))
"""How many graphs on each store."""


@pytest.fixture(scope="module", autouse=True)
def no_settings() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [each for each in os.environ if each.startswith("ORCHESTRA_")]:
            patch.delenv(name)
        yield


@pytest.fixture(params=KINDS)
def orch(request: pytest.FixtureRequest) -> Iterator[Orchestrator]:
    with Orchestrator(store=store_url(request.param, request), modules=["tests"], concurrency=8) as orch:
        yield orch


def test_random_graphs_end_as_the_interpreter_says(orch: Orchestrator) -> None:
    check_random_graphs(orch, range(GRAPHS), 60)
    check_history(orch.parts.store)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(1000, 1500, 100))
def test_five_hundred_random_graphs_end_as_the_interpreter_says(orch: Orchestrator, first: int) -> None:
    check_random_graphs(orch, range(first, first + 100), 300, at_once=16)
    check_history(orch.parts.store)


def test_a_loop_that_returns_the_next_workflow_ends(orch: Orchestrator) -> None:
    done = orch.submit(loop, 30).wait(30)
    assert (done.status, done.output) == (TaskStatus.COMPLETED, "done")
    assert {each.type for each in orch.history(run=done.id)}.isdisjoint({"workflow.started", "workflow.completed"})


def test_a_loop_without_end_is_stopped_by_max_rounds(orch: Orchestrator) -> None:
    @workflow
    def endless() -> object:
        return task(loop).options(max_rounds=5)(1000)

    run = orch.submit_workflow(endless).wait(30)
    assert run.status is WorkflowStatus.FAILED
    assert run.error is not None
    assert "max_rounds" in str(run.error)


def test_a_condition_looks_at_what_the_sub_workflow_made(orch: Orchestrator) -> None:
    first = Task("first", loop, 3)
    yes, no = Task("yes", digest), Task("no", digest)
    conditions = {("first", "yes"): "output == 'done'", ("first", "no"): "output != 'done'"}
    run = orch.submit_workflow(Workflow("either", [first, yes, no], conditions=conditions)).wait(30)
    assert run.status is WorkflowStatus.COMPLETED
    assert (yes.status, no.status) == (TaskStatus.COMPLETED, TaskStatus.SKIPPED)


def test_a_condition_on_a_map_decides_also_where_the_list_is_an_argument(orch: Orchestrator) -> None:
    @workflow
    def flow(size: int) -> object:
        found = task(digest).map(list(range(size)))
        return task(several).options(name="behind")(found).after(found, when="len(output) > 2")  # type: ignore[attr-defined]

    for size, status in ((5, TaskStatus.COMPLETED), (2, TaskStatus.SKIPPED)):
        run = orch.submit_workflow(flow, size).wait(30)
        assert [each.status for each in run.tasks if each.name == "behind"] == [status]


def test_a_fallback_makes_up_for_a_workflow_that_failed(orch: Orchestrator) -> None:
    @workflow
    def flow() -> object:
        return task(failing_flow).options(fallback=digest)(1)

    run = orch.submit_workflow(flow).wait(30)
    assert (run.status, run.output) == (WorkflowStatus.COMPLETED, digest(1))


def failing_flow(value: object) -> object:
    """Turn into a workflow that fails."""
    return Workflow("failing", [Task("broken", broken, value), Task("other", nested_failing, value)])
