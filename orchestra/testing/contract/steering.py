"""Pause, resume, retry, fork, deadlines."""

from orchestra.engine.outcome import Completed, Failed
from orchestra.model import template
from orchestra.model.ids import StepRef
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.store.values import Refused, RunFilter
from orchestra.testing.contract.desk import BOOM, WITH_FALLBACK, Desk, a_map, graph, must


class Steering:
    """``pause``, ``resume``, ``retry``, ``fork``, and what ``due`` does about runs."""

    # --- pause --------------------------------------------------------------------------------------------------

    def test_a_paused_run_begins_nothing_and_says_so(self, desk: Desk) -> None:
        run = desk.create(graph([], []))
        assert desk.pause(run)
        assert desk.ended(run) is WorkflowStatus.PAUSED
        assert desk.statuses(run) == "QU QU"
        assert desk.store.depth() == {}
        refused = desk.try_claim(run, 0)
        assert isinstance(refused, Refused)
        assert refused.status is TaskStatus.QUEUED
        assert not desk.store.resend(["q"], desk.clock.advance(100), 10, desk.clock())
        assert not desk.store.refill(["q"], desk.clock())
        assert [each.id for each in desk.store.runs(RunFilter(status=WorkflowStatus.PAUSED))] == [run]
        assert not desk.pause(run)

    def test_a_resumed_run_is_sent_again_and_goes_to_its_end(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [0, 1]))
        desk.pause(run)
        desk.sent.clear()
        assert desk.resume(run)
        assert desk.sent_of(run) == [0, 1]
        assert not desk.resume(run)
        desk.complete(run, 0, 1, 2)
        assert desk.ended(run) is WorkflowStatus.COMPLETED
        told = [each for each in desk.told(run) if each.startswith("workflow.")]
        assert told == ["workflow.started", "workflow.paused", "workflow.resumed", "workflow.completed"]

    def test_what_is_running_goes_on_and_what_it_releases_waits(self, desk: Desk) -> None:
        run = desk.create(graph([], [0], [0], [1, 2]))
        running = desk.claim(run, 0)
        desk.pause(run)
        desk.sent.clear()
        assert desk.record(running, Completed("1")) is not None
        assert desk.statuses(run) == "CO QU QU PE"
        assert desk.sent == []
        assert isinstance(desk.try_claim(run, 1), Refused)
        desk.resume(run)
        assert desk.sent_of(run) == [1, 2]

    def test_the_next_link_of_a_chain_waits_as_well(self, desk: Desk) -> None:
        run = desk.create(graph([], [0]))
        running = desk.claim(run, 0)
        desk.pause(run)
        desk.sent.clear()
        desk.record(running, Completed("1"))
        assert (desk.statuses(run), desk.sent) == ("CO QU", [])
        desk.resume(run)
        assert desk.sent_of(run) == [1]
        desk.complete(run, 1)

    def test_what_a_running_step_turns_into_waits(self, desk: Desk) -> None:
        run = desk.create(graph([], s0=a_map(2)))
        claimed = desk.claim(run, 0)
        desk.pause(run)
        parts = desk.spread_of(claimed, 3)
        assert desk.sent_of(run) == [0]
        assert isinstance(desk.try_claim(run, parts[0]), Refused)
        desk.resume(run)
        assert desk.sent_of(run)[1:] == parts[:2]
        desk.complete(run, *parts)
        assert desk.ended(run) is WorkflowStatus.COMPLETED

    def test_the_fallback_of_a_paused_run_waits(self, desk: Desk) -> None:
        run = desk.create(graph([], s0={"options": WITH_FALLBACK}))
        claimed = desk.claim(run, 0)
        desk.pause(run)
        desk.record(claimed, Failed(BOOM))
        assert desk.statuses(run) == "WA QU"
        assert isinstance(desk.try_claim(run, 1), Refused)
        desk.resume(run)
        desk.complete(run, 1)
        assert desk.ended(run) is WorkflowStatus.COMPLETED

    def test_a_crash_and_a_retry_that_is_due_wait_while_their_run_is_paused(self, desk: Desk) -> None:
        run = desk.create(graph([], []))
        crashing = desk.claim(run, 0)
        desk.retry(run, 1, 5.0)
        desk.pause(run)
        desk.sent.clear()
        desk.vanish(crashing)
        desk.clock.advance(10)
        desk.due()
        assert desk.statuses(run) == "QU QU"
        assert desk.sent == []
        desk.resume(run)
        assert sorted(desk.sent_of(run)) == [0, 1]
        desk.complete(run, 0, 1)
        assert desk.ended(run) is WorkflowStatus.COMPLETED

    def test_a_paused_run_makes_room_for_others(self, desk: Desk) -> None:
        run = desk.create(graph(*(() for _ in range(100))))
        waiting = desk.create(graph([]))
        assert desk.sent_of(waiting) == []
        desk.pause(run)
        assert desk.sent_of(waiting) == [0]
        desk.complete(waiting, 0)
        desk.sent.clear()
        desk.resume(run)
        assert len(desk.sent_of(run)) == 64

    def test_a_paused_run_is_cancelled_like_any_other(self, desk: Desk) -> None:
        run = desk.create(graph([], [0]))
        desk.pause(run)
        assert must(desk.cancel(run)).ended_run is WorkflowStatus.CANCELLED
        assert not desk.resume(run)
        assert desk.statuses(run) == "CA CA"

    def test_a_run_that_fails_while_it_is_paused_has_failed(self, desk: Desk) -> None:
        run = desk.create(graph([], []))
        running = desk.claim(run, 0)
        desk.pause(run)
        assert must(desk.record(running, Failed(BOOM))).ended_run is WorkflowStatus.FAILED
        assert desk.statuses(run) == "FA SK"

    def test_a_run_whose_last_step_was_running_completes_although_it_is_paused(self, desk: Desk) -> None:
        run = desk.single()
        running = desk.claim(run, 0)
        desk.pause(run)
        assert must(desk.record(running, Completed("1"))).ended_run is WorkflowStatus.COMPLETED

    def test_only_a_run_that_goes_on_is_paused(self, desk: Desk) -> None:
        ended, ending = desk.create(graph([])), desk.create(graph([], []))
        desk.complete(ended, 0)
        running = desk.claim(ending, 1)
        desk.fail(ending, 0)
        assert [desk.pause(each) for each in (ended, ending, "nowhere")] == [False, False, False]
        assert [desk.resume(each) for each in (ended, ending, "nowhere")] == [False, False, False]
        desk.record(running, Completed("1"))

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

    # --- time ---------------------------------------------------------------------------------------------------

    def test_a_run_that_has_not_ended_by_its_deadline_has_failed(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [1]), deadline=desk.clock() + 10)
        desk.complete(run, 0)
        running = desk.claim(run, 1)
        assert desk.due() == desk.clock() + 10
        assert desk.run(run).deadline == desk.clock() + 10
        desk.clock.advance(10)
        assert desk.due() is None
        assert desk.statuses(run) == "CO CA CA"
        found = desk.run(run)
        assert (found.status, must(found.error).type) == (WorkflowStatus.FAILED, "DeadlineExceeded")
        assert must(desk.step(run, 2).error).type == "DeadlineExceeded"
        assert desk.record(running, Completed("1")) is None
        assert desk.retry_run(run)
        assert desk.due() is None
        assert desk.statuses(run) == "CO QU PE"

    def test_a_run_that_ended_in_time_is_left_alone(self, desk: Desk) -> None:
        run = desk.create(graph([]), deadline=desk.clock() + 10, expires_at=desk.clock() + 5)
        desk.complete(run, 0)
        desk.clock.advance(20)
        assert desk.due() is None
        assert desk.ended(run) is WorkflowStatus.COMPLETED

    def test_a_run_of_which_nothing_began_in_time_expires(self, desk: Desk) -> None:
        late, begun = (desk.create(graph([], [0]), expires_at=desk.clock() + 5) for _ in range(2))
        desk.complete(begun, 0)
        desk.clock.advance(6)
        assert desk.due() is None
        assert desk.statuses(late) == "CA CA"
        assert must(desk.run(late).error).type == "Expired"
        assert desk.ended(late) is WorkflowStatus.FAILED
        assert desk.statuses(begun) == "CO QU"
        assert desk.due() is None
        assert isinstance(desk.try_claim(late, 0), Refused)
        desk.complete(begun, 1)
        assert desk.ended(begun) is WorkflowStatus.COMPLETED
