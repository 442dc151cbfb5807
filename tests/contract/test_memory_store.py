"""The memory store: what an error cut short is taken back, and it is for embedded orchestrators alone."""

from collections.abc import Callable
from typing import Any

import pytest

from orchestra import Orchestrator
from orchestra.errors import KeyConflict, SettingsError
from orchestra.model.ids import new_id
from orchestra.store.contract import NewRun
from orchestra.store.memory.store import MemoryStore
from orchestra.store.memory.tables import Join, Run, Step, Tables
from orchestra.store.memory.transaction import MemoryTransaction
from tests.graphs import planned
from tests.loop import Loop
from tests.shapes import random_graph


class Cut(Exception):
    """The transaction is cut short here."""


def snapshot(store: MemoryStore) -> object:
    """Return everything that can be seen of a store, and every index that its questions are answered from."""
    tables: Tables = store._tables
    waiting = {
        (name, priority): [step.ref for step in sorted_waiting(tables, name, priority)]
        for name, queue in tables.queues.items()
        for priority, length in queue.lengths.items()
        if length
    }
    return {
        "runs": {run_id: fields_of(run) for run_id, run in tables.runs.items()},
        "steps": {step.ref: fields_of(step) for run in tables.runs.values() for step in run.steps.values()},
        "joins": {
            (run.new.id, n): fields_of(join) for run in tables.runs.values() for n, join in run.joins.items()
        },
        "age": [run.new.id for run in tables.by_age],
        "keys": {key: [step.ref for step in steps] for key, steps in tables.by_step_key.items() if steps},
        "run keys": sorted(tables.run_of_key),
        "waiting": waiting,
        "sent": {
            (name, priority): {step.ref for step in steps}
            for name, queue in tables.queues.items()
            for priority, steps in queue.sent.items()
            if steps
        },
        "running": {worker: {step.ref for step in steps} for worker, steps in tables.running.items()},
        "next due": getattr(tables.next_due(), "ref", None),
        "events": [list(row[:5]) for row in tables.events],
    }  # fmt: skip


def sorted_waiting(tables: Tables, queue: str, priority: int) -> list[Step]:
    """Return what waits, best first; as a heap gives it, less what is left over in it."""
    found = dict.fromkeys(place[-1] for place in sorted(tables.queues[queue].waiting[priority]))
    return [step for step in found if step.status == "QUEUED" and step.sent_at is None]


def fields_of(thing: Step | Run | Join) -> dict[str, object]:
    names = [name for name in thing.__slots__ if name not in ("run", "steps", "joins", "place", "new", "row")]
    return {name: plain(getattr(thing, name)) for name in names}


def plain(value: Any) -> object:
    match value:
        case dict():
            found = {key: plain(each) for key, each in value.items()}
            return {key: each for key, each in found.items() if each != []}
        case list():
            return [plain(each) for each in value]
        case set():
            return set(value)
        case Step():
            return value.ref
        case _:
            return value


class Fragile(MemoryStore):
    """Cuts each transaction short once before it goes through, and compares."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(window=3)
        self.cuts = 0
        append = MemoryTransaction.append
        cutting: list[bool] = []

        def cut(tx: MemoryTransaction, *args: Any) -> None:
            append(tx, *args)
            if cutting:
                raise Cut

        monkeypatch.setattr(MemoryTransaction, "append", cut)

        def fragile(method: Callable[..., object]) -> Callable[..., object]:
            def twice(*args: object) -> object:
                before = snapshot(self)
                cutting.append(True)
                try:
                    method(*args)
                except Cut:
                    self.cuts += 1
                    assert snapshot(self) == before
                else:
                    return method(*args) if snapshot(self) == before else pytest.fail(f"{method} told nothing")
                finally:
                    cutting.clear()
                return method(*args)

            return twice

        for name in ("create_runs", "record", "vanish", "cancel"):
            monkeypatch.setattr(self, name, fragile(getattr(self, name)))


@pytest.mark.parametrize("seed", range(40))
def test_a_transaction_that_is_cut_short_leaves_nothing_behind(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Fragile(monkeypatch)
    loop = Loop(store, seed, mischief=0.1)
    run_id = loop.submit(random_graph(seed, size=20, on_failure="fail" if seed % 3 == 0 else None))
    loop.run(run_id=run_id, cancel_after=5 if seed % 5 == 0 else None)
    assert store.cuts > 0
    assert all(step.status.ended for step in store.steps(run_id))


def test_a_conflict_after_other_runs_of_the_call_leaves_none_of_them() -> None:
    store = MemoryStore()
    store.create_runs([NewRun(new_id(), "w", "w", planned([[]]), key="k", fingerprint="f")], 1.0)
    before = snapshot(store)
    with pytest.raises(KeyConflict):
        store.create_runs(
            [
                NewRun(new_id(), "w", "w", planned([[], [0], []])),
                NewRun(new_id(), "w", "w", planned([[]]), key="k", fingerprint="other"),
            ],
            2.0,
        )
    assert snapshot(store) == before


def test_an_event_that_is_no_json_is_refused_and_not_written() -> None:
    store = MemoryStore()
    with pytest.raises(TypeError):
        store.emit("custom.event", {"set": {1}}, 1.0)
    assert store.last_event() == 0


def test_what_was_emitted_is_out_of_reach_of_its_owner() -> None:
    store, data = MemoryStore(), {"list": [1]}
    store.emit("custom.event", data, 1.0)
    data["list"].append(2)
    assert store.events(0)[0][0].data == {"list": [1]}


def test_an_embedded_orchestrator_may_have_it() -> None:
    with Orchestrator(store="memory://") as orch:
        assert orch.parts.store.url == "memory://"
        assert orch.submit(len, "four").wait(30).output == 4


def test_processes_cannot_share_it() -> None:
    for broker in ("redis://localhost:1/0", "amqp://localhost:1"):
        with pytest.raises(SettingsError, match="share"):
            Orchestrator(broker=broker, store="memory://")
