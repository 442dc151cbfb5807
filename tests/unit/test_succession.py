"""What follows on a slot of threads is claimed with the record before, decided without a worker; the store is real."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from orchestra.model.ids import MessageRef, StepRef
from orchestra.model.status import TaskStatus
from orchestra.runtime.adapter import Adapter
from orchestra.runtime.cycle import Cycle
from orchestra.runtime.quarantine import Room
from orchestra.runtime.registry import Registry
from orchestra.runtime.succession import Fetched, Succession
from orchestra.store.contract import Claimed, ClaimRef, Dispatch, Refused
from orchestra.store.memory.store import MemoryStore
from orchestra.testing.clock import Clock
from orchestra.testing.contract.desk import Desk, graph
from tests.recording import Recording


class Request:
    """A message as Celery's hooks get it."""

    chain = callbacks = None

    def __init__(self, ref: MessageRef) -> None:
        self.id = ref.celery_id


class Worker:
    """A worker with its queue: it hands what is delivered to whoever asks for it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = Recording(MemoryStore())
        self.desk = Desk(self.store, self.clock)  # pyright: ignore[reportArgumentType]
        self.cycle = Cycle(self.store, self, self.clock, "w1")  # pyright: ignore[reportArgumentType]
        self.room = Room()
        self.adapter = Adapter(
            self.cycle, Registry(modules=(), travels=True), monotonic=self.clock, sleep=self.wait,
            enter=self.room.enter, leave=self.room.leave, is_wanted=self.room.is_wanted,
        )  # fmt: skip
        self.adapter.is_coming = lambda ref: ref in self.delivered
        self.cycle.going_on = Succession(self.adapter, self)
        self.queue: list[MessageRef] = []
        self.sent: list[MessageRef] = []
        self.delivered: list[MessageRef] = []
        self.opened, self.connected, self.fetches, self.leaves_at_wait = True, True, 0, False

    def wait(self, _seconds: float) -> None:
        if self.leaves_at_wait:
            self.adapter.leaving = lambda: True

    def publish(self, dispatches: Sequence[Dispatch], following: Sequence[object] = ()) -> None:
        self.sent += [each.ref for each in dispatches]

    # --- its post -----------------------------------------------------------------------------------------------

    def is_open(self) -> bool:
        return self.opened

    def fetch(self, after: str) -> Fetched | None:
        assert after == "q"
        self.fetches += 1
        return Fetched("q", "key", {}, self.queue.pop(0)) if self.queue else None

    def put_back(self, fetched: Fetched) -> None:
        self.queue.insert(0, fetched.ref)

    def deliver(self, fetched: Fetched) -> None:
        if not self.connected:
            raise ConnectionError
        self.delivered.append(fetched.ref)

    def written(self, dispatch: Dispatch, following: Sequence[object]) -> Fetched:
        return Fetched("q", "", {}, dispatch.ref)

    # --- what its slots do --------------------------------------------------------------------------------------

    def begin(self, ref: MessageRef) -> Request:
        request = Request(ref)
        answer = self.adapter.begin(request)
        assert isinstance(answer, Claimed)
        self.store.calls.clear()
        return request

    def end(self, request: Request, output: object = None) -> None:
        self.adapter.done(request, output)

    def status(self, ref: MessageRef) -> TaskStatus:
        return self.desk.step(ref.step.run_id, ref.step.n).status


def refs(run_id: str, *numbers: int) -> list[MessageRef]:
    return [MessageRef(StepRef(run_id, n), 0) for n in numbers]


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_a_message_that_waits_is_claimed_with_the_record(worker: Worker) -> None:
    one, other, third = refs(worker.desk.create(graph([], [], [])), 0, 1, 2)
    worker.queue = [other, third]
    request = worker.begin(one)
    worker.end(request)
    assert worker.store.calls == [("together", 2)]
    assert (worker.delivered, worker.queue) == ([other], [third])
    assert (worker.status(one), worker.status(other)) == (TaskStatus.COMPLETED, TaskStatus.RUNNING)
    worker.begin(other)
    assert [each.ref for each in worker.adapter.held] == [other]


def test_to_begin_what_was_claimed_asks_the_store_for_nothing(worker: Worker) -> None:
    one, other = refs(worker.desk.create(graph([], [])), 0, 1)
    worker.queue = [other]
    worker.end(worker.begin(one))
    worker.store.calls.clear()
    assert isinstance(worker.adapter.begin(Request(other)), Claimed)
    assert not worker.store.calls


def test_where_no_message_waits_what_the_record_hands_on_is_claimed(worker: Worker) -> None:
    run_id = worker.desk.create(graph([], [0], [0], **{f"s{n}": {"agent": "same"} for n in range(3)}))
    first, second, third = refs(run_id, 0, 1, 2)
    worker.end(worker.begin(first))
    assert worker.store.calls == [("record", 1)]
    assert (worker.delivered, worker.sent) == ([second], [third])
    assert (worker.status(second), worker.status(third)) == (TaskStatus.RUNNING, TaskStatus.QUEUED)


def test_nothing_is_claimed_that_was_not_called_here(worker: Worker) -> None:
    first, second = refs(worker.desk.create(graph([], [0])), 0, 1)
    worker.end(worker.begin(first))
    assert (worker.delivered, worker.sent) == ([], [second])


@pytest.mark.parametrize("why", ["leaving", "closed post", "large", "failed", "suspect"])
def test_some_are_recorded_alone(worker: Worker, why: str) -> None:
    one, other = refs(worker.desk.create(graph([], [])), 0, 1)
    worker.queue = [other]
    request = worker.begin(one)
    worker.adapter.leaving = lambda: why == "leaving"
    worker.opened = why != "closed post"
    if why == "suspect":
        worker.room._suspects = 1
    if why == "failed":
        worker.adapter.failed(request, ValueError("no"))
    else:
        worker.end(request, "x" * 20_000 if why == "large" else None)
    assert worker.store.calls == [("record", 1)]
    assert (worker.fetches, worker.delivered, worker.queue) == (0, [], [other])


def test_while_the_store_is_away_one_message_waits_with_the_record(worker: Worker) -> None:
    one, other, third = refs(worker.desk.create(graph([], [], [])), 0, 1, 2)
    worker.queue = [other, third]
    request = worker.begin(one)
    worker.store.away = 2
    worker.end(request)
    assert (worker.fetches, worker.delivered, worker.queue) == (1, [other], [third])


def test_it_is_put_back_when_the_worker_is_told_to_go_meanwhile(worker: Worker) -> None:
    one, other = refs(worker.desk.create(graph([], [])), 0, 1)
    worker.queue = [other]
    request = worker.begin(one)
    worker.store.away, worker.leaves_at_wait = 1, True
    worker.end(request)
    assert (worker.delivered, worker.queue, worker.status(one)) == ([], [other], TaskStatus.COMPLETED)


def test_a_double_is_refused_and_nothing_follows(worker: Worker) -> None:
    (one,) = refs(worker.desk.create(graph([])), 0)
    worker.queue = [one]
    worker.end(worker.begin(one))
    assert worker.status(one) is TaskStatus.COMPLETED
    assert not worker.delivered


def test_what_cannot_be_delivered_is_given_back(worker: Worker) -> None:
    one, other = refs(worker.desk.create(graph([], [])), 0, 1)
    worker.queue = [other]
    request = worker.begin(one)
    worker.connected = False
    worker.end(request)
    assert worker.status(other) is TaskStatus.QUEUED
    assert worker.sent == [other]
    record = worker.desk.step(other.step.run_id, other.step.n)
    assert (record.crashes, worker.adapter.busy()) == (0, 0)


def test_the_worker_knows_of_what_follows_until_it_begins(worker: Worker) -> None:
    one, other = refs(worker.desk.create(graph([], [])), 0, 1)
    worker.queue = [other]
    worker.end(worker.begin(one))
    (claim,) = worker.store.held("w1")
    assert worker.adapter.holds(claim)
    worker.delivered.clear()  # Celery has lost it
    assert not worker.adapter.holds(claim)


def test_the_worker_knows_of_what_is_being_claimed(worker: Worker) -> None:
    run_id = worker.desk.create(graph([], []))
    one, other = refs(run_id, 0, 1)
    request = worker.begin(one)
    known: list[bool] = []
    together = worker.store._store.together

    def look(*args: Any) -> Any:
        answer = together(*args)
        known.extend(worker.adapter.holds(claim) for claim in worker.store.held("w1"))
        return answer

    worker.store._store.together = look  # type: ignore[method-assign]
    worker.queue = [other]
    worker.end(request)
    assert known == [True]
    assert not worker.adapter._expected


def test_the_worker_knows_of_what_is_shared_by_records_that_are_made_together(worker: Worker) -> None:
    same = {f"s{n}": {"agent": "same"} for n in range(2)}
    slow, quick = (refs(worker.desk.create(graph([], [0], **same)), 0, 1) for _ in range(2))
    first, second = worker.begin(slow[0]), worker.begin(quick[0])
    record = worker.store._store.record
    shared: list[Any] = []
    known: list[bool] = []

    def share(claim: ClaimRef, *args: Any) -> Any:
        answer = record(claim, *args)
        assert answer is not None
        if claim.ref == quick[0]:  # what it hands on goes to the other thread, which is slow to hear of it
            shared.extend(answer.onward)
            return replace(answer, onward=())
        worker.end(second)
        known.extend(worker.adapter.holds(claim) for claim in worker.store.held("w1"))
        return replace(answer, onward=(*answer.onward, *shared))

    worker.store._store.record = share  # type: ignore[method-assign]
    worker.end(first)
    assert known == [True, True]
    assert worker.delivered == [slow[1], quick[1]]
    assert not worker.adapter._expected


def test_a_suspect_sends_away_what_has_not_begun(worker: Worker) -> None:
    one, other, suspect = refs(worker.desk.create(graph([], [], [])), 0, 1, 2)
    for _ in range(2):
        answer = worker.cycle.claim(suspect)
        assert isinstance(answer, Claimed)
        worker.cycle.vanish(answer.claim, "it crashed")
    worker.queue = [other]
    worker.end(worker.begin(one))
    assert worker.status(other) is TaskStatus.RUNNING
    running = worker.begin(suspect)
    assert worker.status(other) is TaskStatus.QUEUED
    worker.end(running)
    worker.begin(other)
    assert worker.desk.step(other.step.run_id, other.step.n).crashes == 0


def test_a_step_that_was_cancelled_meanwhile_is_forgotten(worker: Worker) -> None:
    one, other = refs(worker.desk.create(graph([], [])), 0, 1)
    worker.queue = [other]
    worker.end(worker.begin(one))
    worker.adapter.revoked(Request(other))
    assert worker.status(other) is TaskStatus.CANCELLED
    assert isinstance(worker.adapter.begin(Request(other)), Refused)
