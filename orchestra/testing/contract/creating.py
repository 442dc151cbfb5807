"""Runs are created as a whole or not at all, and once for each key."""

import pytest

from orchestra.engine.outcome import Completed
from orchestra.errors import KeyConflict
from orchestra.model.ids import StepRef, new_id
from orchestra.model.status import WorkflowStatus
from orchestra.store.contract import RunFilter
from orchestra.testing.contract.desk import Desk, graph

LINE = graph([], [0])


class Creating:
    """``create_runs`` and ``reserve``."""

    def test_a_new_run_is_running_and_its_first_steps_are_queued(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [0, 1]))
        assert desk.statuses(run) == "QU QU PE"
        assert desk.ended(run) is WorkflowStatus.RUNNING
        assert desk.sent_of(run) == [0, 1]

    def test_a_run_is_stored_as_it_was_given(self, desk: Desk) -> None:
        new = desk.new(
            LINE, metadata={"who": "me", "n": [1, {"a": None}]}, key="k", fingerprint="f", job_id="job", priority=3,
            scheduled_for=5.5, name="größe '\"\\ x",
        )  # fmt: skip
        desk.create_all([new])
        run = desk.store.run(new.id)
        assert run is not None
        assert (run.id, run.name, run.workflow_id, run.single) == (new.id, new.name, "w", False)
        assert (run.metadata, run.key, run.job_id, run.scheduled_for) == (new.metadata, "k", "job", 5.5)
        assert (run.created_at, run.started_at, run.completed_at, run.error) == (desk.clock(), desk.clock(), None, None)

    def test_what_a_dispatch_says_is_what_the_plan_said(self, desk: Desk) -> None:
        desk.create(graph([], [0], [1]), queue="größe", priority=7)
        (dispatch,) = desk.sent
        assert (dispatch.task, dispatch.name, dispatch.queue, dispatch.priority) == ("task", "s0", "größe", 7)
        assert dispatch.ref.generation == 0
        assert [list(link) for link in dispatch.chain] == [
            [1, "task", "s1", "größe", 7], [2, "task", "s2", "größe", 7],
        ]  # fmt: skip

    def test_the_same_key_and_fingerprint_give_the_earlier_run_and_nothing_to_send(self, desk: Desk) -> None:
        first = desk.create(LINE, key="k", fingerprint="same")
        (again,) = desk.store.create_runs([desk.new(LINE, key="k", fingerprint="same")], desk.clock())
        assert (again.run_id, again.existing, list(again.dispatches)) == (first, True, [])
        assert len(desk.store.runs(RunFilter())) == 1

    def test_a_key_is_found_also_when_its_run_has_ended(self, desk: Desk) -> None:
        first = desk.create(LINE, key="k", fingerprint="same")
        desk.complete(first, 0, 1)
        (again,) = desk.store.create_runs([desk.new(LINE, key="k", fingerprint="same")], desk.clock())
        assert (again.run_id, again.existing) == (first, True)

    def test_the_same_key_twice_in_one_call_gives_one_run(self, desk: Desk) -> None:
        one, other = desk.new(LINE, key="k", fingerprint="f"), desk.new(LINE, key="k", fingerprint="f")
        assert desk.create_all([one, other]) == [one.id, one.id]

    def test_a_key_with_another_fingerprint_is_a_conflict_and_no_run_of_the_call_is_created(self, desk: Desk) -> None:
        first = desk.create(LINE, key="k", fingerprint="one")
        before = desk.store.last_event()
        innocent = desk.new(LINE)
        with pytest.raises(KeyConflict) as caught:
            desk.store.create_runs([innocent, desk.new(LINE, key="k", fingerprint="other")], desk.clock())
        assert (caught.value.key, caught.value.run_id) == ("k", first)
        assert desk.store.run(innocent.id) is None
        assert desk.store.step(StepRef(innocent.id, 0)) is None
        assert desk.store.steps(innocent.id) == []
        assert desk.store.depth() == {"q": 1}
        assert desk.store.last_event() == before
        assert desk.store.find_step("s0") == desk.step(first, 0)
        assert desk.create_all([innocent]) == [innocent.id]

    def test_an_id_that_exists_is_a_conflict_also_with_the_same_plan(self, desk: Desk) -> None:
        run = desk.create(LINE)
        with pytest.raises(KeyConflict) as caught:
            desk.store.create_runs([desk.new(LINE, id=run)], desk.clock())
        assert caught.value.key == run
        assert desk.statuses(run) == "QU PE"

    def test_many_runs_are_created_in_one_call(self, desk: Desk) -> None:
        runs = desk.create_all([desk.new(LINE) for _ in range(20)])
        assert len(set(runs)) == 20
        assert {each.ref.step.run_id for each in desk.sent} == set(runs)
        assert [each.id for each in desk.store.runs(RunFilter())] == sorted(runs, reverse=True)

    def test_a_single_task_has_no_workflow_events_and_the_id_of_its_run(self, desk: Desk) -> None:
        run = desk.single()
        assert desk.told(run) == ["submitted alone", "queued alone"]
        assert desk.complete(run, 0).ended_run is WorkflowStatus.COMPLETED
        assert desk.told(run)[2:] == ["started alone", "completed alone"]

    def test_numbers_that_are_set_aside_are_never_given_twice(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [0, 1]))
        assert desk.store.reserve(run, 3, 2) == (3, 1)
        assert desk.store.reserve(run, 1, 0) == (6, 3)
        assert desk.store.reserve(run, 0, 1) == (7, 3)

    def test_a_run_of_a_thousand_steps_is_created_as_one(self, desk: Desk) -> None:
        run = desk.create(graph([], *([0] for _ in range(1000)), range(1, 1001)))
        assert len(desk.store.steps(run)) == 1002
        assert desk.do(run, 0, Completed("1")).ended_run is None
        assert desk.store.depth() == {"q": 1000}

    def test_ids_that_only_look_alike_are_different(self, desk: Desk) -> None:
        stem = new_id()
        runs = [desk.create(LINE, id=each) for each in (stem, f"{stem}.0", f"{stem}%", stem.upper() + "x")]
        desk.complete(runs[0], 0)
        assert [desk.statuses(each) for each in runs] == ["CO QU", "QU PE", "QU PE", "QU PE"]
