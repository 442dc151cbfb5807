"""Children of a worker that was told to go are gone at once; others say so and wait, as Celery has it."""

import os
from typing import Any

import pytest
from celery.concurrency.prefork import TaskPool

from orchestra.runtime.prefork import quick_to_stop

WAITED = 7


class Queue:
    """Takes what a child tells its parent."""

    def put(self, _message: object) -> None: ...


def wait(_seconds: float) -> None:
    os._exit(WAITED)


@pytest.mark.parametrize(("leaving", "exit_code", "status"), [(True, 3, 3), (True, None, 0), (False, 0, WAITED)])
def test_a_child_waits_to_be_killed_only_where_somebody_listens(
    leaving: bool, exit_code: int | None, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool: Any = quick_to_stop(TaskPool, lambda: leaving)
    assert "prefork" in pool.__module__
    told, tell = os.pipe()
    child: Any = object.__new__(pool.Pool.Worker)

    def on_exit(_pid: int, _status: int) -> None:
        os.write(tell, b"on_exit")

    child.on_exit = on_exit
    child.outq = Queue()
    pid = os.fork()
    if not pid:
        monkeypatch.setattr("time.sleep", wait)
        child._do_exit(os.getpid(), exit_code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == status
    assert os.read(told, 100) == b"on_exit"
