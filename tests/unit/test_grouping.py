"""Grouping: who comes while a transaction is under way shares the next one."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from orchestra.engine.outcome import Completed
from orchestra.errors import StoreUnavailable
from orchestra.model.ids import MessageRef, StepRef
from orchestra.runtime.grouping import GroupingStore
from orchestra.store.contract import Claimed, Onward, Recorded, Refused, Store, ToClaim, ToRecord
from orchestra.store.memory.store import MemoryStore
from orchestra.testing.clock import Clock
from orchestra.testing.contract.desk import Desk, graph
from tests.processes import wait_until


class SlowStore(MemoryStore):
    """A store whose transactions take as long as the test wants, and that counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()
        self.began = threading.Event()
        self.sizes: list[int] = []
        self.error: Exception | None = None

    def claim(self, message: MessageRef, worker: str, now: float) -> Claimed | Refused:
        self._take(1)
        return super().claim(message, worker, now)

    def together(
        self, wanted: Sequence[ToClaim | ToRecord], onward: Onward | None = None
    ) -> list[Claimed | Refused | Recorded | None]:
        self._take(len(wanted))
        return super().together(wanted, onward)

    def _take(self, size: int) -> None:
        self.sizes.append(size)
        self.began.set()
        assert self.go_on.wait(30)
        if self.error is not None:
            raise self.error


@pytest.fixture
def store() -> SlowStore:
    return SlowStore()


@pytest.fixture
def grouping(store: SlowStore) -> Store:
    return GroupingStore.of(store)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(100) as pool:
        yield pool


def refs(store: SlowStore, count: int) -> list[MessageRef]:
    """Create a run of so many steps that are ready."""
    run_id = Desk(store, Clock()).create(graph(*(() for _ in range(count))))
    return [MessageRef(StepRef(run_id, n), 0) for n in range(count)]


def claim_all(
    store: SlowStore, grouping: Store, threads: ThreadPoolExecutor, wanted: Sequence[MessageRef]
) -> list[Future[Claimed | Refused]]:
    """Let one claim begin, then the others come, each on a thread."""
    first = threads.submit(grouping.claim, wanted[0], "w1", 1.0)
    assert store.began.wait(30)
    others = [threads.submit(grouping.claim, each, "w1", 1.0) for each in wanted[1:]]
    waiting = grouping._next
    wait_until(lambda: len(grouping._next) == len(others), 30, f"all to wait, not {len(waiting)}")
    store.go_on.set()
    return [first, *others]


def test_who_comes_meanwhile_shares_the_next_transaction(
    store: SlowStore, grouping: Store, threads: ThreadPoolExecutor
) -> None:
    wanted = refs(store, 90)
    found = [each.result(30) for each in claim_all(store, grouping, threads, wanted)]
    assert [each.claim.ref for each in found if isinstance(each, Claimed)] == wanted
    assert store.sizes == [1, 64, 25]


def test_who_is_alone_waits_for_nobody(store: SlowStore, grouping: Store) -> None:
    store.go_on.set()
    one, other = refs(store, 2)
    held = [grouping.claim(one, "w1", 1.0), grouping.claim(other, "w1", 1.0)]
    assert store.sizes == [1, 1]
    for each in held:
        assert isinstance(each, Claimed)
        assert grouping.record(each.claim, Completed("null"), 2.0) is not None
    assert store.sizes == [1, 1]


def test_a_store_that_is_away_is_away_for_all_of_a_group(
    store: SlowStore, grouping: Store, threads: ThreadPoolExecutor
) -> None:
    store.error = StoreUnavailable("memory://", "away")
    found = claim_all(store, grouping, threads, refs(store, 4))
    assert [type(each.exception(30)) for each in found] == [StoreUnavailable] * 4
    store.error = None
    assert isinstance(grouping.claim(refs(store, 1)[0], "w1", 1.0), Claimed)


def test_the_error_of_one_is_that_of_nobody_else(
    store: SlowStore, grouping: Store, threads: ThreadPoolExecutor
) -> None:
    wanted = refs(store, 3)
    broken = MessageRef(StepRef(wanted[0].step.run_id, [0]), 0)  # type: ignore[arg-type]
    first, bad, good = claim_all(store, grouping, threads, [wanted[0], broken, wanted[1]])
    assert isinstance(first.result(30), Claimed)
    assert isinstance(bad.exception(30), TypeError)
    assert isinstance(good.result(30), Claimed)
    assert store.sizes == [1, 2, 1, 1]


def test_who_records_and_claims_at_once_shares_as_well(
    store: SlowStore, grouping: Store, threads: ThreadPoolExecutor
) -> None:
    wanted = refs(store, 90)
    store.go_on.set()
    held = [claimed_of(grouping, each) for each in wanted[:40]]
    store.go_on.clear()
    store.began.clear()
    pairs = [
        [ToRecord(each.claim, Completed("null"), 2.0), ToClaim(following, "w1", 2.0)]
        for each, following in zip(held, wanted[40:], strict=False)
    ]
    found = [each.result(30) for each in together_all(store, grouping, threads, [(pair, None) for pair in pairs])]
    assert all(isinstance(recorded, Recorded) for recorded, _ in found)
    assert [each.claim.ref for _, each in found if isinstance(each, Claimed)] == wanted[40:80]
    assert store.sizes[40:] == [2, 64, 14]


def test_what_is_gone_on_with_is_shared_among_those_who_wish_for_it(
    store: SlowStore, grouping: Store, threads: ThreadPoolExecutor
) -> None:
    """The last of three records hands on two steps, and the others none."""
    run_id = Desk(store, Clock()).create(graph([], [], [], [0, 1], [0, 1]))
    store.go_on.set()
    held = [claimed_of(grouping, MessageRef(StepRef(run_id, n), 0)) for n in range(3)]
    store.go_on.clear()
    store.began.clear()
    wish = Onward("w1", held[0].row.queue, held[0].row.priority, frozenset(f"m:agent{n}" for n in range(5)))
    records = [ToRecord(held[at].claim, Completed("null"), 2.0) for at in (2, 0, 1)]
    found = [each.result(30) for each in together_all(store, grouping, threads, [([each], wish) for each in records])]
    onwards = [[claimed.claim.ref.step.n for _, claimed in recorded.onward] for (recorded,) in found]  # type: ignore[union-attr]
    assert sorted(onwards) == [[], [3], [4]]
    assert onwards[0] == []


def claimed_of(grouping: Store, ref: MessageRef) -> Claimed:
    answer = grouping.claim(ref, "w1", 1.0)
    assert isinstance(answer, Claimed)
    return answer


def together_all(
    store: SlowStore,
    grouping: Store,
    threads: ThreadPoolExecutor,
    wishes: Sequence[tuple[Sequence[ToClaim | ToRecord], Onward | None]],
) -> list[Future[list[Claimed | Refused | Recorded | None]]]:
    """Let one ask, then the others come, each on a thread."""
    first = threads.submit(grouping.together, *wishes[0])
    assert store.began.wait(30)
    others = [threads.submit(grouping.together, *each) for each in wishes[1:]]
    wait_until(lambda: len(grouping._next) == len(others), 30, "all to wait")  # type: ignore[attr-defined]
    store.go_on.set()
    return [first, *others]
