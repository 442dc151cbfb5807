"""Pause, resume, deadlines."""

from orchestra.engine.outcome import Completed, Failed
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.store.values import Refused, RunFilter
from orchestra.testing.contract.desk import BOOM, WITH_FALLBACK, Desk, a_map, graph, must


class Steering:
    """``pause``, ``resume``, and what ``due`` does about runs."""

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
