"""Retry by hand, and fork."""

from orchestra.engine.outcome import Completed, Failed
from orchestra.model import template
from orchestra.model.ids import StepRef
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.store.values import Claimed, Refused
from orchestra.testing.contract.desk import BOOM, WITH_FALLBACK, Desk, a_map, graph, must


class Retrying:
    """``retry`` and ``fork``: runs that have ended and run again, wholly or in part."""

    # --- retry --------------------------------------------------------------------------------------------------

    def test_a_retry_runs_what_failed_and_what_it_kept_from_running(self, desk: Desk) -> None:
        inputs = {"args": [template.reference_to(0), template.reference_to(3)]}
        run = desk.create(graph([], [], [0], [1], [0, 3], s4=inputs))
        desk.complete(run, 0, 2, output='"kept"')
        desk.fail(run, 1)
        assert desk.statuses(run) == "CO FA CO SK SK"
        desk.sent.clear()
        assert desk.retry_run(run)
        assert desk.statuses(run) == "CO QU CO PE PE"
        assert desk.ended(run) is WorkflowStatus.RUNNING
        assert desk.run(run).error is None
        assert desk.sent_of(run) == [1]
        step = desk.step(run, 1)
        assert (step.generation, step.attempts, step.claims, step.error) == (1, 0, 1, None)
        assert isinstance(desk.try_claim(run, 1), Refused), "a message of the generation before"
        desk.go_on(run, 1)
        desk.go_on(run, 3)
        claimed = desk.claim_again(run, 4)
        assert claimed.outputs == {0: '"kept"', 3: "null"}
        assert must(desk.record(claimed, Completed("1"))).ended_run is WorkflowStatus.COMPLETED
        assert "workflow.retried" in desk.told(run)

    def test_a_retry_keeps_checkpoints_and_counts_attempts_anew(self, desk: Desk) -> None:
        run = desk.single()
        claimed = desk.claim(run, 0)
        desk.store.save_checkpoint(claimed.claim, "a", "1", 1.0)
        desk.record(claimed, Failed(BOOM))
        assert desk.retry_run(run)
        assert desk.store.checkpoints(StepRef(run, 0)) == {"a": "1"}
        again = desk.claim_again(run, 0)
        assert (again.attempts, again.crashes, again.claim.claim) == (0, 0, 2)
        assert desk.record(claimed, Completed("1")) is None
        assert must(desk.record(again, Completed("1"))).ended_run is WorkflowStatus.COMPLETED
        assert not desk.retry_run(run)

    def test_a_cancelled_run_goes_on_where_it_was(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [], [0], [1, 3], s2=a_map()))
        desk.complete(run, 0)
        desk.claim(run, 1)
        parts = desk.spread(run, 2, 3)
        desk.complete(run, parts[1])
        desk.cancel(run)
        desk.sent.clear()
        assert desk.retry_run(run)
        assert desk.statuses(run) == "CO QU WA QU PE QU CO QU"
        assert sorted(desk.sent_of(run)) == [1, 3, parts[0], parts[2]]
        for n in (1, 3, parts[0], parts[2], 4):
            desk.go_on(run, n)
        assert desk.ended(run) is WorkflowStatus.COMPLETED
        assert desk.step(run, 2).output == "[null,null,null]"

    def test_a_run_that_went_on_after_failures_counts_its_joins_anew(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [], [0, 1, 2], [3], on_failure="continue"))
        desk.complete(run, 0)
        desk.fail(run, 1)
        desk.fail(run, 2)
        assert desk.statuses(run) == "CO FA FA SK SK"
        assert desk.retry_run(run)
        assert desk.statuses(run) == "CO QU QU PE PE"
        desk.go_on(run, 1)
        assert desk.statuses(run) == "CO CO QU PE PE"
        desk.go_on(run, 2)
        desk.go_on(run, 3)
        desk.go_on(run, 4)
        assert desk.ended(run) is WorkflowStatus.COMPLETED

    def test_ways_that_were_not_taken_stay_so(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [0], [0, 1], s2={"whens": {0: "output"}}, s3={"whens": {0: "output"}}))
        row = desk.claim(run, 0)
        desk.record(row, Completed("0", frozenset(int(each) for each in row.row.whens or ())))
        desk.fail(run, 1)
        assert desk.statuses(run) == "CO FA SK SK"
        assert desk.retry_run(run)
        assert desk.statuses(run) == "CO QU SK PE"
        desk.go_on(run, 1)
        desk.go_on(run, 3)
        assert desk.ended(run) is WorkflowStatus.COMPLETED

    def test_a_wide_join_is_counted_anew(self, desk: Desk) -> None:
        run = desk.create(graph(*(() for _ in range(100)), range(100), on_failure="continue"))
        desk.complete(run, *range(97))
        desk.fail(run, 97)
        desk.fail(run, 98)
        desk.complete(run, 99)
        assert desk.retry_run(run)
        desk.go_on(run, 98)
        assert desk.step(run, 100).status is TaskStatus.PENDING
        desk.go_on(run, 97)
        desk.go_on(run, 100)
        assert desk.ended(run) is WorkflowStatus.COMPLETED

    def test_a_map_runs_only_its_failed_parts_and_no_more_at_once_than_it_allows(self, desk: Desk) -> None:
        run = desk.create(graph([], [0], s0=a_map(2)))
        parts = desk.spread(run, 0, 5)
        desk.complete(run, parts[0], parts[2])
        desk.fail(run, parts[1])
        assert desk.statuses(run) == "FA SK CO FA CO SK SK"
        assert desk.retry_run(run)
        assert desk.statuses(run) == "WA PE CO QU CO QU PE"
        desk.go_on(run, parts[3])
        assert desk.statuses(run) == "WA PE CO QU CO CO QU"
        desk.go_on(run, parts[1])
        desk.go_on(run, parts[4])
        desk.go_on(run, 1)
        assert desk.ended(run) is WorkflowStatus.COMPLETED

    def test_a_step_that_turned_into_a_sub_workflow_while_its_run_was_failing_does_it_again(self, desk: Desk) -> None:
        run = desk.create(graph([], []))
        claimed = desk.claim(run, 0)
        desk.fail(run, 1)
        desk.turn_of(claimed, graph([]))
        assert desk.statuses(run) == "SK FA"
        assert desk.retry_run(run)
        assert desk.statuses(run) == "QU QU"
        (part,) = desk.turn_of(desk.claim_again(run, 0), graph([]))
        desk.go_on(run, part)
        desk.go_on(run, 1)
        assert desk.ended(run) is WorkflowStatus.COMPLETED

    def test_a_sub_workflow_runs_from_where_it_failed(self, desk: Desk) -> None:
        run = desk.create(graph([], [0]))
        first, second = desk.turn(run, 0, graph([], [0], result=template.reference_to(1)))
        desk.complete(run, first, output="7")
        desk.fail(run, second)
        assert desk.retry_run(run)
        assert desk.statuses(run) == "WA PE CO QU"
        desk.record(desk.claim_again(run, second), Completed("8"))
        assert desk.step(run, 0).output == "8"
        desk.go_on(run, 1)
        assert desk.ended(run) is WorkflowStatus.COMPLETED

    def test_what_ran_in_the_place_of_a_step_runs_again(self, desk: Desk) -> None:
        run = desk.create(graph([], [0], s0={"options": WITH_FALLBACK}))
        desk.fail(run, 0)
        desk.fail(run, 2)
        assert desk.statuses(run) == "FA SK FA"
        assert desk.retry_run(run)
        assert desk.statuses(run) == "WA PE QU"
        desk.go_on(run, 2)
        desk.go_on(run, 1)
        assert desk.ended(run) is WorkflowStatus.COMPLETED

    def test_a_run_is_retried_again_and_again_and_can_be_cancelled_and_paused(self, desk: Desk) -> None:
        run = desk.create(graph([], [0]))
        desk.fail(run, 0)
        for generation in range(1, 4):
            assert desk.retry_run(run)
            assert desk.step(run, 0).generation == generation
            desk.record(desk.claim_again(run, 0), Failed(BOOM))
        assert desk.retry_run(run)
        assert desk.pause(run)
        desk.cancel(run)
        assert desk.retry_run(run)
        assert desk.statuses(run) == "QU PE"
        desk.go_on(run, 0)
        desk.go_on(run, 1)
        assert desk.ended(run) is WorkflowStatus.COMPLETED

    def test_only_what_failed_or_was_cancelled_is_retried(self, desk: Desk) -> None:
        going, done = desk.create(graph([])), desk.create(graph([]))
        desk.complete(done, 0)
        assert [desk.retry_run(each) for each in (going, done, "nowhere")] == [False, False, False]

    # --- fork ---------------------------------------------------------------------------------------------------

    def test_a_fork_keeps_what_came_before_the_step(self, desk: Desk) -> None:
        inputs = {"args": [template.reference_to(1), template.reference_to(2)]}
        shape = graph([], [0], [0], [1, 2], result=template.reference_to(3), s3=inputs)
        run = desk.create(shape, key="k", fingerprint="f")
        desk.complete(run, 0, 1, 2, 3, output="7")
        desk.sent.clear()
        new = desk.fork(run, 1)
        assert new is not None
        assert desk.statuses(new) == "CO QU CO PE"
        assert desk.sent_of(new) == [1]
        assert desk.run(new).key is None
        assert desk.store.outputs(new, [0, 1, 2]) == {0: "7", 2: "7"}
        claimed = desk.claim_again(new, 1)
        assert claimed.row.target == desk.step(run, 1).target
        desk.record(claimed, Completed("8"))
        joined = desk.claim_again(new, 3)
        assert joined.outputs == {1: "8", 2: "7"}
        desk.record(joined, Completed("9"))
        assert desk.ended(new) is WorkflowStatus.COMPLETED
        assert desk.store.result_template(new) == desk.store.result_template(run)
        assert desk.statuses(run) == "CO CO CO CO"

    def test_a_fork_runs_what_had_not_completed_elsewhere_too(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [0], [1], on_failure="continue", s0=a_map()))
        parts = desk.spread(run, 0, 2)
        desk.complete(run, *parts, output="1")
        desk.fail(run, 1)
        desk.complete(run, 2)
        new = desk.fork(run, 2)
        assert new is not None
        assert desk.statuses(new) == "CO QU QU PE"
        assert desk.store.outputs(new, [0]) == {0: "[1,1]"}
        desk.go_on(new, 1)
        desk.go_on(new, 2)
        desk.go_on(new, 3)
        assert desk.ended(new) is WorkflowStatus.COMPLETED

    def test_a_fork_from_a_map_spreads_it_anew(self, desk: Desk) -> None:
        run = desk.create(graph([], [0], [1], s1=a_map()))
        desk.complete(run, 0)
        desk.complete(run, *desk.spread(run, 1, 3))
        desk.complete(run, 2)
        new = desk.fork(run, 1)
        assert new is not None
        assert desk.statuses(new) == "CO QU PE"
        parts = desk.spread_of(desk.claim_again(new, 1), 2)
        assert parts == [3, 4]
        desk.complete(new, *parts)
        desk.go_on(new, 2)
        assert desk.step(new, 1).output == "[null,null]"
        assert desk.ended(new) is WorkflowStatus.COMPLETED

    def test_a_fork_has_the_fallback_that_was_used_before(self, desk: Desk) -> None:
        run = desk.create(graph([], [0], s0={"options": WITH_FALLBACK}))
        desk.fail(run, 0)
        desk.complete(run, 2, 1)
        assert desk.ended(run) is WorkflowStatus.COMPLETED
        new = desk.fork(run, 0)
        assert new is not None
        assert desk.statuses(new) == "QU PE"
        desk.record(desk.claim_again(new, 0), Failed(BOOM))
        assert desk.statuses(new) == "WA PE QU"
        assert desk.step(new, 2).target == desk.step(run, 2).target
        desk.go_on(new, 2)
        desk.go_on(new, 1)
        assert desk.ended(new) is WorkflowStatus.COMPLETED

    def test_a_fork_needs_a_step_that_the_run_began_with(self, desk: Desk) -> None:
        run, alone = desk.create(graph([], s0=a_map())), desk.single()
        parts = desk.spread(run, 0, 1)
        assert [desk.fork(run, parts[0]), desk.fork(run, 77), desk.fork("nowhere", 0), desk.fork(alone, 0)] == [
            None
        ] * 4

    # --- conditions and a retry ---------------------------------------------------------------------------------

    def test_a_cancelled_step_that_no_way_leads_to_any_more_is_skipped(self, desk: Desk) -> None:
        run = desk.create(graph([], [0], [1], s1={"whens": {0: "output"}}))
        before = desk.claim(run, 0)
        desk.cancel(run, 1)
        desk.record(before, Completed("false", _whens(before)))
        assert desk.ended(run) is WorkflowStatus.CANCELLED
        assert desk.statuses(run) == "CO CA SK"
        desk.sent.clear()
        assert desk.retry_run(run)
        assert desk.ended(run) is WorkflowStatus.COMPLETED
        assert desk.statuses(run) == "CO SK SK"
        assert must(desk.step(run, 2).error).type == "NotTaken"
        assert desk.sent == []
        assert desk.told(run)[-1] == "workflow.completed"

    def test_it_counts_with_those_that_run_again_and_with_what_it_is_a_part_of(self, desk: Desk) -> None:
        run = desk.create(graph([], [0]))
        parts = desk.turn(run, 0, graph([], [], [0], [1, 2], [3], s2={"whens": {0: "output"}}))
        before = desk.claim(run, parts[0])
        desk.cancel(run, parts[2])
        desk.record(before, Completed("false", _whens(before)))
        assert desk.statuses(run) == "SK SK CO SK CA SK SK"
        assert desk.retry_run(run)
        assert desk.statuses(run) == "WA PE CO QU SK PE PE"
        for n in (parts[1], parts[3], parts[4], 1):
            desk.go_on(run, n)
        assert desk.ended(run) is WorkflowStatus.COMPLETED

    def test_what_is_left_of_a_sub_workflow_may_be_what_no_way_leads_to(self, desk: Desk) -> None:
        run = desk.create(graph([], [0]))
        parts = desk.turn(run, 0, graph([], [0], s1={"whens": {0: "output"}}))
        before = desk.claim(run, parts[0])
        desk.cancel(run, parts[1])
        desk.record(before, Completed("false", _whens(before)))
        assert desk.statuses(run) == "SK SK CO CA"
        assert desk.retry_run(run)
        assert desk.statuses(run) == "CO QU CO SK"
        desk.go_on(run, 1)
        assert desk.ended(run) is WorkflowStatus.COMPLETED

    def test_a_cancelled_step_behind_ways_of_which_none_was_taken_is_skipped(self, desk: Desk) -> None:
        whens = {"whens": {0: "output", 1: "output"}}
        run = desk.create(graph([], [], [], [0, 1], s3=whens))
        befores = [desk.claim(run, n) for n in (0, 1)]
        desk.cancel(run, 3)
        for before in befores:
            desk.record(before, Completed("false", _whens(before)))
        assert desk.statuses(run) == "CO CO SK CA"
        assert desk.retry_run(run)
        assert desk.statuses(run) == "CO CO QU SK"
        desk.go_on(run, 2)
        assert desk.ended(run) is WorkflowStatus.COMPLETED

    def test_a_way_that_was_not_taken_may_be_when_the_step_before_it_runs_again(self, desk: Desk) -> None:
        run = desk.create(graph([], [0], s1={"whens": {0: "output"}}))
        before = desk.claim(run, 0)
        desk.record(before, Completed("false", _whens(before)))
        assert desk.statuses(run) == "CO SK"
        new = desk.fork(run, 0)
        assert new is not None
        assert desk.statuses(new) == "QU PE"
        desk.go_on(new, 0)
        desk.go_on(new, 1)
        assert desk.ended(new) is WorkflowStatus.COMPLETED

    def test_a_fork_from_a_step_that_no_way_leads_to_skips_it(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [0], s2={"whens": {0: "output"}}))
        before = desk.claim(run, 0)
        desk.record(before, Completed("false", _whens(before)))
        desk.complete(run, 1)
        new = desk.fork(run, 2)
        assert new is not None
        assert desk.statuses(new) == "CO CO SK"
        assert desk.ended(new) is WorkflowStatus.COMPLETED


def _whens(claimed: Claimed) -> frozenset[int]:
    """Return the joins that a step feeds under a condition."""
    return frozenset(int(each) for each in claimed.row.whens or ())
