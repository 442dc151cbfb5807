"""Failures: what a run does about them, and what makes up for them."""

from typing import Any

from orchestra.engine.outcome import Completed, Expanded, Failed, Rescheduled
from orchestra.engine.plan import StepInput
from orchestra.engine.rows import Expansion, of_elements
from orchestra.model.record import ErrorInfo
from orchestra.model.status import WorkflowStatus
from orchestra.testing.contract.desk import BOOM, WITH_FALLBACK, Desk, a_map, graph, must

FALLING: dict[str, Any] = {"options": WITH_FALLBACK}


class Failing:
    """``Failed``, ``on_failure``, fallbacks."""

    def test_the_first_failure_skips_what_has_not_started_and_ends_the_run(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [0], [1]))
        desk.retry(run, 1, 60.0)
        recorded = desk.fail(run, 0)
        assert recorded.ended_run is WorkflowStatus.FAILED
        assert desk.statuses(run) == "FA SK SK SK"
        assert desk.told(run)[-3:] == ["skipped 2", "skipped 3", "workflow.failed"]
        assert desk.due() is None
        error = desk.step(run, 3).error
        assert error is not None
        assert "'s0'" in error.message

    def test_the_error_of_a_run_names_the_step(self, desk: Desk) -> None:
        run = desk.create(graph([], [0]))
        desk.fail(run, 0, ErrorInfo("ValueError", "boom", "Traceback …", ("ValueError", "Exception")))
        record, step = desk.store.run(run), desk.step(run, 0)
        assert record is not None
        assert record.error is not None
        assert (record.error.type, record.error.message) == ("ValueError", "'s0': boom")
        assert step.error == ErrorInfo("ValueError", "boom", "Traceback …", ("ValueError", "Exception"))

    def test_the_error_of_a_single_task_is_its_own(self, desk: Desk) -> None:
        run = desk.single()
        assert desk.fail(run, 0).ended_run is WorkflowStatus.FAILED
        record = desk.store.run(run)
        assert record is not None
        assert record.error == BOOM
        assert desk.told(run)[2:] == ["started alone", "failed alone"]

    def test_what_is_running_goes_on_to_its_end_and_then_the_run_has_failed(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [], [1]))
        running = [desk.claim(run, n) for n in (1, 2)]
        assert desk.fail(run, 0).ended_run is None
        assert desk.statuses(run) == "FA RU RU SK"
        assert desk.ended(run) is WorkflowStatus.RUNNING
        assert must(desk.record(running[0], Completed("1"))).ended_run is None
        assert must(desk.record(running[1], Completed("2"))).ended_run is WorkflowStatus.FAILED
        assert desk.statuses(run) == "FA CO CO SK"

    def test_nothing_is_begun_in_a_run_that_is_about_to_fail(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [], [], s3=a_map(), s2=FALLING))
        retried, crashed, spread = desk.claim(run, 1), desk.claim(run, 2), desk.claim(run, 3)
        desk.fail(run, 0)
        assert desk.record(retried, Rescheduled(BOOM, 1.0)) is not None
        assert desk.record(crashed, Failed(BOOM)) is not None
        assert must(desk.record(spread, Expanded(Expansion([])))).ended_run is WorkflowStatus.FAILED
        assert desk.statuses(run) == "FA SK FA CO"
        assert "'s0'" in must(desk.run(run).error).message

    def test_a_worker_that_dies_in_a_run_that_is_about_to_fail_does_not_keep_it_from_ending(self, desk: Desk) -> None:
        run = desk.create(graph([], []))
        running = desk.claim(run, 1)
        desk.fail(run, 0)
        assert must(desk.vanish(running)).ended_run is WorkflowStatus.FAILED
        assert desk.statuses(run) == "FA SK"

    def test_an_expansion_comes_too_late_for_a_run_that_is_about_to_fail(self, desk: Desk) -> None:
        run = desk.create(graph([], [], s1=a_map()))
        claimed = desk.claim(run, 1)
        first, _join = desk.store.reserve(run, 1, 0)
        desk.fail(run, 0)
        recorded = desk.record(claimed, Expanded(of_elements(claimed.row, [StepInput([1])], first)))
        assert recorded is not None
        assert recorded.ended_run is WorkflowStatus.FAILED
        assert desk.statuses(run) == "FA SK"

    def test_a_failed_part_fails_what_it_is_a_part_of(self, desk: Desk) -> None:
        run = desk.create(graph([], [0], s0=a_map()))
        one, other, idle = desk.spread(run, 0, 3)
        running = desk.claim(run, other)
        (inner,) = desk.turn(run, one, graph([]))
        assert desk.fail(run, inner).ended_run is None
        assert [desk.step(run, n).status for n in (inner, one, 0, 1, idle)] == [
            "FAILED", "FAILED", "FAILED", "SKIPPED", "SKIPPED",
        ]  # fmt: skip
        assert must(desk.record(running, Completed("1"))).ended_run is WorkflowStatus.FAILED

    def test_a_part_of_a_single_task_that_fails_ends_it_without_workflow_events(self, desk: Desk) -> None:
        run = desk.single()
        one, other, _gather = desk.turn(run, 0, graph([], []))
        running = desk.claim(run, other)
        desk.fail(run, one)
        assert must(desk.record(running, Completed("1"))).ended_run is WorkflowStatus.FAILED
        assert "failed alone" in desk.told(run)

    # --- runs that go on ----------------------------------------------------------------------------------------

    def test_a_run_that_goes_on_skips_only_what_depends_on_the_failure(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [0], [1], [2, 3], on_failure="continue"))
        assert desk.fail(run, 0).ended_run is None
        assert desk.statuses(run) == "FA QU SK PE PE"
        desk.complete(run, 1)
        assert desk.complete(run, 3).ended_run is WorkflowStatus.FAILED
        assert desk.statuses(run) == "FA CO SK CO SK"
        assert must(desk.run(run).error).message == "'s0': boom"

    def test_a_run_that_goes_on_keeps_its_first_error(self, desk: Desk) -> None:
        run = desk.create(graph([], [], on_failure="continue"))
        desk.fail(run, 1, ErrorInfo("E", "first"))
        assert desk.fail(run, 0, ErrorInfo("E", "second")).ended_run is WorkflowStatus.FAILED
        assert must(desk.run(run).error).message == "'s1': first"

    def test_any_way_that_is_taken_makes_up_for_one_that_is_broken(self, desk: Desk) -> None:
        run = desk.create(
            graph([], [], [0, 1], [0, 1], on_failure="continue", s2={"any": True, "from_predecessors": True})
        )
        desk.fail(run, 0)
        desk.complete(run, 1, output="5")
        assert desk.statuses(run) == "FA CO QU SK"
        claimed = desk.claim(run, 2)
        assert dict(claimed.predecessors) == {1: "s1"}
        assert must(desk.record(claimed, Completed("1"))).ended_run is WorkflowStatus.FAILED

    def test_a_join_of_any_whose_ways_are_broken_or_dead_is_skipped(self, desk: Desk) -> None:
        shape = graph([], [], [0, 1], [2], on_failure="continue", s2={"any": True, "whens": {1: "output"}})
        run = desk.create(shape)
        desk.fail(run, 0)
        assert desk.complete(run, 1, dead=[0]).ended_run is WorkflowStatus.FAILED
        assert desk.statuses(run) == "FA CO SK SK"

    def test_a_map_with_a_failed_part_fails_when_all_have_ended(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [0], on_failure="continue", s0=a_map(1)))
        one, other = desk.spread(run, 0, 2)
        desk.fail(run, one)
        assert (desk.step(run, 0).status, desk.step(run, other).status) == ("WAITING", "QUEUED")
        desk.complete(run, other)
        error = desk.step(run, 0).error
        assert error is not None
        assert error.type == "PartsFailed"
        assert desk.statuses(run) == "FA QU SK FA CO"
        assert desk.complete(run, 1).ended_run is WorkflowStatus.FAILED

    def test_a_workflow_inside_a_run_that_goes_on_goes_on_and_fails_at_its_end(self, desk: Desk) -> None:
        run = desk.create(graph([], on_failure="continue"))
        one, other, behind, gather = desk.turn(run, 0, graph([], [], [0]))
        desk.fail(run, one)
        assert [desk.step(run, n).status for n in (other, behind)] == ["QUEUED", "SKIPPED"]
        assert desk.complete(run, other).ended_run is WorkflowStatus.FAILED
        assert [desk.step(run, n).status for n in (gather, 0)] == ["SKIPPED", "FAILED"]

    # --- fallbacks ----------------------------------------------------------------------------------------------

    def test_a_step_with_a_fallback_does_not_fail_and_takes_its_output(self, desk: Desk) -> None:
        run = desk.create(graph([], [0], [1], s1={**FALLING, "from_predecessors": True}))
        desk.complete(run, 0, output='"given"')
        desk.fail(run, 1)
        assert desk.statuses(run) == "CO WA PE QU"
        claimed = desk.claim(run, 3)
        assert (claimed.name, claimed.row.target) == ("s1 (fallback)", "m:other")
        assert dict(claimed.outputs) == {0: '"given"'}
        desk.record(claimed, Completed('"made up for"'))
        step = desk.step(run, 1)
        assert (step.status, step.output, step.error) == ("COMPLETED", '"made up for"', None)
        assert desk.complete(run, 2).ended_run is WorkflowStatus.COMPLETED

    def test_a_fallback_that_fails_fails_its_step(self, desk: Desk) -> None:
        run = desk.create(graph([], [0], s0=FALLING))
        desk.fail(run, 0)
        assert desk.fail(run, 2).ended_run is WorkflowStatus.FAILED
        assert desk.statuses(run) == "FA SK FA"

    def test_a_fallback_that_fails_breaks_its_ways_in_a_run_that_goes_on(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [0], on_failure="continue", s0=FALLING))
        desk.fail(run, 0)
        desk.fail(run, 3)
        assert desk.statuses(run) == "FA QU SK FA"
        assert desk.complete(run, 1).ended_run is WorkflowStatus.FAILED

    def test_a_run_whose_failures_were_all_made_up_for_has_completed(self, desk: Desk) -> None:
        run = desk.create(graph([], on_failure="continue", s0=FALLING))
        desk.fail(run, 0)
        assert desk.complete(run, 1).ended_run is WorkflowStatus.COMPLETED
        record = desk.store.run(run)
        assert record is not None
        assert record.error is None

    def test_a_step_that_kills_its_workers_falls_back_too(self, desk: Desk) -> None:
        run = desk.create(graph([], s0=FALLING))
        for _ in range(5):
            desk.vanish(desk.claim(run, 0))
        assert desk.statuses(run) == "WA QU"
        assert desk.complete(run, 1).ended_run is WorkflowStatus.COMPLETED

    def test_the_fallback_of_a_map_is_for_each_of_its_parts(self, desk: Desk) -> None:
        run = desk.create(graph([], s0=a_map(**FALLING)))
        one, other = desk.spread(run, 0, 2)
        desk.fail(run, one)
        instead = other + 1
        assert desk.step(run, instead).parent == one
        desk.complete(run, instead, output="1")
        assert desk.complete(run, other, output="2").ended_run is WorkflowStatus.COMPLETED
        assert desk.step(run, 0).output == "[1,2]"

    def test_a_map_that_has_no_list_fails_although_its_parts_would_have_a_fallback(self, desk: Desk) -> None:
        run = desk.create(graph([], s0=a_map(**FALLING)))
        assert desk.fail(run, 0).ended_run is WorkflowStatus.FAILED

    def test_a_workflow_that_fails_is_made_up_for_by_the_fallback_of_what_turned_into_it(self, desk: Desk) -> None:
        run = desk.create(graph([], [0], s0=FALLING))
        one, other, gather = desk.turn(run, 0, graph([], []))
        assert desk.fail(run, one).ended_run is None
        assert [desk.step(run, n).status for n in (0, other)] == ["WAITING", "QUEUED"]
        desk.complete(run, other)
        instead = gather + 1
        assert desk.step(run, instead).name == "s0 (fallback)"
        desk.complete(run, instead, output="1")
        assert desk.statuses(run) == "CO QU FA CO SK CO"
        assert desk.complete(run, 1).ended_run is WorkflowStatus.COMPLETED

    def test_a_condition_sees_the_output_of_a_fallback(self, desk: Desk) -> None:
        run = desk.create(graph([], [0], [0], s0=FALLING, s1={"whens": {0: "output == 1"}}))
        desk.fail(run, 0)
        claimed = desk.claim(run, 3)
        assert list((claimed.row.whens or {}).values()) == ["output == 1"]
        desk.record(claimed, Completed("2", frozenset(int(each) for each in claimed.row.whens or {})))
        assert desk.statuses(run) == "CO SK QU CO"

    def test_a_fallback_of_a_single_task_leaves_it_a_single_task(self, desk: Desk) -> None:
        run = desk.single(**FALLING)
        desk.fail(run, 0)
        assert desk.complete(run, 1, output="1").ended_run is WorkflowStatus.COMPLETED
        assert desk.told(run)[-1] == "completed alone"
