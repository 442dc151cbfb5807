"""Claims and records that are made together: as if they were made one after the other, and all or none."""

from typing import Any, cast

import pytest

from orchestra.engine.outcome import Completed, Failed
from orchestra.model.ids import MessageRef, StepRef
from orchestra.model.status import WorkflowStatus
from orchestra.store.contract import Claimed, Recorded, Refused, ToClaim, ToRecord
from orchestra.testing.contract.claiming import at_once
from orchestra.testing.contract.desk import BOOM, Desk, graph


def to_claim(desk: Desk, run_id: str, n: int, worker: str = "w1") -> ToClaim:
    """Return what a message asks for."""
    return ToClaim(MessageRef(StepRef(run_id, n), 0), worker, desk.clock())


def to_complete(desk: Desk, claimed: Claimed, output: str = "null") -> ToRecord:
    """Return what a body comes to."""
    return ToRecord(claimed.claim, Completed(output), desk.clock())


class Grouping:
    """``together``."""

    def test_each_of_a_group_has_its_own_answer(self, desk: Desk) -> None:
        one, other = desk.create(graph([], [], [])), desk.create(graph([], [0]))
        before, late = desk.claim(one, 0), desk.claim(other, 0)
        desk.record(late, Completed("1"))
        wanted = [
            to_claim(desk, one, 1),
            to_complete(desk, before, "7"),
            to_claim(desk, one, 1, "w2"),
            to_complete(desk, late, "2"),
            to_claim(desk, one, 99),
        ]
        claimed, recorded, taken, superseded, unknown = desk.store.together(wanted)
        assert isinstance(claimed, Claimed)
        assert (claimed.name, claimed.claim.claim) == ("s1", 1)
        assert isinstance(recorded, Recorded)
        assert isinstance(taken, Refused)
        assert superseded is None
        assert unknown == Refused(None, "no such step")
        assert desk.statuses(one) == "CO RU QU"
        assert (desk.step(one, 0).output, desk.step(other, 0).output) == ("7", "1")
        assert desk.store.held("w1") == [claimed.claim]

    def test_parts_of_a_join_that_are_recorded_together_release_it_once(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [], [0, 1, 2]))
        parts = [desk.claim(run, n) for n in range(3)]
        answers = [cast(Recorded, each) for each in desk.store.together([to_complete(desk, part) for part in parts])]
        assert [[each.ref.step.n for each in answer.dispatches] for answer in answers] == [[], [], [3]]
        assert desk.statuses(run) == "CO CO CO QU"
        assert desk.complete(run, 3).ended_run is WorkflowStatus.COMPLETED

    def test_what_is_recorded_is_seen_by_a_claim_behind_it(self, desk: Desk) -> None:
        run = desk.create(graph([], [0]))
        _recorded, claimed = desk.store.together([to_complete(desk, desk.claim(run, 0), "7"), to_claim(desk, run, 1)])
        assert isinstance(claimed, Claimed)
        assert desk.statuses(run) == "CO RU"

    def test_a_failure_in_a_group_ends_its_run_and_no_other(self, desk: Desk) -> None:
        one, other = desk.create(graph([], [], [])), desk.create(graph([]))
        held = [desk.claim(one, 0), desk.claim(one, 1), desk.claim(other, 0)]
        wanted = [to_complete(desk, held[2]), ToRecord(held[0].claim, Failed(BOOM), desk.clock())]
        last = desk.store.together([*wanted, to_complete(desk, held[1])])[2]
        assert isinstance(last, Recorded)
        assert last.ended_run is WorkflowStatus.FAILED
        assert desk.statuses(one) == "FA CO SK"
        assert desk.ended(other) is WorkflowStatus.COMPLETED

    def test_an_error_of_one_undoes_all(self, desk: Desk) -> None:
        run = desk.create(graph([], []))
        held = desk.claim(run, 0)
        impossible = ToRecord(held.claim, cast(Any, "no change"), desk.clock())
        with pytest.raises(AssertionError):
            desk.store.together([to_claim(desk, run, 1), impossible])
        assert desk.statuses(run) == "RU QU"
        assert desk.record(held, Completed("null")) is not None

    def test_groups_of_several_threads_record_each_step_of_shared_runs_once(self, desk: Desk) -> None:
        runs = [desk.create(graph(*(() for _ in range(8)), range(8))) for _ in range(3)]

        def work(worker: int) -> int:
            numbers = range(worker, 8, 4)
            wanted = [to_claim(desk, run, n) for n in numbers for run in runs[worker % 3 :] + runs[: worker % 3]]
            claimed = [each for each in desk.store.together(wanted) if isinstance(each, Claimed)]
            records = desk.store.together([to_complete(desk, each) for each in claimed])
            return sum(len(cast(Recorded, each).dispatches) for each in records)

        assert at_once(4, work).count(0) >= 1
        assert [desk.statuses(run) for run in runs] == ["CO " * 8 + "QU"] * 3
        for run in runs:
            assert desk.complete(run, 8).ended_run is WorkflowStatus.COMPLETED

    def test_workers_that_record_parts_of_one_wide_join_together_release_it_once(self, desk: Desk) -> None:
        parts = 96
        run, runs = desk.create(graph(*(() for _ in range(parts)), range(parts))), [desk.single() for _ in range(32)]
        others = [desk.create(graph([], [], [0, 1])) for _ in range(16)]

        def work(worker: int) -> int:
            refs = [(run, n) for n in range(worker, parts, 4)] + [(each, 0) for each in runs[worker::4]]
            refs += [(each, (worker + n) % 2) for n, each in enumerate(others)]
            released = 0
            for at in range(worker, len(refs) + worker, 8):
                wanted = [to_claim(desk, *refs[each % len(refs)], f"w{worker}") for each in range(at, at + 8)]
                claimed = [each for each in desk.store.together(wanted) if isinstance(each, Claimed)]
                ended = desk.store.together([to_complete(desk, each) for each in claimed]) if claimed else []
                released += sum(len(cast(Recorded, each).dispatches) for each in ended)
            return released

        assert any(at_once(4, work))
        assert desk.statuses(run) == "CO " * parts + "QU"
        assert all(desk.statuses(each) == "CO" for each in runs)
        assert [desk.statuses(each) for each in others] == ["CO CO QU"] * 16
