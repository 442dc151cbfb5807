"""What children show their parent, and what it reads there."""

from orchestra.model.ids import MessageRef, StepRef
from orchestra.runtime.board import At, Board


def ref(n: int, run_id: str = "r") -> MessageRef:
    return MessageRef(StepRef(run_id, n), 0)


def test_the_parent_reads_what_each_child_is_at() -> None:
    board = Board(2)
    assert [board.place(index) for index in (None, 0, 1, 2)] == [None, 1, 2, None]
    board.write(1, "m1", "s1")
    board.write(2, "m2", "s2")
    board.write(1, "m1", "s1a")
    assert (board.read(1), board.read(2)) == (At("m1", "s1a"), At("m2", "s2"))
    board.write(2, "m2", "s2", ["s3", "s4"], ["run"])
    assert board.read(2) == At("m2", "s2", ("s3", "s4"), ("run",))
    board.clear(1)
    assert (board.read(1), board.step_at("m1"), board.step_at("m2")) == (None, "m1", "s2")


def test_there_is_room_for_so_much_and_what_is_too_long_is_cut() -> None:
    board = Board(2)
    most = Board.ROOM - len("m1") - 3
    assert board.has_room_for("m1", "s" * most)
    assert not board.has_room_for("m1", "s" * (most + 1))
    assert not board.has_room_for("m1", "s", ["t" * 1000, "u" * 1000], ["r" * 50])
    board.write(1, "m1", "s" * most)
    board.write(2, "m2", "s2")
    board.write(1, "m1", "s" * 5000)
    assert (board.step_at("m1") or "").startswith("s" * most)
    assert board.read(2) == At("m2", "s2")


def test_two_children_with_the_same_message_are_not_taken_for_each_other() -> None:
    board = Board(2)
    board.write(1, "r.1.0", "r.1.0")
    board.write(2, "r.1.0", "r.1.0")
    assert board.step_at("r.1.0") == "r.1.0"
    board.write(2, "r.1.0", "r.5.0", ["r.6.0"])
    assert board.step_at("r.1.0") is None
    assert board.in_hand("r.1.0") == ()
    assert all(board.may_be_at("r.1.0", ref(n)) for n in (1, 5, 6))
    assert not board.may_be_at("r.1.0", ref(7))


def test_a_child_may_be_at_its_message_what_it_goes_on_with_what_it_holds_and_what_it_may_have_claimed() -> None:
    board = Board(1)
    assert board.may_be_at("r.1.0", ref(1))
    board.write(1, "message", "r.1.0")
    assert board.may_be_at("message", ref(1))
    board.write(1, "message", "r.0.0")
    assert not board.may_be_at("message", ref(1))
    board.write(1, "message", "r.0.0", ["r.1.0"])
    assert board.may_be_at("message", ref(1))
    board.write(1, "message", "r.0.0", claiming=["r"])
    assert board.may_be_at("message", ref(1))
    assert not board.may_be_at("message", ref(1, "other"))


def test_what_another_child_shows_is_with_others() -> None:
    board = Board(3)
    board.write(1, "gone", "r.0.0", ["r.1.0", "r.2.0", "r.3.0", "r.4.0", "other.5.0"])
    board.write(2, "r.1.0", "r.9.0", ["r.2.0"], ["other"])
    board.write(3, "m", "r.3.0")
    assert board.in_hand("gone") == ("r.1.0", "r.2.0", "r.3.0", "r.4.0", "other.5.0")
    assert [board.is_with_others("gone", ref(n)) for n in range(5)] == [False, True, True, True, False]
    assert board.is_with_others("gone", ref(5, "other"))
