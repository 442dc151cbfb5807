"""The simulation: seeds that every test run plays, and that the same seed always tells the same story."""

import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest

from orchestra.testing.simulation import Theatre
from orchestra.testing.simulation.many import theatre

SEEDS, BATCH = 500, 50


@pytest.fixture(scope="module")
def stage() -> Iterator[Theatre]:
    stage = theatre("memory,sqlite")
    yield stage
    stage.close()


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_every_invariant_holds_in_every_weather(stage: Theatre, first: int) -> None:
    for seed in range(first, first + BATCH):
        report = stage.play(seed)
        assert report.violation is None, "\n".join([*report.story[-60:], report.summary])


@pytest.mark.parametrize("seed", [3, 4, 101, 222])
def test_a_seed_tells_the_same_story_again(seed: int) -> None:
    first, second = _told(seed), _told(seed)
    assert first == second
    assert len(first) > 10


def test_a_seed_tells_the_same_story_in_another_process() -> None:
    told = "\n".join(_told(7))
    command = [sys.executable, "-m", "orchestra.testing.simulation", "--seed", "7"]
    again = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    assert told in again.stdout
    assert "make simulate SEED=7" in again.stdout


def _told(seed: int) -> Sequence[str]:
    stage = theatre("memory,sqlite")
    try:
        return stage.play(seed, tell=True).story
    finally:
        stage.close()


def test_weather_of_every_kind_is_played(stage: Theatre) -> None:
    seen = {kind for seed in range(60) for kind in stage.play(seed).weather}
    assert {"lose", "double", "late", "flush", "store", "crash", "freeze", "child", "skew", "reboot"} <= seen
