"""What every test's log is held against: a way through the transition table, and nothing else."""

import pytest

from orchestra.model.status import AGAIN, FOLLOWS
from orchestra.model.status import TaskStatus as S
from orchestra.store.memory.store import MemoryStore
from orchestra.testing import watched

SAYS = {
    "task.submitted": S.PENDING,
    "task.queued": S.QUEUED,
    "task.started": S.RUNNING,
    "task.retrying": S.RETRYING,
    "task.completed": S.COMPLETED,
    "task.failed": S.FAILED,
    "task.cancelled": S.CANCELLED,
    "task.skipped": S.SKIPPED,
}


def reachable(status: S) -> set[S]:
    found: set[S] = set()
    open_ = {status}
    while open_:
        found |= open_
        open_ = {new for old in open_ for new in FOLLOWS[old]} - found
    return found


def test_what_may_follow_in_a_log_is_what_the_transition_table_allows() -> None:
    for event, following in watched._NEXT.items():
        for new in following if event is not None else ():
            old = SAYS[event]
            assert SAYS[new] in reachable(old) or (new == "task.retrying" and old in AGAIN), (event, new)


def test_a_log_in_which_a_step_changes_as_none_may_is_refused() -> None:
    store = MemoryStore()
    store.emit("order.placed", {}, 1.0)
    assert watched.check_log(store) == 1
    store.emit("task.completed", {}, 2.0)
    with pytest.raises(watched.BrokenRule, match=r"task\.completed .* came after None"):
        watched.check_log(store)
