"""Only the newest claim of a step records."""

import threading
from collections.abc import Callable

from orchestra.engine.outcome import MAX_CRASHES, Completed, Failed, Reopened, Rescheduled
from orchestra.engine.plan import StepInput
from orchestra.model import template
from orchestra.model.graph import StepOptions
from orchestra.model.ids import MessageRef, StepRef
from orchestra.model.retry import RetryPolicy
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.store.contract import Claimed, ClaimRef, Refused
from orchestra.testing.contract.desk import BOOM, Desk, graph, lease, must

ONE = graph([])


def at_once(number: int, work: Callable[[int], object]) -> list[object]:
    """Call a function in many threads at the same moment; return what each returned or raised."""
    found: list[object] = [None] * number
    barrier = threading.Barrier(number)

    def run(at: int) -> None:
        barrier.wait()
        try:
            found[at] = work(at)
        except BaseException as error:
            found[at] = error

    threads = [threading.Thread(target=run, args=(at,)) for at in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


class Claiming:
    """``claim``, ``record``, ``vanish``, ``claimed``, ``held``, ``orphans`` and leases."""

    def test_a_claim_gives_the_step_to_one_worker(self, desk: Desk) -> None:
        run = desk.create(ONE)
        claimed = desk.claim(run, 0, "w7")
        assert (claimed.claim.claim, claimed.name, claimed.attempts, claimed.crashes) == (1, "s0", 0, 0)
        step = desk.step(run, 0)
        assert (step.status, step.worker, step.claims, step.started_at) == ("RUNNING", "w7", 1, desk.clock())

    def test_a_claim_says_since_when_the_step_was_ready(self, desk: Desk) -> None:
        begun = desk.clock()
        run = desk.create(graph([], [0]))
        desk.clock.advance(2)
        first = desk.claim(run, 0)
        desk.clock.advance(3)
        desk.record(first, Completed("1"))
        desk.clock.advance(4)
        assert (first.ready_at, desk.claim(run, 1).ready_at) == (begun, begun + 5)

    def test_a_step_that_is_tried_again_was_ready_when_it_was_sent_again(self, desk: Desk) -> None:
        begun = desk.clock()
        run = desk.create(ONE)
        desk.record(desk.claim(run, 0), Rescheduled(BOOM, 10))
        desk.clock.advance(10)
        desk.due()
        desk.clock.advance(1)
        assert desk.claim(run, 0).ready_at == begun + 10

    def test_a_double_of_a_message_is_refused_and_changes_nothing(self, desk: Desk) -> None:
        run = desk.create(ONE)
        claimed = desk.claim(run, 0, "w1")
        before = desk.step(run, 0)
        again = desk.try_claim(run, 0, "w2")
        assert isinstance(again, Refused)
        assert again.status is TaskStatus.RUNNING
        assert desk.step(run, 0) == before
        desk.record(claimed, Completed("1"))
        late = desk.try_claim(run, 0, "w2")
        assert isinstance(late, Refused)
        assert late.status is TaskStatus.COMPLETED

    def test_steps_that_are_not_ready_or_not_known_are_refused(self, desk: Desk) -> None:
        run = desk.create(graph([], [0]))
        pending, unknown, nowhere = desk.try_claim(run, 1), desk.try_claim(run, 9), desk.try_claim("nowhere", 0)
        assert isinstance(pending, Refused)
        assert isinstance(unknown, Refused)
        assert isinstance(nowhere, Refused)
        assert (pending.status, unknown.status, nowhere.status) == (TaskStatus.PENDING, None, None)

    def test_a_message_of_another_generation_is_refused(self, desk: Desk) -> None:
        run = desk.create(ONE)
        assert isinstance(desk.try_claim(run, 0, generation=1), Refused)
        assert isinstance(desk.try_claim(run, 0, generation=0), Claimed)

    def test_a_claim_brings_the_outputs_that_its_input_names(self, desk: Desk) -> None:
        third = {"args": [template.reference_to(1), {"x": template.reference_to(0)}]}
        run = desk.create(graph([], [], [0, 1], s2=third))
        desk.complete(run, 0, output='{"a": [1, "größe"]}')
        desk.complete(run, 1, output="2")
        claimed = desk.claim(run, 2)
        assert dict(claimed.outputs) == {0: '{"a": [1, "größe"]}', 1: "2"}
        assert StepInput.from_json(claimed.row.input).args == third["args"]

    def test_a_claim_brings_names_and_outputs_of_predecessors_where_these_are_the_input(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [0, 1], s2={"from_predecessors": True}))
        desk.complete(run, 0, 1, output="7")
        claimed = desk.claim(run, 2)
        assert dict(claimed.predecessors) == {0: "s0", 1: "s1"}
        assert dict(claimed.outputs) == {0: "7", 1: "7"}

    def test_a_claim_does_not_bring_what_nobody_asks_for(self, desk: Desk) -> None:
        run = desk.create(graph([], [0]))
        desk.complete(run, 0, output="1")
        claimed = desk.claim(run, 1)
        assert (dict(claimed.outputs), dict(claimed.predecessors)) == ({}, {})

    def test_a_record_stores_what_came_of_it(self, desk: Desk) -> None:
        run = desk.create(ONE)
        claimed = desk.claim(run, 0)
        desk.clock.advance(3)
        assert must(desk.record(claimed, Completed('"done"'))).ended_run is WorkflowStatus.COMPLETED
        step = desk.step(run, 0)
        assert (step.output, step.error, step.attempts, step.completed_at) == ('"done"', None, 1, desk.clock())

    def test_a_superseded_claim_records_nothing(self, desk: Desk) -> None:
        run = desk.create(graph([], [0]))
        old = desk.claim(run, 0, "w1")
        desk.vanish(old)
        new = desk.claim(run, 0, "w2")
        assert new.claim.claim == 2
        before, log = desk.step(run, 0), desk.told(run)
        for change in (Completed("1"), Failed(BOOM), Rescheduled(BOOM, 1.0)):
            assert desk.record(old, change) is None
        assert desk.vanish(old) is None
        assert (desk.step(run, 0), desk.told(run)) == (before, log)
        assert desk.record(new, Completed("2")) is not None
        assert desk.statuses(run) == "CO QU"

    def test_a_claim_records_once(self, desk: Desk) -> None:
        run = desk.create(graph([], [0]))
        claimed = desk.claim(run, 0)
        assert desk.record(claimed, Completed("1")) is not None
        assert desk.record(claimed, Completed("2")) is None
        assert desk.step(run, 0).output == "1"

    def test_an_expired_lease_alone_refuses_nothing(self, desk: Desk) -> None:
        run = desk.create(ONE)
        desk.store.renew(lease("w1", expires_at=desk.clock() - 100))
        claimed = desk.claim(run, 0, "w1")
        assert desk.record(claimed, Completed("1")) is not None

    def test_what_nobody_claimed_cannot_be_recorded(self, desk: Desk) -> None:
        run = desk.create(ONE)
        for claim in (0, 1):
            ref = ClaimRef(MessageRef(StepRef(run, 0), 0), claim)
            assert desk.record(ref, Completed("1")) is None
        assert desk.record(ClaimRef(MessageRef(StepRef("nowhere", 0), 0), 1), Completed("1")) is None
        assert desk.statuses(run) == "QU"

    def test_a_claim_that_vanished_is_ready_again_one_crash_richer(self, desk: Desk) -> None:
        run = desk.create(ONE)
        desk.sent.clear()
        recorded = desk.vanish(desk.claim(run, 0))
        assert recorded is not None
        assert [each.ref.step.n for each in recorded.dispatches] == [0]
        step = desk.step(run, 0)
        assert (step.status, step.crashes, step.attempts) == ("QUEUED", 1, 0)
        claimed = desk.claim(run, 0)
        assert (claimed.claim.claim, claimed.crashes, claimed.attempts) == (2, 1, 0)

    def test_a_claim_that_is_given_back_is_ready_again_and_neither_an_attempt_nor_a_crash(self, desk: Desk) -> None:
        run = desk.create(ONE)
        desk.sent.clear()
        claimed = desk.claim(run, 0)
        recorded = must(desk.record(claimed, Reopened("its worker goes", crashed=False)))
        assert [each.ref.step.n for each in recorded.dispatches] == [0]
        step = desk.step(run, 0)
        assert (step.status, step.crashes, step.attempts) == ("QUEUED", 0, 0)
        assert desk.record(claimed, Completed("1")) is None
        assert desk.claim(run, 0).claim.claim == 2

    def test_a_step_that_kills_every_worker_fails_in_the_end(self, desk: Desk) -> None:
        run = desk.create(ONE)
        for _ in range(MAX_CRASHES - 1):
            recorded = desk.vanish(desk.claim(run, 0))
            assert recorded is not None
            assert recorded.ended_run is None
        assert must(desk.vanish(desk.claim(run, 0))).ended_run is WorkflowStatus.FAILED
        step = desk.step(run, 0)
        assert (step.status, step.crashes, step.attempts) == ("FAILED", MAX_CRASHES, 0)
        assert step.error is not None
        assert step.error.type == "WorkerCrashed"

    def test_a_retry_waits_until_it_is_due(self, desk: Desk) -> None:
        run = desk.create(graph([], s0={"options": StepOptions(retry=RetryPolicy(3))}))
        desk.retry(run, 0, after_s=5.0)
        step = desk.step(run, 0)
        assert (step.status, step.attempts, step.due_at) == ("RETRYING", 1, desk.clock() + 5)
        assert step.error is not None
        assert isinstance(desk.try_claim(run, 0), Refused)
        desk.sent.clear()
        assert desk.due() == desk.clock() + 5
        assert desk.sent == []
        desk.clock.advance(5)
        assert desk.due() is None
        assert desk.sent_of(run) == [0]
        claimed = desk.claim(run, 0)
        assert (claimed.attempts, claimed.claim.claim) == (1, 2)
        assert dict(claimed.row.retry or {})["max_attempts"] == 3

    def test_retries_become_due_in_the_order_of_their_times(self, desk: Desk) -> None:
        run = desk.create(graph([], [], []))
        for n, after_s in enumerate((30.0, 10.0, 20.0)):
            desk.retry(run, n, after_s)
        start = desk.clock()
        assert desk.due() == start + 10
        desk.clock.advance(20)
        assert desk.due() == start + 30
        assert desk.statuses(run) == "RE QU QU"

    def test_what_a_worker_holds_is_known_by_its_incarnation(self, desk: Desk) -> None:
        run = desk.create(graph([], [], []))
        mine, done, other = desk.claim(run, 0, "w1"), desk.claim(run, 1, "w1"), desk.claim(run, 2, "w2")
        desk.record(done, Completed("1"))
        assert desk.store.held("w1") == [mine.claim]
        assert desk.store.held("w2") == [other.claim]
        assert desk.store.held("w3") == []

    def test_a_parent_process_can_ask_for_the_claim_of_its_child(self, desk: Desk) -> None:
        run = desk.create(ONE)
        message = MessageRef(StepRef(run, 0), 0)
        assert desk.store.claimed(message, "w1") is None
        claimed = desk.claim(run, 0, "w1")
        found = desk.store.claimed(message, "w1")
        assert found is not None
        assert (found.claim, found.name, found.attempts) == (claimed.claim, "s0", 0)
        assert desk.store.claimed(message, "w2") is None
        assert desk.store.claimed(MessageRef(StepRef(run, 0), 1), "w1") is None
        desk.record(claimed, Completed("1"))
        assert desk.store.claimed(message, "w1") is None

    def test_what_runs_under_no_lease_is_an_orphan(self, desk: Desk) -> None:
        run = desk.create(graph([], []))
        desk.store.renew(lease("w1"))
        desk.claim(run, 0, "w1")
        orphan = desk.claim(run, 1, "w2")
        assert desk.store.orphans() == [orphan.claim]
        assert desk.store.release_lease("w1")
        assert len(desk.store.orphans()) == 2

    def test_a_lease_is_kept_as_given_renewed_and_given_back_once(self, desk: Desk) -> None:
        given = lease("w1", expires_at=5.0, queues=["a", "größe"])
        desk.store.renew(given)
        assert desk.store.leases() == [given]
        renewed = lease("w1", expires_at=9.0, queues=["a", "größe"])
        desk.store.renew(renewed)
        assert desk.store.leases() == [renewed]
        assert desk.store.release_lease("w1")
        assert not desk.store.release_lease("w1")
        assert desk.store.leases() == []

    def test_a_lease_that_was_renewed_since_it_was_seen_stays(self, desk: Desk) -> None:
        desk.store.renew(lease("w1", expires_at=1_700_000_005.0123457))
        [seen] = desk.store.leases()
        desk.store.renew(lease("w1", expires_at=1_700_000_006.5123458))
        assert not desk.store.release_lease("w1", seen.expires_at)
        [renewed] = desk.store.leases()
        assert desk.store.release_lease("w1", renewed.expires_at)
        assert not desk.store.release_lease("w1", renewed.expires_at)
        assert desk.store.leases() == []

    def test_of_many_workers_that_claim_a_step_exactly_one_wins(self, desk: Desk) -> None:
        run = desk.create(graph(*(() for _ in range(10))))
        for n in range(10):
            answers = at_once(6, lambda at, n=n: desk.try_claim(run, n, f"w{at}"))
            winners = [each for each in answers if isinstance(each, Claimed)]
            assert len(winners) == 1
            assert sum(isinstance(each, Refused) for each in answers) == 5
            assert desk.store.held(str(desk.step(run, n).worker)) == [winners[0].claim]
            desk.record(winners[0], Completed("1"))
        assert desk.ended(run) is WorkflowStatus.COMPLETED

    def test_of_many_records_of_one_claim_exactly_one_counts(self, desk: Desk) -> None:
        run = desk.create(graph([], [0]))
        claimed = desk.claim(run, 0)
        answers = at_once(6, lambda at: desk.record(claimed, Completed(str(at))))
        assert sum(each is not None for each in answers) == 1
        assert desk.told(run, "task.completed", "task.queued") == ["queued 0", "completed 0", "queued 1"]
