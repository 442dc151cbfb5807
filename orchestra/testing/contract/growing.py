"""Steps that turn into others: maps, sub-workflows, loops."""

from orchestra.engine.outcome import Completed, Expanded
from orchestra.engine.rows import Expansion
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.testing.contract.claiming import at_once
from orchestra.testing.contract.desk import Desk, a_map, graph, must

DEEP = 400
"""Sub-workflows inside each other: more than a recursive store could gather."""


class Growing:
    """``Expanded``."""

    def test_a_map_waits_for_its_parts_and_gives_the_list_of_their_outputs(self, desk: Desk) -> None:
        run = desk.create(graph([], [0], s0=a_map()))
        parts = desk.spread(run, 0, 3)
        assert desk.statuses(run) == "WA PE QU QU QU"
        for n in reversed(parts):
            desk.complete(run, n, output=f'"{n}"')
        step = desk.step(run, 0)
        assert (step.status, step.output) == ("COMPLETED", '["2","3","4"]')
        assert desk.statuses(run) == "CO QU CO CO CO"
        assert [desk.step(run, n).parent for n in parts] == [0, 0, 0]
        assert [desk.step(run, n).name for n in parts] == ["s0[0]", "s0[1]", "s0[2]"]

    def test_an_empty_map_completes_at_once(self, desk: Desk) -> None:
        run = desk.create(graph([], [0], s0=a_map()))
        recorded = desk.do(run, 0, Expanded(Expansion([])))
        assert [each.ref.step.n for each in recorded.dispatches] == [1]
        assert (desk.step(run, 0).status, desk.step(run, 0).output) == ("COMPLETED", "[]")

    def test_an_empty_map_can_end_its_run(self, desk: Desk) -> None:
        run = desk.create(graph([], s0=a_map()))
        assert desk.do(run, 0, Expanded(Expansion([]))).ended_run is WorkflowStatus.COMPLETED

    def test_max_parallel_bounds_how_many_parts_are_ready_or_running(self, desk: Desk) -> None:
        run = desk.create(graph([], s0=a_map(2)))
        parts = desk.spread(run, 0, 5)
        assert desk.statuses(run) == "WA QU QU PE PE PE"
        for done, n in enumerate([parts[1], parts[0], *parts[2:]], start=1):
            desk.complete(run, n)
            assert desk.store.counts(run).get(TaskStatus.QUEUED, 0) == min(2, 5 - done)
        assert desk.ended(run) is WorkflowStatus.COMPLETED

    def test_a_part_that_is_tried_again_keeps_its_place(self, desk: Desk) -> None:
        run = desk.create(graph([], s0=a_map(1)))
        first, second = desk.spread(run, 0, 2)
        desk.retry(run, first, 1.0)
        assert desk.statuses(run) == "WA RE PE"
        desk.clock.advance(1)
        desk.due()
        desk.complete(run, first)
        desk.vanish(desk.claim(run, second))
        assert desk.complete(run, second).ended_run is WorkflowStatus.COMPLETED

    def test_parts_that_end_at_the_same_moment_end_their_map_once(self, desk: Desk) -> None:
        run = desk.create(graph([], [0], s0=a_map()))
        parts = desk.spread(run, 0, 10)
        claims = [desk.claim(run, n) for n in parts]
        at_once(10, lambda at: desk.record(claims[at], Completed(str(at))))
        assert desk.step(run, 0).output == "[0,1,2,3,4,5,6,7,8,9]"
        assert desk.told(run, "task.completed").count("completed 0") == 1
        assert desk.told(run, "task.queued")[-1] == "queued 1"

    def test_a_map_of_thousands_is_cheap_enough_to_finish(self, desk: Desk) -> None:
        run = desk.create(graph([], s0=a_map()))
        desk.spread(run, 0, 1000)
        assert desk.work() == 1000
        assert desk.ended(run) is WorkflowStatus.COMPLETED

    def test_a_step_that_turns_into_a_workflow_takes_the_output_of_its_result(self, desk: Desk) -> None:
        run = desk.create(graph([], [0]))
        first, second, third = desk.turn(run, 0, graph([], [0], [1]))
        assert desk.statuses(run) == "WA PE QU PE PE"
        desk.complete(run, first, second, output="1")
        desk.complete(run, third, output='"last"')
        assert desk.step(run, 0).output == '"last"'
        assert desk.statuses(run) == "CO QU CO CO CO"

    def test_a_workflow_with_several_last_steps_is_gathered_by_one_more(self, desk: Desk) -> None:
        run = desk.create(graph([]))
        one, other, gather = desk.turn(run, 0, graph([], []))
        desk.complete(run, one, other)
        claimed = desk.claim(run, gather)
        assert set(claimed.outputs) == {one, other}
        assert must(desk.record(claimed, Completed('{"s0": 1}'))).ended_run is WorkflowStatus.COMPLETED
        assert desk.step(run, 0).output == '{"s0": 1}'

    def test_a_workflow_waits_for_what_its_result_does_not_depend_on(self, desk: Desk) -> None:
        run = desk.create(graph([]))
        result, aside = desk.turn(run, 0, graph([], [], result={"$ref": 0}))
        desk.complete(run, result, output="7")
        assert desk.step(run, 0).status == "WAITING"
        assert desk.complete(run, aside, output="8").ended_run is WorkflowStatus.COMPLETED
        assert desk.step(run, 0).output == "7"

    def test_a_part_of_a_map_may_be_a_map_and_a_workflow(self, desk: Desk) -> None:
        run = desk.create(graph([], s0=a_map(1)))
        one, other = desk.spread(run, 0, 2)
        (inner,) = desk.turn(run, one, graph([], s0=a_map()))
        for part in desk.spread(run, inner, 2):
            assert desk.step(run, other).status == "PENDING"
            desk.complete(run, part, output="3")
        assert desk.step(run, one).output == "[3,3]"
        desk.complete(run, other, output="4")
        assert desk.step(run, 0).output == "[[3,3],4]"

    def test_a_workflow_whose_result_was_not_taken_gives_null(self, desk: Desk) -> None:
        run = desk.create(graph([], [0]))
        first, second = desk.turn(run, 0, graph([], [0], s1={"whens": {0: "output"}}))
        desk.complete(run, first, dead=[1])
        assert desk.step(run, second).status == "SKIPPED"
        assert (desk.step(run, 0).status, desk.step(run, 0).output) == ("COMPLETED", "null")
        assert desk.statuses(run) == "CO QU CO SK"

    def test_a_loop_of_hundreds_of_rounds_gathers_to_its_end(self, desk: Desk) -> None:
        run = desk.create(graph([]))
        n = 0
        for _ in range(DEEP):
            (n,) = desk.turn(run, n, graph([]))
        assert desk.complete(run, n, output="9").ended_run is WorkflowStatus.COMPLETED
        assert {step.status for step in desk.store.steps(run)} == {TaskStatus.COMPLETED}
        assert desk.step(run, 0).output == "9"

    def test_a_condition_sees_the_output_of_what_a_step_turned_into(self, desk: Desk) -> None:
        run = desk.create(graph([], [0], [0], s1={"whens": {0: "output == 1"}}))
        first, gather = desk.turn(run, 0, graph([]))
        desk.complete(run, first, output="2")
        claimed = desk.claim(run, gather)
        guarded = int(next(iter(claimed.row.whens or {})))
        desk.record(claimed, Completed("2", frozenset({guarded})))
        assert desk.statuses(run) == "CO SK QU CO CO"

    def test_a_single_task_may_grow_and_stays_a_single_task(self, desk: Desk) -> None:
        run = desk.single()
        (part,) = desk.turn(run, 0, graph([]))
        assert desk.told(run, "task.submitted") == ["submitted alone", f"submitted {part}"]
        assert desk.complete(run, part).ended_run is WorkflowStatus.COMPLETED
        assert desk.told(run)[-2:] == [f"completed {part}", "completed alone"]

    def test_a_run_takes_no_notice_of_numbers_that_were_set_aside_in_vain(self, desk: Desk) -> None:
        run = desk.create(graph([], s0=a_map()))
        desk.store.reserve(run, 5, 1)
        parts = desk.spread(run, 0, 2)
        assert parts == [6, 7]
        assert desk.complete(run, *parts).ended_run is WorkflowStatus.COMPLETED
