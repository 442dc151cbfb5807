"""The window of a queue follows the slots of the workers that are alive and serve it, on every store."""

from collections.abc import Iterator, Sequence

import pytest

from orchestra.engine.outcome import Completed
from orchestra.store.contract import WINDOW, Claimed, Lease, Store
from orchestra.store.window import READ_EVERY_S, LiveWindow, windows
from orchestra.testing import Clock
from orchestra.testing.contract.desk import Desk, graph, must
from tests.graphs import create
from tests.stores import KINDS, open_url, store_url


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    store = open_url(store_url(request.param, request), window=3)
    yield store
    store.close()


def lease(name: str = "w", *, slots: int = 5, queues: Sequence[str] = ("q",), expires_at: float = 1000.0) -> Lease:
    return Lease(name, name, "h", "b", 1, 1.0, queues, slots, 0.0, expires_at)


def test_a_queue_without_workers_has_the_floor(store: Store) -> None:
    _run, messages = create(store, [[]] * 30)
    assert len(messages) == 3


def test_each_live_slot_adds_four_steps_to_the_window_of_its_queues(store: Store) -> None:
    store.renew(lease("one", slots=2, queues=("other", "q")))
    store.renew(lease("two", slots=1))
    _run, messages = create(store, [[]] * 30)
    assert len(messages) == 12
    _run, others = create(store, [[]] * 30, queue="other")
    assert len(others) == 8
    _run, unserved = create(store, [[]] * 30, queue="nobody's")
    assert len(unserved) == 3


def test_an_expired_lease_adds_nothing(store: Store) -> None:
    store.renew(lease(expires_at=0.5))
    assert len(create(store, [[]] * 30)[1]) == 3


def test_a_worker_that_has_just_started_is_counted_within_two_seconds(store: Store) -> None:
    create(store, [[]] * 30)
    store.renew(lease())
    assert store.refill(["q"], 1.0 + READ_EVERY_S / 2) == []
    assert len(store.refill(["q"], 1.0 + READ_EVERY_S)) == 17


def test_a_run_that_may_not_fit_sees_a_worker_that_has_just_started(store: Store) -> None:
    create(store, [[]])
    store.renew(lease())
    _run, few = create(store, [[]] * 3, now=1.5)
    _run, many = create(store, [[]] * 30, now=1.5)
    assert (len(few), len(many)) == (2, 17)


def test_a_worker_that_is_gone_lets_the_window_shrink_one_by_one(store: Store) -> None:
    store.renew(lease(slots=1))
    _run, messages = create(store, [[]] * 30)
    assert len(messages) == 4
    store.release_lease("w")
    released: list[int] = []
    for message in messages:
        claimed = store.claim(message, "w", 5.0)
        assert isinstance(claimed, Claimed)
        recorded = store.record(claimed.claim, Completed("null"), 5.0)
        assert recorded is not None
        released.append(len(recorded.dispatches))
    assert released == [0, 1, 1, 1]


@pytest.fixture
def desk(postgres_store_url: str) -> Iterator[Desk]:
    store = open_url(postgres_store_url)
    yield Desk(store, Clock())
    store.close()


def test_a_completion_sends_two_at_most_unless_more_than_an_eighth_of_the_window_is_free(desk: Desk) -> None:
    run = desk.create(graph(*(() for _ in range(WINDOW + 30))))
    room = WINDOW // 8 + 2
    claims = [desk.claim(run, n) for n in range(room)]
    assert [len(must(desk.record(each, Completed("1"))).dispatches) for each in claims[:2]] == [2, 2]
    claims += [desk.claim(run, n) for n in range(room, room + 5)]
    assert len(must(desk.record(claims[2], Completed("1"))).dispatches) == room + 1
    assert desk.store.refill(["q"], desk.clock()) == []


def test_room_that_the_best_that_waits_does_not_need_is_for_those_of_the_next_priority(desk: Desk) -> None:
    full = desk.create(graph(*(() for _ in range(WINDOW))))
    for priority in (7, 6, 7, 7):
        desk.create(graph([]), priority=priority)
    claims = [desk.claim(full, n) for n in range(3)]
    assert [each.priority for each in must(desk.record(claims[0], Completed("1"))).dispatches] == [6, 7, 7]


def test_leases_are_read_every_two_seconds_however_often_the_window_is_asked_for() -> None:
    reads: list[float] = []
    window = LiveWindow(lambda: reads.append(0) or [], 3)
    for at in (10.0, 10.5, 11.9, 12.0, 13.0, 14.1):
        window.at(at)
    assert len(reads) == 3
    window.at(9.0)  # the clock was set back
    assert len(reads) == 4


def test_scripts_are_told_the_windows_as_text() -> None:
    assert windows([], 64).text == "64"
    assert windows([lease(slots=16)], 64).text == "64"
    assert windows([lease(slots=17)], 64).text == '64 {"q": 68}'
    assert windows([lease(slots=16)], 64, 1.0).text == '64 {"q": 17}'


@pytest.mark.parametrize(
    ("slots", "body_s", "size"),
    [(2, 0.0, 64), (2, 0.0015, 64), (2, 0.01, 12), (2, 10.0, 3), (16, 0.016, 64), (16, 0.1, 24), (16, 1.0, 17)],
)
def test_of_long_bodies_one_is_sent_for_each_slot_and_what_lasts_a_twentieth_of_a_second(
    slots: int, body_s: float, size: int
) -> None:
    assert windows([lease(slots=slots)], 64, body_s)("q") == size
    assert windows([lease(slots=slots)], 1, body_s)("q") == min(size, 4 * slots)


def test_who_has_seen_long_bodies_lets_the_window_shrink_and_short_ones_let_it_grow(store: Store) -> None:
    store.renew(lease(slots=3))
    _run, messages = create(store, [[]] * 40)
    assert len(messages) == 12
    released: list[int] = []

    def complete(seconds: float) -> None:
        claimed = store.claim(messages.pop(0), "w", 5.0)
        assert isinstance(claimed, Claimed)
        store.note_body(seconds)
        dispatches = must(store.record(claimed.claim, Completed("null"), 5.0)).dispatches
        released.append(len(dispatches))
        messages.extend(each.ref for each in dispatches)

    for _ in range(10):
        complete(30.0)
    assert released == [0, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    assert len(messages) == 4
    for _ in range(80):
        store.note_body(0.001)
    complete(0.001)
    assert len(messages) in (11, 12)  # one may be left to the records after it


def test_windows_are_made_anew_when_bodies_take_another_time_and_not_for_each_body() -> None:
    window = LiveWindow(lambda: [lease(slots=16)], 64)
    assert window.at(10.0)("q") == 64
    window.note(1.0)
    known = window.at(10.1)
    assert known("q") == 17
    for seconds in (0.9, 1.1, 1.3):
        window.note(seconds)
    assert window.at(10.1) is known
    for _ in range(60):
        window.note(0.01)
    assert window.at(10.1)("q") == 64
