"""TaskResultsContract: everything that ``orchestra.store.task_results`` promises."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestra.store.task_results import CLAIM_S, LAST, ChordClaim, ChordPart, TaskResult, TaskResults

NOW = time.time()
"""Redis drops by its own clock what has expired, so these tests live in the present."""
_LATER = NOW + 3600


def result(task_id: str = "t", state: str = "SUCCESS", payload: bytes = b"{}") -> TaskResult:
    """Return a result."""
    return TaskResult(task_id, state, payload, _LATER)


def part(n: int, *, group_id: str = "g", place: int | None = None, payload: bytes | None = None) -> ChordPart:
    """Return the part of a chord that is task n, in the place n."""
    where = n if place is None else place
    return ChordPart(group_id, f"t{n}", where, b"p%d" % n if payload is None else payload, b"callback", _LATER)


class TaskResultsContract:
    """A subclass gives a ``results`` fixture: an empty store of results."""

    @pytest.fixture
    def results(self) -> Iterator[TaskResults]:
        """An empty store, closed afterwards."""
        raise NotImplementedError("give a results fixture")

    # --- results and groups --------------------------------------------------------------------------------------

    def test_a_result_is_read_back_byte_for_byte(self, results: TaskResults) -> None:
        payload = bytes(range(256)) * 300
        results.record(result(payload=payload), None, NOW)
        assert results.results(["t", "unknown"], NOW) == {"t": payload}

    def test_any_number_of_results_is_read_at_once(self, results: TaskResults) -> None:
        for n in range(20):
            results.record(result(f"t{n}", payload=b"%d" % n), None, NOW)
        asked = [f"t{n}" for n in range(700)]
        assert results.results(asked, NOW) == {f"t{n}": b"%d" % n for n in range(20)}
        assert results.results([], NOW) == {}

    def test_a_success_stays_and_any_other_state_gives_way(self, results: TaskResults) -> None:
        for state in ("STARTED", "RETRY", "FAILURE", "STARTED", "SUCCESS"):
            results.record(result(state=state, payload=state.encode()), None, NOW)
            assert results.results(["t"], NOW) == {"t": state.encode()}
        for state in ("FAILURE", "REVOKED", "STARTED"):
            results.record(result(state=state, payload=state.encode()), None, NOW)
        results.record(result(payload=b"another"), None, NOW)
        assert results.results(["t"], NOW) == {"t": b"SUCCESS"}

    def test_what_is_forgotten_is_gone_and_may_come_again(self, results: TaskResults) -> None:
        results.record(result(payload=b"one"), None, NOW)
        results.forget("t")
        results.forget("t")
        assert results.results(["t"], NOW) == {}
        results.record(result(payload=b"two"), None, NOW)
        assert results.results(["t"], NOW) == {"t": b"two"}

    def test_what_has_expired_is_not_there(self, results: TaskResults) -> None:
        results.record(TaskResult("old", "SUCCESS", b"1", NOW - 1), None, NOW - 2)
        results.record(TaskResult("new", "SUCCESS", b"2", _LATER), None, NOW)
        results.record(TaskResult("kept", "SUCCESS", b"3", None), None, NOW)
        results.save_group("old", b"1", NOW - 1)
        assert results.results(["old", "new", "kept"], NOW) == {"new": b"2", "kept": b"3"}
        assert results.group("old", NOW) is None
        if not results.expires_by_itself:
            results.size_chord("old", 2, NOW - 1)
            assert [results.expire(NOW, 10), results.expire(NOW, 10)] == [3, 0]
        results.record(TaskResult("old", "FAILURE", b"again", _LATER), None, NOW)
        assert results.results(["old"], NOW) == {"old": b"again"}

    def test_a_group_is_kept_replaced_and_deleted(self, results: TaskResults) -> None:
        results.save_group("g", b"one", _LATER)
        results.save_group("g", b"\xff\x00two", None)
        assert results.group("g", NOW) == b"\xff\x00two"
        results.forget_group("g")
        assert results.group("g", NOW) is None

    # --- chords --------------------------------------------------------------------------------------------------

    def test_the_last_part_gets_the_claim_and_what_to_publish(self, results: TaskResults) -> None:
        results.begin_chord("g", b"header", _LATER)
        results.size_chord("g", 3, _LATER)
        assert results.record(result("t2"), part(2), NOW) is None
        assert results.record(result("t0"), part(0), NOW) is None
        claim = results.record(result("t1"), part(1), NOW)
        assert claim is not None
        complete = results.complete_chord(claim)
        assert complete is not None
        assert (complete.callback, complete.header, complete.parts) == (b"callback", b"header", [b"p0", b"p1", b"p2"])
        assert set(results.results(["t0", "t1", "t2"], NOW)) == {"t0", "t1", "t2"}

    def test_a_part_that_comes_twice_counts_once_and_keeps_its_first_value(self, results: TaskResults) -> None:
        results.size_chord("g", 2, _LATER)
        assert results.record(None, part(0, payload=b"first"), NOW) is None
        assert results.record(None, part(0, payload=b"second"), NOW) is None
        claim = results.record(None, part(1), NOW)
        assert claim is not None
        complete = results.complete_chord(claim)
        assert complete is not None
        assert complete.parts == [b"first", b"p1"]

    def test_the_same_task_in_two_places_counts_twice(self, results: TaskResults) -> None:
        results.size_chord("g", 2, _LATER)
        assert results.record(None, part(0, place=0), NOW) is None
        assert results.record(None, part(0, place=1), NOW) is not None

    def test_parts_without_a_place_come_last(self, results: TaskResults) -> None:
        results.size_chord("g", 3, _LATER)
        results.record(None, part(0, place=LAST), NOW)
        results.record(None, part(300), NOW)
        claim = results.record(None, part(2), NOW)
        assert claim is not None
        complete = results.complete_chord(claim)
        assert complete is not None
        assert complete.parts == [b"p2", b"p300", b"p0"]

    def test_parts_may_come_before_anything_is_known_of_their_chord(self, results: TaskResults) -> None:
        assert results.record(None, part(0), NOW) is None
        results.size_chord("g", 2, _LATER)
        assert results.record(None, part(1), NOW) is not None

    def test_a_chord_that_grows_waits_for_more(self, results: TaskResults) -> None:
        results.size_chord("g", 2, _LATER)
        results.record(None, part(0), NOW)
        results.grow_chord("g", _LATER)
        assert results.record(None, part(1), NOW) is None
        assert results.record(None, part(2), NOW) is not None

    def test_a_chord_that_is_done_takes_no_late_copy_and_may_begin_anew(self, results: TaskResults) -> None:
        for begin in (False, True, False):
            if begin:
                results.begin_chord("g", None, _LATER)
            results.size_chord("g", 2, _LATER)
            assert results.record(None, part(0), NOW) is None
            claim = results.record(None, part(1), NOW)
            assert claim is not None
            assert results.end_chord(claim, NOW)
            assert results.record(None, part(1), NOW) is None
            assert results.complete_chord(claim) is None
            assert results.overdue(NOW + 2 * CLAIM_S, 10) == []

    def test_parts_of_a_chord_that_is_sent_again_are_counted_from_nothing(self, results: TaskResults) -> None:
        results.begin_chord("g", None, _LATER)
        results.record(None, part(0, payload=b"old"), NOW)
        results.begin_chord("g", None, _LATER)
        results.size_chord("g", 2, _LATER)
        assert results.record(None, part(1), NOW) is None
        claim = results.record(None, part(0, payload=b"new"), NOW)
        assert claim is not None
        complete = results.complete_chord(claim)
        assert complete is not None
        assert complete.parts == [b"new", b"p1"]

    def test_a_callback_that_nobody_published_is_found_when_its_claim_has_run_out(self, results: TaskResults) -> None:
        claim = _completed(results, "g", NOW)
        assert results.overdue(NOW + CLAIM_S - 1, 10) == []
        assert results.renew(claim, NOW + CLAIM_S - 1)
        assert results.overdue(NOW + CLAIM_S + 1, 10) == []
        (taken,) = results.overdue(NOW + 2 * CLAIM_S, 10)
        assert taken.group_id == "g"
        assert taken.number > claim.number
        assert (results.renew(claim, NOW), results.end_chord(claim, NOW), results.complete_chord(claim)) == (
            False,
            False,
            None,
        )
        complete = results.complete_chord(taken)
        assert complete is not None
        assert complete.parts == [b"p0"]
        assert results.end_chord(taken, NOW)
        assert results.overdue(NOW + 100 * CLAIM_S, 10) == []

    def test_of_many_that_are_overdue_the_oldest_are_taken_first(self, results: TaskResults) -> None:
        for n in (2, 0, 1):
            _completed(results, f"g{n}", NOW + n)
        late = NOW + 10 * CLAIM_S
        assert [[each.group_id for each in results.overdue(late, 2)] for _ in range(2)] == [["g0", "g1"], ["g2"]]

    def test_eight_threads_complete_a_chord_of_50_parts_once(self, results: TaskResults) -> None:
        results.begin_chord("g", None, _LATER)
        results.size_chord("g", 50, _LATER)

        def send(n: int) -> ChordClaim | None:
            return results.record(result(f"t{n % 50}"), part(n % 50), NOW)

        with ThreadPoolExecutor(8) as threads:
            claims = [each for each in threads.map(send, range(100)) if each is not None]
        assert len(claims) == 1
        complete = results.complete_chord(claims[0])
        assert complete is not None
        assert complete.parts == [b"p%d" % n for n in range(50)]

    # --- hearing -------------------------------------------------------------------------------------------------

    def test_who_waits_hears_of_a_change(self, results: TaskResults) -> None:
        heard = threading.Event()

        def changed(task_id: str | None, payload: bytes | None = None) -> None:
            if payload == b"{}" or (payload is None and results.results(["t"], NOW)):
                heard.set()

        ears = results.listen(changed)
        ears.add("t")
        results.record(result("other"), None, NOW)
        results.record(result("t"), None, NOW)
        assert heard.wait(30)
        ears.close()

    def test_a_change_from_before_is_heard_of_or_can_be_read_at_once(self, results: TaskResults) -> None:
        told = threading.Event()

        def changed(task_id: str | None, payload: bytes | None = None) -> None:
            told.set()

        ears = results.listen(changed)
        results.record(result("t"), None, NOW)
        ears.add("t")
        assert told.wait(30) or results.results(["t"], NOW)
        ears.close()

    def test_who_waits_for_one_again_hears_of_it_again(self, results: TaskResults) -> None:
        heard: list[bytes | None] = []
        there = threading.Event()

        def changed(task_id: str | None, payload: bytes | None = None) -> None:
            heard.append(payload or results.results(["t"], NOW).get("t"))
            if b"second" in heard:
                there.set()

        ears = results.listen(changed)
        ears.add("t")
        results.record(result(state="STARTED", payload=b"first"), None, NOW)
        ears.discard("t")
        ears.add("t")
        results.record(result(payload=b"second"), None, NOW)
        assert there.wait(30)
        ears.close()


def _completed(results: TaskResults, group_id: str, now: float) -> ChordClaim:
    results.size_chord(group_id, 1, _LATER)
    claim = results.record(None, part(0, group_id=group_id), now)
    assert claim is not None
    return claim


__all__ = ["TaskResultsContract"]
