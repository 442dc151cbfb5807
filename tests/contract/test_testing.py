"""What ``orchestra.testing`` ships: it is light to import, and its watchers see what is wrong."""

import subprocess
import sys
from typing import Any, cast

import pytest

import orchestra.testing
from orchestra.engine.outcome import Completed
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.store.contract import Claimed, Store
from orchestra.store.memory.store import MemoryStore
from orchestra.testing import BrokenRule, Clock, check_history, check_transitions
from tests.graphs import create


def test_importing_it_does_not_import_pytest() -> None:
    command = "import sys, orchestra.testing as t; t.Clock; assert 'pytest' not in sys.modules; t.StoreContract; "
    subprocess.run([sys.executable, "-c", command + "assert 'pytest' in sys.modules"], check=True)


def test_what_it_has_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        _ = cast(Any, orchestra.testing).nothing


def test_a_clock_stands_still_until_it_is_told() -> None:
    clock = Clock(5.0)
    assert (clock(), clock(), clock.advance(2.5), clock()) == (5.0, 5.0, 7.5, 7.5)


class Spoiled(MemoryStore):
    """A store with a defect: a record also does something else."""

    def __init__(self, spoil: Any) -> None:
        super().__init__()
        self._spoil = spoil

    def record(self, *args: Any) -> Any:
        recorded = super().record(*args)
        self._spoil(self)
        return recorded


def finish(store: Store, after: Any = ((), ())) -> None:
    """Complete the first step of a run, in a store that is watched."""
    watched = check_transitions(store)
    _run, messages = create(watched, after)
    claimed = watched.claim(messages[0], "w", 2.0)
    assert isinstance(claimed, Claimed)
    watched.record(claimed.claim, Completed("1"), 3.0)


def put(n: int, status: TaskStatus) -> Any:
    def spoil(store: MemoryStore) -> None:
        for run in store._tables.runs.values():
            run.steps[n].status = status

    return spoil


def test_a_healthy_store_passes() -> None:
    store = MemoryStore()
    finish(store)
    check_history(store)


def test_a_status_that_may_not_follow_is_seen() -> None:
    with pytest.raises(BrokenRule, match="QUEUED to COMPLETED"):
        finish(Spoiled(put(1, TaskStatus.COMPLETED)))


def test_a_run_that_nobody_can_get_on_with_is_seen() -> None:
    with pytest.raises(BrokenRule, match="nothing of it goes on"):
        finish(Spoiled(put(1, TaskStatus.SKIPPED)))


def test_a_step_that_outlives_its_run_is_seen() -> None:
    def spoil(store: MemoryStore) -> None:
        for run in store._tables.runs.values():
            run.status = WorkflowStatus.COMPLETED

    with pytest.raises(BrokenRule, match="while its steps are"):
        finish(Spoiled(spoil))


def test_a_step_that_is_gone_is_seen() -> None:
    def spoil(store: MemoryStore) -> None:
        for run in store._tables.runs.values():
            del run.steps[1]

    with pytest.raises(BrokenRule, match="is gone"):
        finish(Spoiled(spoil))


@pytest.mark.parametrize(("kind", "numbers"), [
    ("task.completed", [0]),
    ("task.started", [0]),
    ("task.queued", [1]),
    ("task.submitted", [7]),
    ("workflow.completed", []),
    ("workflow.started", []),
])  # fmt: skip
def test_an_event_that_does_not_belong_is_seen(kind: str, numbers: list[int]) -> None:
    store = MemoryStore()
    finish(store)
    run_id = next(iter(store._tables.runs))
    with store._transaction() as tx:
        tx.append(run_id, False, None, [(kind, numbers, {"at": 1.0, "worker": "w"})], 5.0)
    with pytest.raises(BrokenRule):
        check_history(store)


def test_an_event_that_is_missing_is_seen() -> None:
    store = MemoryStore()
    finish(store)
    next(iter(store._tables.runs.values())).events.pop()
    with pytest.raises(BrokenRule):
        check_history(store)
