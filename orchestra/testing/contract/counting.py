"""Joins: a step starts when its own predecessors have ended, once."""

from orchestra.engine.outcome import Completed
from orchestra.model.status import WorkflowStatus
from orchestra.store.contract import Recorded, Refused
from orchestra.testing.contract.claiming import at_once
from orchestra.testing.contract.desk import Desk, graph


class Counting:
    """Joins, conditions, and the end of a run that completes."""

    def test_a_step_starts_when_all_its_predecessors_have_completed(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [0, 1]))
        desk.complete(run, 1)
        assert desk.statuses(run) == "QU CO PE"
        recorded = desk.complete(run, 0)
        assert desk.statuses(run) == "CO CO QU"
        assert [each.ref.step.n for each in recorded.dispatches] == [2]
        assert recorded.dispatches[0].parent == f"{run}.0.0"

    def test_overlapping_joins_are_counted_each_for_itself(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [], [0, 1], [1, 2], [0, 1, 2], [1]))
        desk.complete(run, 1)
        assert desk.statuses(run) == "QU CO QU PE PE PE QU"
        desk.complete(run, 2)
        assert desk.statuses(run) == "QU CO CO PE QU PE QU"
        desk.complete(run, 0)
        assert desk.statuses(run) == "CO CO CO QU QU QU QU"

    def test_there_is_no_barrier_between_layers(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [0], [1]))
        desk.complete(run, 0)
        desk.complete(run, 2)
        assert desk.statuses(run) == "CO QU CO PE"

    def test_a_join_of_a_thousand_parts_releases_once(self, desk: Desk) -> None:
        run = desk.create(graph(*(() for _ in range(1000)), range(1000)))
        assert desk.work() == 1001
        assert desk.ended(run) is WorkflowStatus.COMPLETED
        assert desk.told(run, "task.queued")[1000:] == ["queued 1000"]

    def test_a_fully_connected_layer_waits_for_all_of_the_one_before(self, desk: Desk) -> None:
        run = desk.create(
            graph(*(() for _ in range(30)), *(range(30) for _ in range(30)), *(range(30, 60) for _ in "ab"))
        )
        desk.complete(run, *range(29))
        assert desk.store.counts(run)[desk.step(run, 59).status] == 32
        desk.complete(run, 29, *range(30, 60))
        assert desk.complete(run, 60, 61).ended_run is WorkflowStatus.COMPLETED

    def test_a_run_ends_when_all_its_last_steps_have_ended(self, desk: Desk) -> None:
        run = desk.create(graph([], [0], [0], [2]))
        assert desk.complete(run, 0, 1).ended_run is None
        assert desk.complete(run, 2).ended_run is None
        assert desk.complete(run, 3).ended_run is WorkflowStatus.COMPLETED
        record = desk.store.run(run)
        assert record is not None
        assert (record.status, record.completed_at, record.error) == (WorkflowStatus.COMPLETED, desk.clock(), None)

    def test_parts_of_a_join_that_are_recorded_at_the_same_moment_release_it_once(self, desk: Desk) -> None:
        run = desk.create(graph(*(() for _ in range(12)), range(12), range(6)))
        claims = [desk.claim(run, n) for n in range(12)]
        answers = at_once(12, lambda at: desk.record(claims[at], Completed("1")))
        released = [d.ref.step.n for each in answers if isinstance(each, Recorded) for d in each.dispatches]
        assert sorted(released) == [12, 13]
        assert desk.statuses(run) == " ".join(["CO"] * 12 + ["QU"] * 2)
        assert sorted(desk.told(run, "task.queued")[12:]) == ["queued 12", "queued 13"]

    def test_last_steps_that_are_recorded_at_the_same_moment_end_the_run_once(self, desk: Desk) -> None:
        run = desk.create(graph(*(() for _ in range(12))))
        claims = [desk.claim(run, n) for n in range(12)]
        answers = at_once(12, lambda at: desk.record(claims[at], Completed("1")))
        ends = [each.ended_run for each in answers if isinstance(each, Recorded) and each.ended_run]
        assert ends == [WorkflowStatus.COMPLETED]
        assert desk.told(run, "workflow.completed") == ["workflow.completed"]

    # --- conditions ---------------------------------------------------------------------------------------------

    def test_a_way_that_is_not_taken_skips_what_it_leads_to(self, desk: Desk) -> None:
        run = desk.create(graph([], [0], [0], [1], s1={"whens": {0: "output"}}))
        recorded = desk.complete(run, 0, dead=[0])
        assert desk.statuses(run) == "CO SK QU SK"
        assert [each.ref.step.n for each in recorded.dispatches] == [2]
        error = desk.step(run, 1).error
        assert error is not None
        assert error.type == "NotTaken"
        assert desk.complete(run, 2).ended_run is WorkflowStatus.COMPLETED

    def test_a_join_runs_on_the_ways_that_were_taken(self, desk: Desk) -> None:
        join = {"whens": {0: "output"}, "from_predecessors": True}
        run = desk.create(graph([], [], [], [0, 1, 2], s3=join))
        desk.complete(run, 0, dead=[0], output="0")
        desk.complete(run, 1, 2, output="1")
        claimed = desk.claim(run, 3)
        assert dict(claimed.predecessors) == {1: "s1", 2: "s2"}
        assert dict(claimed.outputs) == {1: "1", 2: "1"}

    def test_a_join_that_no_way_leads_into_is_skipped_and_so_on_to_the_end_of_the_run(self, desk: Desk) -> None:
        both = {"whens": {0: "output", 1: "output"}}
        run = desk.create(graph([], [], [0, 1], [2], [2], [3, 4], s2=both))
        desk.complete(run, 0, dead=[0])
        assert desk.statuses(run) == "CO QU PE PE PE PE"
        assert desk.complete(run, 1, dead=[0]).ended_run is WorkflowStatus.COMPLETED
        assert desk.statuses(run) == "CO CO SK SK SK SK"

    def test_a_run_of_which_every_way_is_dead_has_completed(self, desk: Desk) -> None:
        run = desk.create(graph([], [0], s1={"whens": {0: "output"}}))
        assert desk.complete(run, 0, dead=[0]).ended_run is WorkflowStatus.COMPLETED

    # --- any ----------------------------------------------------------------------------------------------------

    def test_a_join_of_any_runs_on_the_first_way_and_only_once(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [0, 1], s2={"any": True}))
        desk.complete(run, 1)
        assert desk.statuses(run) == "QU CO QU"
        desk.complete(run, 2)
        assert desk.complete(run, 0).dispatches == []
        assert desk.statuses(run) == "CO CO CO"
        assert desk.told(run, "task.queued") == ["queued 0", "queued 1", "queued 2"]

    def test_a_run_does_not_end_before_those_that_any_way_overtook(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [0, 1], s2={"any": True}))
        desk.complete(run, 1)
        assert desk.complete(run, 2).ended_run is None
        assert desk.ended(run) is WorkflowStatus.RUNNING
        assert desk.complete(run, 0).ended_run is WorkflowStatus.COMPLETED

    def test_one_that_any_way_overtook_and_that_fails_ends_its_run_once(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [0, 1], s2={"any": True}))
        desk.complete(run, 1, 2)
        assert desk.fail(run, 0).ended_run is WorkflowStatus.FAILED
        assert desk.told(run, "workflow.completed", "workflow.failed") == ["workflow.failed"]

    def test_a_join_of_any_whose_ways_are_all_dead_is_skipped(self, desk: Desk) -> None:
        whens = {0: "output", 1: "output"}
        run = desk.create(graph([], [], [0, 1], s2={"any": True, "whens": whens}))
        desk.complete(run, 0, dead=[0])
        assert desk.statuses(run) == "CO QU PE"
        assert desk.complete(run, 1, dead=[0]).ended_run is WorkflowStatus.COMPLETED
        assert desk.statuses(run) == "CO CO SK"

    def test_many_ways_that_are_taken_at_the_same_moment_release_a_join_of_any_once(self, desk: Desk) -> None:
        run = desk.create(graph(*(() for _ in range(8)), range(8), s8={"any": True}))
        claims = [desk.claim(run, n) for n in range(8)]
        at_once(8, lambda at: desk.record(claims[at], Completed("1")))
        assert desk.told(run, "task.queued")[8:] == ["queued 8"]
        assert not isinstance(desk.try_claim(run, 8), Refused)
