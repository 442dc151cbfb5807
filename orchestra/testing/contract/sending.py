"""The window: which ready steps are with the broker, and what is sent again."""

from orchestra.engine.outcome import Completed
from orchestra.model.graph import StepOptions
from orchestra.store.contract import PER_SLOT, WINDOW, Recorded
from orchestra.testing.contract.claiming import at_once
from orchestra.testing.contract.desk import Desk, graph, lease

WIDE = graph(*(() for _ in range(WINDOW + 10)))


class Sending:
    """Dispatch: window, order, ``refill``, ``resend``, ``depth``."""

    def test_a_window_is_filled_and_no_more(self, desk: Desk) -> None:
        run = desk.create(WIDE)
        assert desk.sent_of(run) == list(range(WINDOW))
        assert desk.store.depth() == {"q": WINDOW + 10}
        assert desk.store.refill(["q"], desk.clock()) == []

    def test_every_record_brings_the_next_one(self, desk: Desk) -> None:
        run = desk.create(WIDE)
        desk.sent.clear()
        desk.complete(run, 5)
        assert desk.sent_of(run) == [WINDOW]
        desk.complete(run, 6, 7)
        assert desk.sent_of(run) == [WINDOW, WINDOW + 1, WINDOW + 2]

    def test_a_claim_makes_room_that_refill_finds(self, desk: Desk) -> None:
        run = desk.create(WIDE)
        desk.claim(run, 0)
        desk.claim(run, 1)
        assert [each.ref.step.n for each in desk.store.refill(["q", "nobody's"], desk.clock())] == [WINDOW, WINDOW + 1]
        assert desk.store.refill(["q"], desk.clock()) == []

    def test_each_queue_has_a_window_of_its_own(self, desk: Desk) -> None:
        desk.create(WIDE)
        other = desk.create(graph([], []), queue="other")
        assert desk.sent_of(other) == [0, 1]

    def test_live_slots_widen_the_window_of_their_queues(self, desk: Desk) -> None:
        desk.store.renew(lease("w1", slots=WINDOW, expires_at=desk.clock() + 60))
        run = desk.create(graph(*(() for _ in range(PER_SLOT * WINDOW + 3))))
        assert len(desk.sent_of(run)) == PER_SLOT * WINDOW

    def test_a_step_of_higher_priority_is_let_through_although_the_window_is_full(self, desk: Desk) -> None:
        low = desk.create(WIDE, priority=9)
        high = desk.create(WIDE, priority=2)
        assert len(desk.sent_of(low)) == len(desk.sent_of(high)) == WINDOW
        lowest = desk.create(graph([]), priority=10)
        assert desk.sent_of(lowest) == []

    def test_of_those_that_wait_priority_comes_first_then_the_longest_path_then_age(self, desk: Desk) -> None:
        full = desk.create(WIDE, priority=1)
        desk.clock.advance(1)
        low = desk.create(graph([]), priority=8)
        desk.clock.advance(1)
        old = desk.create(graph([]))
        desk.clock.advance(1)
        young_and_long = desk.create(graph([], [0], [1]))
        desk.clock.advance(1)
        young = desk.create(graph([]))
        desk.sent.clear()
        desk.complete(full, *range(10))  # those that wait in the full run
        assert {each.ref.step.run_id for each in desk.sent} == {full}
        desk.sent.clear()
        for n in range(10, 14):
            desk.complete(full, n)
        assert [each.ref.step.run_id for each in desk.sent] == [young_and_long, old, young, low]

    def test_priorities_of_one_run_are_respected(self, desk: Desk) -> None:
        shape = graph([], [], [], s0={"options": StepOptions(priority=9)}, s2={"options": StepOptions(priority=1)})
        run = desk.create(shape)
        assert desk.sent_of(run) == [2, 1, 0]

    def test_steps_that_were_sent_and_not_claimed_are_sent_again_oldest_first(self, desk: Desk) -> None:
        one = desk.create(graph([]))
        desk.clock.advance(10)
        other = desk.create(graph([], []))
        start = desk.clock()
        assert [each.ref.step.run_id for each in desk.store.resend(["q"], start - 5, 10, start)] == [one]
        again = desk.store.resend(["q"], start + 0.5, 1, desk.clock.advance(1))
        assert [each.ref.step.run_id for each in again] == [other]

    def test_a_limit_bounds_what_is_sent_again_over_all_queues(self, desk: Desk) -> None:
        for queue in ("a", "b"):
            desk.create(graph([], []), queue=queue)
        later = desk.clock.advance(5)
        assert len(desk.store.resend(["a", "b"], later, 3, later)) == 3
        assert len(desk.store.resend(["a", "b"], later, 3, later)) == 1
        assert list(desk.store.resend(["nobody's"], later, 3, later)) == []

    def test_what_is_sent_again_waits_twice_as_long_each_time(self, desk: Desk) -> None:
        desk.create(graph([]))
        waits: list[float] = []
        last = desk.clock()
        while len(waits) < 4:
            now = desk.clock.advance(0.25)
            if desk.store.resend(["q"], now, 1, now):
                waits.append(now - last)
                last = now
        assert waits == [0.25, 1.25, 2.25, 4.25]

    def test_what_was_claimed_waits_or_is_over_is_not_sent_again(self, desk: Desk) -> None:
        run = desk.create(graph(*(() for _ in range(WINDOW + 1)), [0]))
        desk.claim(run, 1)
        desk.retry(run, 2)
        desk.complete(run, 3)
        later = desk.clock.advance(5)
        again = {each.ref.step.n for each in desk.store.resend(["q"], later, 1000, later)}
        assert again.isdisjoint({1, 2, 3, WINDOW + 1})
        assert len(again) == WINDOW - 2

    def test_a_step_that_was_reopened_is_sent_anew(self, desk: Desk) -> None:
        run = desk.create(WIDE)
        claimed = desk.claim(run, 0)
        desk.sent.clear()
        desk.vanish(claimed)
        assert desk.sent_of(run) == [0]

    def test_thousands_that_wait_all_leave_in_the_end(self, desk: Desk) -> None:
        run = desk.create(graph(*(() for _ in range(2000))))
        assert desk.work() == 2000
        assert desk.ended(run).ended

    def test_records_at_the_same_moment_may_overfill_the_window_but_send_no_step_twice_and_lose_no_place(
        self, desk: Desk
    ) -> None:
        many = 12
        run = desk.create(graph(*(() for _ in range(WINDOW + many * many + 2))))
        claims = [desk.claim(run, n) for n in range(many)]
        desk.sent.clear()
        answers = at_once(many, lambda at: desk.record(claims[at], Completed("1")))
        assert all(isinstance(each, Recorded) for each in answers), answers
        desk.sent += desk.store.refill(["q"], desk.clock())
        sent = len(desk.sent)
        assert many <= sent <= many * many
        assert sorted(desk.sent_of(run)) == list(range(WINDOW, WINDOW + sent))
        desk.sent.clear()
        desk.complete(run, *range(many, sent))
        assert desk.sent_of(run) == []
        desk.complete(run, sent)
        assert desk.sent_of(run) == [WINDOW + sent]
