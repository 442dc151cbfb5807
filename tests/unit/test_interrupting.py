"""Coroutines whose claims count no more are stopped, with one look for all of them."""

import threading
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from orchestra.model.ids import MessageRef, StepRef
from orchestra.runtime.interrupting import Interrupter
from orchestra.store.contract import ClaimRef
from tests.processes import wait_until


def claim(n: int) -> ClaimRef:
    return ClaimRef(MessageRef(StepRef("run", n), 0), 1)


def test_what_counts_no_more_is_stopped_once_and_one_look_serves_all() -> None:
    looks: list[int] = []
    stopped: list[int] = []

    def standing() -> list[ClaimRef]:
        looks.append(1)
        if len(looks) == 1:
            raise ConnectionError("whoever cannot ask lets them go on")
        return [claim(n) for n in range(500)]

    interrupter = Interrupter(standing)
    with ExitStack() as running:
        for n in range(1000):
            running.enter_context(interrupter.over(claim(n), lambda n=n: stopped.append(n)))
        entered = len(looks)
        wait_until(lambda: len(looks) >= entered + 4)
        assert sorted(stopped) == list(range(500, 1000))
    wait_until(lambda: not any(each.name == "orchestra-interrupter" for each in threading.enumerate()))
    with interrupter.over(claim(777), lambda: stopped.append(777)):
        wait_until(lambda: stopped.count(777) == 2)


def test_nothing_is_asked_for_coroutines_that_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    ended = threading.Event()
    monkeypatch.setattr("orchestra.runtime.interrupting.time", SimpleNamespace(sleep=lambda _seconds: ended.wait(30)))
    interrupter = Interrupter(lambda: looks.append(1) or [])
    for n in range(100):
        with interrupter.over(claim(n), lambda: None):
            pass
    ended.set()
    wait_until(lambda: not any(each.name == "orchestra-interrupter" for each in threading.enumerate()))
    assert looks == []
