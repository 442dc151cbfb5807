"""Planted faults of the way out of a worker: the simulation has to find each of them within a few seeds."""

from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

import pytest

from orchestra.runtime.adapter import Adapter
from orchestra.runtime.leaving import Bodies, Leaving
from orchestra.testing.simulation import Theatre
from orchestra.testing.simulation.leavers import HOLDS, LETS_FINISH
from orchestra.testing.simulation.many import theatre

Plant = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture
def stage() -> Iterator[Theatre]:
    stage = theatre("memory,sqlite")
    yield stage
    stage.close()


def nothing_is_given_back(patch: pytest.MonkeyPatch) -> None:
    def nothing(_self: Leaving) -> None: ...

    patch.setattr(Leaving, "_give_back", nothing)


def what_was_killed_is_not_looked_for_at_the_end(patch: pytest.MonkeyPatch) -> None:
    def end(self: Any) -> None:
        self._over.set()
        self._enough.set()

    patch.setattr(Leaving, "end", end)


def what_still_runs_is_given_back_at_once(patch: pytest.MonkeyPatch) -> None:
    begin = Leaving.begin

    def impatient(self: Leaving, bodies: Bodies) -> None:
        self.hurry()
        begin(self, bodies)

    patch.setattr(Leaving, "begin", impatient)


def the_lease_is_given_back_before_the_bodies_have_ended(patch: pytest.MonkeyPatch) -> None:
    begin = Leaving.begin

    def hasty(self: Any, bodies: Bodies) -> None:
        begin(self, bodies)
        self._start(self._release)

    patch.setattr(Leaving, "begin", hasty)


def a_body_that_was_ended_counts_as_crashed(patch: pytest.MonkeyPatch) -> None:
    gone: Any = vars(Adapter)["_child_gone"]

    def unaware(self: Adapter, *arguments: Any) -> None:
        leaving, self.leaving = self.leaving, lambda: False
        try:
            MethodType(gone, self)(*arguments)
        finally:
            self.leaving = leaving

    patch.setattr(Adapter, "_child_gone", unaware)


@pytest.mark.parametrize(
    ("plant", "rule", "seeds"),
    [
        (nothing_is_given_back, HOLDS, range(60)),
        (what_was_killed_is_not_looked_for_at_the_end, HOLDS, range(380, 440)),
        (what_still_runs_is_given_back_at_once, LETS_FINISH, range(60)),
        (the_lease_is_given_back_before_the_bodies_have_ended, HOLDS, range(60)),
        (a_body_that_was_ended_counts_as_crashed, HOLDS, range(160, 220)),
    ],
)
def test_a_fault_of_who_goes_is_found(
    stage: Theatre, monkeypatch: pytest.MonkeyPatch, plant: Plant, rule: str, seeds: range
) -> None:
    plant(monkeypatch)
    for seed in seeds:
        violation = stage.play(seed).violation
        if violation is not None:
            assert violation.rule == rule, violation
            return
    pytest.fail(f"{seeds} found nothing")
