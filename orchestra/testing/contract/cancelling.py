"""Cancel of runs and of steps."""

from functools import partial

from orchestra.engine.outcome import Completed, Failed
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.store.contract import Recorded, Refused
from orchestra.testing.contract.claiming import at_once
from orchestra.testing.contract.desk import BOOM, Desk, a_map, graph, must


class Cancelling:
    """``cancel``."""

    def test_a_cancelled_run_ends_at_once_with_everything_that_is_open(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [], [0], [], s4=a_map()))
        desk.complete(run, 0)
        running = desk.claim(run, 1)
        desk.retry(run, 2, 60.0)
        desk.spread(run, 4, 1)
        assert must(desk.cancel(run)).ended_run is WorkflowStatus.CANCELLED
        assert desk.statuses(run) == "CO CA CA CA CA CA"
        assert desk.record(running, Completed("1")) is None
        assert desk.due() is None
        assert desk.store.depth() == {}
        assert desk.store.held("w1") == []

    def test_a_cancelled_step_is_refused_to_its_message(self, desk: Desk) -> None:
        run = desk.create(graph([]))
        desk.cancel(run)
        refused = desk.try_claim(run, 0)
        assert isinstance(refused, Refused)
        assert refused.status is TaskStatus.CANCELLED

    def test_the_log_says_that_a_cancelled_step_had_started(self, desk: Desk) -> None:
        run = desk.create(graph([], []))
        desk.claim(run, 1)
        desk.cancel(run)
        assert desk.told(run)[-4:] == ["started 1", "cancelled 0", "cancelled 1", "workflow.cancelled"]

    def test_what_has_ended_cannot_be_cancelled(self, desk: Desk) -> None:
        run = desk.create(graph([], []))
        desk.complete(run, 0)
        assert desk.cancel(run, 0) is None
        desk.complete(run, 1)
        assert desk.cancel(run) is None
        assert desk.cancel(run, 1) is None
        assert desk.cancel("nowhere") is None
        assert desk.cancel(run, 77) is None
        assert desk.ended(run) is WorkflowStatus.COMPLETED

    def test_a_cancelled_step_ends_its_run_once_what_is_running_has_ended(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [0]))
        running = desk.claim(run, 1)
        assert must(desk.cancel(run, 0)).ended_run is None
        assert desk.statuses(run) == "CA RU SK"
        assert must(desk.record(running, Completed("1"))).ended_run is WorkflowStatus.CANCELLED

    def test_a_running_step_that_is_cancelled_ends_its_run_and_its_record_is_superseded(self, desk: Desk) -> None:
        run = desk.create(graph([], [0]))
        running = desk.claim(run, 0)
        assert must(desk.cancel(run, 0)).ended_run is WorkflowStatus.CANCELLED
        assert desk.record(running, Completed("1")) is None
        assert desk.told(run)[-4:] == ["started 0", "cancelled 0", "skipped 1", "workflow.cancelled"]

    def test_the_last_running_step_that_is_cancelled_ends_a_run_that_was_about_to_fail(self, desk: Desk) -> None:
        run = desk.create(graph([], []))
        desk.claim(run, 1)
        desk.fail(run, 0)
        assert must(desk.cancel(run, 1)).ended_run is WorkflowStatus.FAILED
        assert desk.statuses(run) == "FA CA"

    def test_a_run_that_was_about_to_fail_and_is_cancelled_has_failed(self, desk: Desk) -> None:
        run = desk.create(graph([], []))
        desk.claim(run, 1)
        desk.fail(run, 0)
        assert must(desk.cancel(run)).ended_run is WorkflowStatus.FAILED
        assert desk.statuses(run) == "FA CA"

    def test_a_step_of_a_single_task_is_the_task(self, desk: Desk) -> None:
        run = desk.single()
        desk.claim(run, 0)
        assert must(desk.cancel(run, 0)).ended_run is WorkflowStatus.CANCELLED
        assert desk.told(run)[-2:] == ["started alone", "cancelled alone"]

    def test_a_cancelled_part_of_a_map_ends_the_run(self, desk: Desk) -> None:
        run = desk.create(graph([], [0], s0=a_map()))
        one, other = desk.spread(run, 0, 2)
        running = desk.claim(run, other)
        desk.cancel(run, one)
        assert desk.statuses(run) == "SK SK CA RU"
        assert must(desk.record(running, Failed(BOOM))).ended_run is WorkflowStatus.CANCELLED

    def test_a_map_that_is_cancelled_waits_for_the_parts_that_are_running(self, desk: Desk) -> None:
        run = desk.create(graph([], s0=a_map()))
        one, _other = desk.spread(run, 0, 2)
        running = desk.claim(run, one)
        desk.cancel(run, 0)
        assert desk.statuses(run) == "CA RU SK"
        assert must(desk.record(running, Completed("1"))).ended_run is WorkflowStatus.CANCELLED

    def test_a_step_of_a_run_that_goes_on_ends_it_too(self, desk: Desk) -> None:
        run = desk.create(graph([], [], on_failure="continue"))
        running = desk.claim(run, 1)
        desk.cancel(run, 0)
        assert must(desk.record(running, Failed(BOOM))).ended_run is WorkflowStatus.CANCELLED

    def test_a_cancel_makes_room_in_the_window(self, desk: Desk) -> None:
        run = desk.create(graph(*(() for _ in range(100))))
        waiting = desk.create(graph([]))
        assert desk.sent_of(waiting) == []
        desk.cancel(run)
        assert desk.sent_of(waiting) == [0]

    def test_a_run_that_is_cancelled_while_its_steps_are_recorded_ends_once(self, desk: Desk) -> None:
        for _ in range(5):
            run = desk.create(graph(*(() for _ in range(5)), range(5)))
            works = [partial(desk.record, desk.claim(run, n), Completed("1")) for n in range(5)]
            works.append(partial(desk.cancel, run))
            answers = at_once(6, lambda at, works=works: works[at]())
            ends = [each.ended_run for each in answers if isinstance(each, Recorded) and each.ended_run]
            assert ends == [WorkflowStatus.CANCELLED]
            assert desk.told(run, "workflow.completed", "workflow.cancelled") == ["workflow.cancelled"]

    def test_failures_at_the_same_moment_end_a_run_once(self, desk: Desk) -> None:
        for _ in range(5):
            run = desk.create(graph(*(() for _ in range(6)), range(6), [0]))
            claims = [desk.claim(run, n) for n in range(6)]
            changes = [Failed(BOOM) if n % 2 else Completed("1") for n in range(6)]
            answers = at_once(6, lambda at, claims=claims, changes=changes: desk.record(claims[at], changes[at]))
            ends = [each.ended_run for each in answers if isinstance(each, Recorded) and each.ended_run]
            assert ends == [WorkflowStatus.FAILED]
            assert not [each for each in desk.store.steps(run) if not each.status.ended]
