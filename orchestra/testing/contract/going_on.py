"""A record claims what its worker goes on with."""

from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest

from orchestra.engine.outcome import Completed, Failed
from orchestra.model import template
from orchestra.model.graph import StepOptions
from orchestra.model.ids import MessageRef, StepRef
from orchestra.model.status import TaskStatus
from orchestra.store.contract import Claimed, Dispatch, Onward, Recorded, ToRecord
from orchestra.testing.contract.claiming import at_once
from orchestra.testing.contract.desk import BOOM, Desk, graph, must

GO_ON = Onward("w1", "q", 5, frozenset({"m:agent1", "m:agent2"}))


def complete(desk: Desk, claimed: Claimed, onward: Onward = GO_ON) -> Recorded:
    """Record a completion that may go on."""
    return must(desk.store.record(claimed.claim, Completed('{"v": 7}'), desk.clock(), onward))


def gone_on(recorded: Recorded) -> tuple[Dispatch, Claimed]:
    """Return the one that was handed on and claimed with a record."""
    (only,) = recorded.onward
    return only


class GoingOn:
    """``record`` with ``onward``."""

    def test_what_a_record_releases_is_claimed_with_it(self, desk: Desk) -> None:
        given = {"args": [template.reference_to(0)]}
        run = desk.create(graph([], [0], s1=given))
        twin = desk.create(graph([], [0], s1=given))
        recorded = complete(desk, desk.claim(run, 0))
        dispatch, claimed = gone_on(recorded)
        assert (recorded.dispatches, dispatch.ref, dispatch.parent) == (
            [],
            MessageRef(StepRef(run, 1), 0),
            f"{run}.0.0",
        )
        step = desk.step(run, 1)
        assert (step.status, step.worker, step.claims, step.started_at) == ("RUNNING", "w1", 1, desk.clock())
        assert [each for each in desk.store.held("w1") if each.ref.step.run_id == run] == [claimed.claim]
        desk.record(desk.claim(twin, 0), Completed('{"v": 7}'))
        alike = desk.claim(twin, 1)
        assert replace(claimed, claim=alike.claim) == alike

    def test_it_is_claimed_as_by_anybody(self, desk: Desk) -> None:
        run = desk.create(graph([], [0]))
        _dispatch, claimed = gone_on(complete(desk, desk.claim(run, 0)))
        assert not isinstance(desk.try_claim(run, 1, "w2"), Claimed)
        assert must(desk.record(claimed, Completed("1"))).ended_run == "COMPLETED"
        told = [(event.type, event.task_id) for event in desk.store.events(0, run_id=run)[0]]
        assert told[-5:-1] == [
            ("task.completed", f"{run}.0"),
            ("task.queued", f"{run}.1"),
            ("task.started", f"{run}.1"),
            ("task.completed", f"{run}.1"),
        ]

    def test_one_is_claimed_and_the_others_are_handed_on(self, desk: Desk) -> None:
        run = desk.create(graph([], [0], [0], [0]))
        recorded = complete(desk, desk.claim(run, 0))
        dispatch, _claimed = gone_on(recorded)
        assert dispatch.target in GO_ON.targets
        assert {dispatch.ref.step.n, *(each.ref.step.n for each in recorded.dispatches)} == {1, 2, 3}
        assert desk.store.counts(run) == {TaskStatus.COMPLETED: 1, TaskStatus.RUNNING: 1, TaskStatus.QUEUED: 2}

    @pytest.mark.parametrize(
        "options",
        [{"timeout_s": 9.0}, {"queue": "another"}, {"priority": 6}, {"agent": "never_called"}],
        ids=lambda each: next(iter(each)),
    )
    def test_what_does_not_fit_is_handed_on(self, desk: Desk, options: dict[str, Any]) -> None:
        fields = options if "agent" in options else {"options": StepOptions(**options)}
        run = desk.create(graph([], [0], s1=fields))
        recorded = complete(desk, desk.claim(run, 0))
        assert not recorded.onward
        assert [each.ref.step.n for each in recorded.dispatches] == [1]
        assert desk.step(run, 1).status == "QUEUED"

    def test_what_a_record_makes_room_for_fits_if_it_is_of_the_same_run(self, desk: Desk) -> None:
        steps: dict[str, Any] = {f"s{n}": {"agent": "agent1"} for n in range(80)}
        wide = desk.create(graph(*((),) * 80, range(80), **steps))
        recorded = complete(desk, desk.claim(wide, 0))
        assert gone_on(recorded)[0].ref.step.run_id == wide
        other = desk.create(graph([], s0={"agent": "agent1"}))
        assert desk.step(other, 0).status == "QUEUED"

    def test_nothing_goes_on_in_a_paused_run_or_after_a_failure(self, desk: Desk) -> None:
        run = desk.create(graph([], [0]))
        claimed = desk.claim(run, 0)
        desk.pause(run)
        assert not complete(desk, claimed).onward
        run = desk.create(graph([], [0]))
        failed = desk.store.record(desk.claim(run, 0).claim, Failed(BOOM), desk.clock(), GO_ON)
        assert not must(failed).onward

    def test_a_pause_at_the_same_moment_stops_the_next_step_or_comes_after_its_claim(self, desk: Desk) -> None:
        for _ in range(20):
            run = desk.create(graph([], [0]))
            claimed = desk.claim(run, 0)
            both = [partial(complete, desk, claimed), partial(desk.pause, run)]
            recorded, paused = at_once(2, lambda at, both=both: both[at]())
            assert isinstance(recorded, Recorded), recorded
            assert paused is True
            assert desk.step(run, 0).status == "COMPLETED"
            if not recorded.onward:
                assert (desk.step(run, 1).status, recorded.dispatches) == ("QUEUED", [])
                assert not isinstance(desk.try_claim(run, 1), Claimed)
                assert desk.store.resume(run, desk.clock())
            last = recorded.onward[0][1] if recorded.onward else desk.claim(run, 1)
            assert must(desk.record(last, Completed("1"))).ended_run == "COMPLETED"

    def test_a_superseded_claim_goes_on_with_nothing(self, desk: Desk) -> None:
        run = desk.create(graph([], [0]))
        claimed = desk.claim(run, 0)
        desk.cancel(run)
        assert desk.store.record(claimed.claim, Completed("1"), desk.clock(), GO_ON) is None

    def test_as_many_are_claimed_as_it_may_have_of_all_records_together(self, desk: Desk) -> None:
        runs = [desk.create(graph([], [0], [0])) for _ in range(3)]
        ends = [ToRecord(desk.claim(run, 0).claim, Completed("1"), desk.clock()) for run in runs]
        answers = desk.store.together(ends, replace(GO_ON, targets=GO_ON.targets | {"m:agent0"}, most=3))
        recorded = [each for each in answers if isinstance(each, Recorded)]
        assert [(len(each.onward), len(each.dispatches)) for each in recorded] == [(2, 0), (1, 1), (0, 2)]
        for run, each in zip(runs, recorded, strict=True):
            held = {held.ref for held in desk.store.held("w1") if held.ref.step.run_id == run}
            assert held == {claimed.claim.ref for _dispatch, claimed in each.onward}
            assert [dispatch.ref for dispatch, _claimed in each.onward] == [its.claim.ref for _, its in each.onward]

    def test_what_the_last_part_of_a_join_releases_is_claimed_with_its_records(self, desk: Desk) -> None:
        given = {"agent": "agent1", "args": [template.reference_to(0)]}
        run = desk.create(graph([], [], [0, 1], [0, 1], s2=given, s3=given))
        ends = [ToRecord(desk.claim(run, n).claim, Completed(f"{n}"), desk.clock()) for n in (0, 1)]
        first, last = desk.store.together(ends, replace(GO_ON, most=8))
        assert [len(cast(Recorded, each).onward) for each in (first, last)] == [0, 2]
        assert [its.outputs for _, its in cast(Recorded, last).onward] == [{0: "0"}] * 2
