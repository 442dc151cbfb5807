"""What a run or a step waits for, from facts."""

from dataclasses import replace

import pytest

from orchestra.engine.reasons import Cause, Facts, Reason, Server, why_run, why_step
from orchestra.model.ids import StepRef
from orchestra.model.record import ErrorInfo, RunRecord, StepRecord
from orchestra.model.status import TaskStatus as S
from orchestra.model.status import WorkflowStatus

NOW = 1000.0
RUN = RunRecord("r", "nightly", "w", WorkflowStatus.RUNNING, False, 5)
WORKER = Server("w@host", "w/1", ["q"], 2, 0, True, heard_at=NOW - 0.8)


def step(n: int, status: S, **fields: object) -> StepRecord:
    plain = StepRecord(StepRef("r", n), f"s{n}", f"s{n}", "m:f", status, 5, "q", {})
    return replace(plain, **fields)  # type: ignore[arg-type]


def facts(*steps: StepRecord, **fields: object) -> Facts:
    plain = Facts(RUN, {each.ref.n: each for each in steps}, {}, [WORKER], {}, NOW)
    return replace(plain, **fields)  # type: ignore[arg-type]


def only(found: list[Reason]) -> tuple[Cause, str]:
    (reason,) = found
    return reason.cause, reason.text


def test_a_ready_step_of_a_queue_that_nobody_serves_says_how_to_start_a_worker() -> None:
    cause, text = only(why_step(facts(step(0, S.QUEUED, queue="mail")), 0))
    assert cause is Cause.NO_WORKER
    assert "no worker serves queue 'mail'" in text
    assert "--queues mail" in text


@pytest.mark.parametrize("gone", [replace(WORKER, alive=False), replace(WORKER, slots=0)])
def test_a_worker_that_is_gone_or_takes_no_more_serves_nothing(gone: Server) -> None:
    assert only(why_step(facts(step(0, S.QUEUED), servers=[gone]), 0))[0] is Cause.NO_WORKER


def test_a_ready_step_counts_what_is_before_it() -> None:
    ready = {("q", 1): 400, ("q", 4): 12, ("q", 5): 7, ("q", 6): 9, ("other", 1): 5}
    assert only(why_step(facts(step(0, S.QUEUED), ready=ready), 0)) == (
        Cause.BEHIND,
        "is ready; 412 ready steps of higher priority before it on queue 'q'",
    )


def test_a_ready_step_says_that_all_slots_are_taken() -> None:
    busy = replace(WORKER, busy=2)
    assert only(why_step(facts(step(0, S.QUEUED), servers=[busy], ready={("q", 5): 3}), 0)) == (
        Cause.NO_SLOT,
        "is ready; all 2 slots of the 1 worker of queue 'q' are taken (2 other steps of its priority ready)",
    )


def test_a_ready_step_with_a_free_slot_is_next() -> None:
    assert only(why_step(facts(step(0, S.QUEUED)), 0))[0] is Cause.NEXT


def test_a_running_step_names_its_worker_and_the_last_heartbeat() -> None:
    running = step(0, S.RUNNING, worker="w/1", started_at=NOW - 3)
    assert only(why_step(facts(running), 0)) == (
        Cause.RUNNING,
        "runs for 3.0 s on worker w@host, last heartbeat 0.8 s ago",
    )
    assert only(why_step(facts(replace(running, worker="x/2")), 0))[0] is Cause.WORKER_SILENT


def test_a_heartbeat_of_long_ago_says_how_long_it_is_good_for() -> None:
    running = step(0, S.RUNNING, worker="w/1", started_at=NOW - 3)
    seldom = replace(WORKER, heard_at=NOW - 40, holds_until=NOW + 80)
    text = only(why_step(replace(facts(running), servers=[seldom]), 0))[1]
    assert text.endswith("on worker w@host, last heartbeat 40.0 s ago; that is good for 1 min more")


def test_a_pending_step_says_what_the_step_before_it_waits_for() -> None:
    retrying = step(0, S.RETRYING, attempts=1, due_at=NOW + 12, error=ErrorInfo("ValueError", "no"))
    assert only(why_step(facts(retrying, step(1, S.PENDING), before={1: [0]}), 1)) == (
        Cause.PREDECESSOR,
        "waits for step 's0', which failed once (no) and retries in 12.0 s",
    )


def test_behind_a_pending_predecessor_the_step_that_holds_up_all_is_named() -> None:
    held = facts(step(0, S.RUNNING, worker="w/1"), step(1, S.PENDING), step(2, S.PENDING), before={1: [0], 2: [1]})
    first, second = why_step(held, 2)
    assert first.text == "waits for step 's1', which waits for others itself"
    assert second.text.startswith("behind it: 's0' runs on worker w@host")


def test_a_part_of_a_map_waits_for_its_turn() -> None:
    parts = [step(1, S.RUNNING, parent=0, worker="w/1"), step(2, S.PENDING, parent=0)]
    cause, text = only(why_step(facts(step(0, S.WAITING), *parts), 2))
    assert (cause, text) == (Cause.TURN, "waits for its turn: 1 part of 's0' at a time")


def test_a_map_waits_for_its_parts() -> None:
    parts = [step(1, S.COMPLETED, parent=0), step(2, S.RUNNING, parent=0, worker="w/1")]
    first, second = why_step(facts(step(0, S.WAITING), *parts), 0)
    assert first.text == "waits for 1 of its 2 parts"
    assert "'s2' runs" in second.text


def test_a_run_names_what_is_under_way_and_counts_the_rest() -> None:
    found = why_run(facts(step(0, S.COMPLETED), step(1, S.QUEUED), step(2, S.PENDING), before={2: [1]}))
    assert [each.cause for each in found] == [Cause.NEXT, Cause.PREDECESSOR]
    assert found[0].text.startswith("'s1' is ready")
    assert found[1].text == "1 step behind them: waiting for those before"


def test_a_paused_run_says_how_to_go_on() -> None:
    paused = replace(RUN, status=WorkflowStatus.PAUSED)
    (first, *_rest) = why_run(facts(step(0, S.QUEUED), run=paused))
    assert first == Reason(Cause.PAUSED, "the run is paused; go on with: orchestra runs resume r")
    assert why_step(facts(step(0, S.QUEUED), run=paused), 0)[0].cause is Cause.PAUSED


def test_what_has_ended_says_when_and_how() -> None:
    ended = replace(RUN, status=WorkflowStatus.FAILED, completed_at=NOW - 90, error=ErrorInfo("E", "broke"))
    first, second = why_run(facts(run=ended))
    assert (first.cause, first.text) == (Cause.ENDED, "it ended FAILED 2 min ago: broke")
    assert second.text == "what failed or was cancelled of it runs again with: orchestra runs retry r"
    assert only(why_step(facts(step(0, S.SKIPPED)), 0)) == (Cause.ENDED, "it ended SKIPPED")


def test_many_steps_are_counted_and_not_listed() -> None:
    found = why_run(facts(*(step(n, S.QUEUED) for n in range(40))))
    assert len(found) == 6
    assert found[-1].text == "and 35 more of its steps are ready or running"
