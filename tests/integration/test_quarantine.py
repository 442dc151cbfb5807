"""Quarantine: what took its worker down before runs alone in it."""

import fcntl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestra.model.ids import new_id
from orchestra.runtime.quarantine import SUSPECT_FROM, Quarantine, leave
from tests.processes import wait_until


@pytest.fixture
def quarantine() -> Iterator[Quarantine]:
    quarantine = Quarantine(new_id())
    yield quarantine
    quarantine.remove()


def entering(quarantine: Quarantine, crashes: int, places: list[int]) -> threading.Thread:
    thread = threading.Thread(target=lambda: places.append(quarantine.enter(crashes=crashes)), daemon=True)
    thread.start()
    return thread


def is_closed(gate: Path) -> bool:
    """Whether somebody keeps others from a gate."""
    with gate.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_ordinary_bodies_run_beside_each_other(quarantine: Quarantine) -> None:
    places = [quarantine.enter(crashes=0), quarantine.enter(crashes=SUSPECT_FROM - 1)]
    for place in places:
        leave(place)


def test_a_suspect_waits_for_those_that_run_and_keeps_newcomers_out(quarantine: Quarantine) -> None:
    first = quarantine.enter(crashes=0)
    suspect: list[int] = []
    newcomer: list[int] = []
    waiting = entering(quarantine, SUSPECT_FROM, suspect)
    wait_until(lambda: is_closed(vars(quarantine)["_gate"]), 30, "the suspect to close the gate")
    waiting.join(0.1)
    entering(quarantine, 0, newcomer).join(0.1)
    assert not suspect
    assert not newcomer
    leave(first)
    wait_until(lambda: bool(suspect), timeout=30, what="the suspect runs")
    assert not newcomer
    leave(suspect[0])
    wait_until(lambda: bool(newcomer), timeout=30, what="the newcomer runs")
    leave(newcomer[0])


def test_two_workers_do_not_wait_for_each_other(quarantine: Quarantine) -> None:
    other = Quarantine(new_id())
    places = [quarantine.enter(crashes=SUSPECT_FROM), other.enter(crashes=SUSPECT_FROM)]
    for place in places:
        leave(place)
    other.remove()
