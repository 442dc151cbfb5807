"""Cursors: how far named subscribers have read."""

from orchestra.testing.contract.claiming import at_once
from orchestra.testing.contract.desk import Desk


class Subscribing:
    """``take_cursor``, ``move_cursor``, ``drop_cursor``."""

    def test_a_name_that_is_new_begins_where_it_is_told_and_later_where_it_was(self, desk: Desk) -> None:
        store, now = desk.store, desk.clock()
        assert store.take_cursor("pager", "a", 7, now, now + 5) == (7, "a")
        assert store.move_cursor("pager", "a", 9, now + 5)
        assert store.take_cursor("pager", "a", 0, now, now + 5) == (9, "a")
        assert store.take_cursor("other", "b", 3, now, now + 5) == (3, "b")

    def test_one_process_at_a_time_reads_under_a_name(self, desk: Desk) -> None:
        store, now = desk.store, desk.clock()
        store.take_cursor("pager", "a", 7, now, now + 5)
        assert store.take_cursor("pager", "b", 0, now + 4, now + 9) == (7, "a")
        assert not store.move_cursor("pager", "b", 8, now + 9)
        assert store.take_cursor("pager", "b", 0, now + 5, now + 9) == (7, "b")
        assert not store.move_cursor("pager", "a", 8, now + 9)
        assert store.take_cursor("pager", "a", 0, now + 6, now + 9) == (7, "b")

    def test_one_that_is_known_to_be_gone_is_replaced_at_once(self, desk: Desk) -> None:
        store, now = desk.store, desk.clock()
        store.take_cursor("pager", "a", 7, now, now + 5)
        assert store.take_cursor("pager", "b", 0, now, now + 5, instead_of="c") == (7, "a")
        assert store.take_cursor("pager", "b", 0, now, now + 5, instead_of="a") == (7, "b")

    def test_a_cursor_that_was_given_back_is_free(self, desk: Desk) -> None:
        store, now = desk.store, desk.clock()
        store.take_cursor("pager", "a", 7, now, now + 5)
        assert store.move_cursor("pager", "a", 8, 0.0)
        assert store.take_cursor("pager", "b", 0, now, now + 5) == (8, "b")

    def test_a_name_that_was_forgotten_begins_anew(self, desk: Desk) -> None:
        store, now = desk.store, desk.clock()
        assert not store.drop_cursor("pager")
        store.take_cursor("pager", "a", 7, now, now + 5)
        assert store.drop_cursor("pager")
        assert not store.move_cursor("pager", "a", 8, now + 5)
        assert store.take_cursor("pager", "b", 1, now, now + 5) == (1, "b")

    def test_of_many_that_want_a_new_name_one_gets_it(self, desk: Desk) -> None:
        holders: list[str] = []
        now = desk.clock()
        at_once(6, lambda at: holders.append(desk.store.take_cursor("pager", f"h{at}", 0, now, now + 5).holder))
        assert len(holders) == 6
        assert len(set(holders)) == 1
