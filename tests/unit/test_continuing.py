"""What a pool child goes on with by itself, decided without processes."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from orchestra.engine.rows import StepRow
from orchestra.model.ids import MessageRef, StepRef
from orchestra.model.status import TaskStatus
from orchestra.runtime.board import At, Board
from orchestra.runtime.continuing import CONTINUE_S, SHORT_S, Continuation, Durations
from orchestra.runtime.routing import HEADER
from orchestra.store.contract import Claimed, ClaimRef, Dispatch, Onward, Recorded

REQUEST = {HEADER: 1, "timelimit": [None, None], "chain": None, "delivery_info": {"routing_key": "q"}}


class Child:
    """A child whose clock stands still, and whose bodies each hand on the same."""

    def __init__(self) -> None:
        self.now, self.leaving = 100.0, False
        self.sent: list[Dispatch] = []
        self.ran: list[str] = []
        self.board = Board(2)
        self.board.may_continue = True
        self.next: Sequence[Dispatch | None] = []
        self.seconds = 0.001
        self.queue: list[dict[str, Any]] = []
        self.claims = False
        self.boards: list[At | None] = []
        """What the parent read while something was recorded."""
        self.asked: list[Onward] = []
        self.given_back = 0
        self.continuation = Continuation(
            self.board, 1, {"step": self.run}, self.sent.extend, self, lambda: self.leaving,
            monotonic=lambda: self.now, give_back=self.give_back,
        )  # fmt: skip

    def give_back(self) -> None:
        self.given_back += 1

    def take(self, queue: str) -> tuple[str, dict[str, Any]] | None:
        assert queue == "q"
        return ("key", self.queue.pop(0)) if self.queue else None

    def put_back(self, key: str, message: Mapping[str, Any]) -> None:
        assert key == "key"
        self.queue.insert(0, dict(message))

    def run(self, uuid: str, _args: object, _kwargs: object, request: dict[str, Any]) -> str:
        assert request["id"] == uuid
        return self.body(uuid)

    def body(self, uuid: str) -> str:
        self.ran.append(uuid)
        following, self.next = self.next[:1], self.next[1:]
        self.record([each for each in following if each is not None])
        self.now += self.seconds
        return f"answer of {uuid}"

    def record(self, handed_on: list[Dispatch]) -> None:
        """Record the body that has just run, in a store that claims what it is asked to if ``claims``."""
        onward = self.continuation.onward(claimed(), self.seconds, "w1")
        self.asked += [] if onward is None else [onward]
        recorded = Recorded(handed_on)
        if self.claims and onward is not None:
            self.boards.append(self.board.read(1))
            split = onward.split("r", handed_on)
            if split is not None:
                recorded = Recorded(split[1], onward=(split[0], claimed(split[0].ref.step.n)))
        self.sent += self.continuation.keep(claimed(), recorded, ())

    def handle(self, uuid: str = "message", **request: Any) -> Any:
        return self.continuation.trace(lambda uuid, *_: self.body(uuid), uuid, [], {}, {**REQUEST, **request})


def claimed(n: int = 0) -> Claimed:
    row = StepRow(n, "a", "a", "step", "pkg:f", TaskStatus.RUNNING, 5, "q", 0, "{}")
    return Claimed(ClaimRef(MessageRef(StepRef("r", n), 0), 1), row, 0, 0)


def dispatch(n: int, **other: Any) -> Dispatch:
    about: dict[str, Any] = {"task": "step", "name": "f", "queue": "q", "priority": 5, "target": "pkg:f"}
    return Dispatch(**{"ref": MessageRef(StepRef("r", n), 0), **about, **other})


@pytest.fixture
def child() -> Child:
    made = Child()
    made.handle("first")  # from now on it is known how long it takes
    made.ran.clear()
    made.asked.clear()
    return made


def test_it_goes_on_with_what_a_record_hands_on_and_answers_for_the_message(child: Child) -> None:
    child.next = [dispatch(1), dispatch(2)]
    assert child.handle() == "answer of message"
    assert child.ran == ["message", "r.1.0", "r.2.0"]
    assert child.sent == []
    assert child.board.read(1) is None


def test_one_is_kept_and_the_others_are_sent(child: Child) -> None:
    child.record([dispatch(1), dispatch(2)])
    assert child.sent == [dispatch(1), dispatch(2)]  # there is no message that it belongs to
    child.sent.clear()
    child.continuation.trace(lambda *_: child.record([dispatch(1), dispatch(2)]), "message", [], {}, dict(REQUEST))
    assert (child.ran, child.sent) == (["r.1.0"], [dispatch(2)])


def test_what_was_claimed_with_a_record_is_gone_on_with(child: Child) -> None:
    child.claims, child.next = True, [dispatch(1), dispatch(2)]
    assert child.handle() == "answer of message"
    assert (child.ran, child.sent) == (["message", "r.1.0", "r.2.0"], [])
    # Before each record the parent could read of which run another step may be claimed by now.
    assert child.boards == [At("message", "r.0.0", "r")] * 3
    assert child.board.read(1) is None


def test_what_was_claimed_and_cannot_be_begun_is_given_back(child: Child) -> None:
    child.claims, child.next = True, [dispatch(1, task="of the user's")]
    before = child.given_back
    child.handle()
    assert (child.ran, child.sent, child.given_back) == (["message"], [], before + 1)


def test_an_error_of_the_tracer_gives_back_what_was_claimed(child: Child) -> None:
    def breaks(*_: Any) -> None:
        child.record([dispatch(1)])
        raise ValueError("boom")

    child.claims, before = True, child.given_back
    with pytest.raises(ValueError, match="boom"):
        child.continuation.trace(breaks, "message", [], {}, dict(REQUEST))
    assert (child.ran, child.given_back, child.board.read(1)) == ([], before + 1, None)


def test_what_ends_the_process_leaves_the_board_to_the_parent(child: Child) -> None:
    def ends(*_: Any) -> None:
        child.record([dispatch(1)])
        raise SystemExit

    child.claims = True
    with pytest.raises(SystemExit):
        child.continuation.trace(ends, "message", [], {}, dict(REQUEST))
    assert child.board.read(1) == At("message", "r.1.0")


@pytest.mark.parametrize(
    "other",
    [
        {"queue": "another"},
        {"ref": MessageRef(StepRef("another", 0), 0)},
        {"priority": 6},
        {"timeout_s": 1.0},
        {"task": "of the user's"},
        {"target": "pkg:never_called"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_what_does_not_fit_is_sent(child: Child, other: dict[str, Any]) -> None:
    child.next = [dispatch(1, **other)]
    child.handle()
    assert (child.ran, child.sent) == (["message"], [dispatch(1, **other)])


def test_better_priorities_fit(child: Child) -> None:
    child.next = [dispatch(1, priority=1)]
    child.handle()
    assert child.ran == ["message", "r.1.0"]


def test_it_ends_after_a_while_and_begins_anew_with_the_next_message(child: Child) -> None:
    child.seconds = CONTINUE_S / 5.5
    child.next = [dispatch(n) for n in range(1, 20)]
    child.handle()
    assert len(child.ran) == 7  # when the sixth is recorded, it is not over yet
    assert [each.ref.step.n for each in child.sent] == [7]
    child.handle("another")
    assert len(child.ran) == 14


def test_what_has_become_long_is_sent(child: Child) -> None:
    child.seconds = SHORT_S * 6
    child.handle()
    child.seconds, child.next = 0.001, [dispatch(1)]
    child.handle()
    assert child.ran == ["message", "message"]


@pytest.mark.parametrize("why", ["leaving", "closed", "limit"])
def test_nothing_is_kept_when_the_parent_has_to_know(child: Child, why: str) -> None:
    child.next = [dispatch(1)]
    child.leaving = why == "leaving"
    child.board.may_continue = why != "closed"
    child.handle(timelimit=[5.0, None] if why == "limit" else [None, None])
    assert (child.ran, child.sent) == (["message"], [dispatch(1)])


def test_an_id_that_the_board_has_no_room_for_goes_to_the_broker(child: Child) -> None:
    child.next = [dispatch(1)]
    child.handle("x" * 300)
    assert (child.ran, child.sent) == (["x" * 300], [dispatch(1)])


def message_of(n: int) -> MessageRef:
    return MessageRef(StepRef("r", n), 0)


def message(n: int, **headers: Any) -> dict[str, Any]:
    """Return a message as it lies in Redis."""
    about = {HEADER: 1, "id": f"r.{n}.0", "task": "step", "timelimit": [None, None], **headers}
    return {"headers": about, "body": base64.b64encode(json.dumps([[], {}, {"chain": ["rest"]}]).encode()).decode()}


def test_what_waits_in_its_queue_is_taken_behind_what_is_kept(child: Child) -> None:
    child.queue, child.next = [message(7), message(8)], [dispatch(1)]
    child.handle()
    assert child.ran == ["message", "r.1.0", "r.7.0", "r.8.0"]


def test_a_message_that_waits_is_taken_before_the_record_once_nothing_is_handed_on(child: Child) -> None:
    child.queue = [message(n) for n in range(5, 9)]
    child.handle()
    assert child.ran == ["message", "r.5.0", "r.6.0", "r.7.0", "r.8.0"]
    assert [each.message for each in child.asked] == [None, message_of(6), message_of(7), message_of(8), None]


def test_what_is_handed_on_comes_before_messages_again(child: Child) -> None:
    child.queue, child.next = [message(n) for n in range(5, 8)], [None, dispatch(1), dispatch(2)]
    child.handle()
    # A message was in hand when the first was handed on.
    assert (child.ran, child.sent) == (["message", "r.5.0", "r.6.0", "r.2.0", "r.7.0"], [dispatch(1)])


@pytest.mark.parametrize(
    "headers",
    [{HEADER: 0}, {"timelimit": [3, None]}, {"task": "another"}, {"id": "y" * 300}],
    ids=lambda each: str(each)[:20],
)
def test_what_the_parent_has_to_see_is_put_back(child: Child, headers: dict[str, Any]) -> None:
    child.queue = [message(7, **headers), message(8)]
    child.handle()
    assert child.ran == ["message"]
    assert child.queue == [message(7, **headers), message(8)]


def test_nothing_is_taken_when_its_time_is_over(child: Child) -> None:
    child.queue, child.seconds = [message(7)], CONTINUE_S
    child.handle()
    assert (child.ran, child.queue) == (["message"], [message(7)])


def test_the_parent_reads_what_each_child_is_at() -> None:
    board = Board(2)
    assert [board.place(index) for index in (None, 0, 1, 2)] == [None, 1, 2, None]
    board.write(1, "m1", "s1")
    board.write(2, "m2", "s2")
    board.write(1, "m1", "s1a")
    assert board.has_room_for("m1", "s1")
    assert not board.has_room_for("m1", "s" * 251)
    assert board.has_room_for("m1", "s" * 250)
    assert (board.read(1), board.read(2)) == (At("m1", "s1a"), At("m2", "s2"))
    board.write(1, "m1", "s" * 250)
    board.write(2, "m2", "s2", "run")
    assert (board.read(1), board.read(2)) == (At("m1", "s" * 250), At("m2", "s2", "run"))
    board.clear(1)
    assert (board.read(1), board.step_at("m1"), board.step_at("m2")) == (None, "m1", "s2")


def test_two_children_with_the_same_message_are_not_taken_for_each_other() -> None:
    board = Board(2)
    board.write(1, "r.1.0", "r.1.0")
    board.write(2, "r.1.0", "r.1.0")
    assert board.step_at("r.1.0") == "r.1.0"
    board.write(2, "r.1.0", "r.5.0")
    assert board.step_at("r.1.0") is None
    assert all(board.may_be_at("r.1.0", MessageRef(StepRef("r", n), 0)) for n in (1, 5))
    assert not board.may_be_at("r.1.0", MessageRef(StepRef("r", 6), 0))


def test_a_child_is_at_its_message_at_what_it_goes_on_with_and_at_what_it_may_have_claimed() -> None:
    board, step, other = Board(1), MessageRef(StepRef("r", 1), 0), MessageRef(StepRef("other", 1), 0)
    assert board.may_be_at("r.1.0", step)
    board.write(1, "message", "r.1.0")
    assert board.may_be_at("message", step)
    board.write(1, "message", "r.0.0")
    assert not board.may_be_at("message", step)
    board.write(1, "message", "r.0.0", "r")
    assert board.may_be_at("message", step)
    assert not board.may_be_at("message", other)


def test_durations_follow_what_is_measured_and_are_bounded() -> None:
    durations = Durations()
    assert not durations.is_short("f")
    durations.note("f", 0.1)
    assert not durations.is_short("f")
    for _ in range(20):
        durations.note("f", 0.001)
    assert durations.is_short("f")
    assert durations.short() == {"f"}
    for n in range(1001):
        durations.note(f"g{n}", 0.001)
    assert not durations.is_short("f")
