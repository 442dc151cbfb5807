"""A worker's part in deleting what is old: every minute, in bites, and only where that was asked for."""

from typing import Any

import pytest

from orchestra.errors import SettingsError, StoreUnavailable
from orchestra.runtime.retention import BITE, LOOK_S, Retention
from orchestra.settings import load


class Pruned:
    """Stands for a store that has some bites to delete."""

    def __init__(self, *answers: int) -> None:
        self.answers, self.asked = list(answers), list[tuple[float, int]]()

    def prune(self, ended_before: float, limit: int) -> int:
        self.asked.append((ended_before, limit))
        answer = self.answers.pop(0) if self.answers else 0
        if answer < 0:
            raise StoreUnavailable("url", "away")
        return answer


def retention(store: Any, keep_for_s: float | None = 100.0) -> Retention:
    return Retention(store, keep_for_s, lambda: 1_000.0)


def test_nothing_is_deleted_unless_it_was_asked_for() -> None:
    store = Pruned(5)
    retention(store, None).tick(1.0)
    assert store.asked == []


def test_bites_follow_each_other_until_nothing_is_left_and_then_a_minute_passes() -> None:
    store = Pruned(BITE, 3, 0, 7)
    ticking = retention(store)
    for at in (10.0, 10.1, 10.2, 10.3, 69.0):
        ticking.tick(at)
    assert store.asked == [(900.0, BITE)] * 3
    ticking.tick(10.2 + LOOK_S)
    assert len(store.asked) == 4


def test_a_store_that_is_away_is_asked_again_after_a_minute() -> None:
    store = Pruned(-1, 1)
    ticking = retention(store)
    with pytest.raises(StoreUnavailable):
        ticking.tick(0.0)
    ticking.tick(LOOK_S / 2)
    assert len(store.asked) == 1
    ticking.tick(LOOK_S)
    assert len(store.asked) == 2


def test_the_setting_is_a_duration_with_a_unit_or_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load().keep_for_s is None
    monkeypatch.setenv("ORCHESTRA_KEEP_FOR", "30d")
    assert load().keep_for_s == 30 * 86_400
    assert load(keep_for=90).keep_for_s == 90
    with pytest.raises(SettingsError, match=r"keep_for='for ever' is not possible.*ORCHESTRA_KEEP_FOR"):
        load(keep_for="for ever")
    with pytest.raises(SettingsError, match="greater than or equal to"):
        load(keep_for="0")
