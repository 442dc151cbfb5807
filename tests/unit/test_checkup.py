"""What the doctor says about settings of Celery applications."""

from typing import Any

import pytest

from orchestra.runtime.checkup import Level, of_settings

SOUND: dict[str, Any] = {
    "accept_content": ["json"],
    "task_acks_late": True,
    "worker_prefetch_multiplier": 1,
    "broker_transport_options": {"visibility_timeout": 43_200, "priority_steps": list(range(10))},
}


def found(*, redis: bool = True, adopted: bool = True, **changes: object) -> dict[str, Level]:
    return {each.about: each.level for each in of_settings({**SOUND, **changes}, redis=redis, adopted=adopted)}


def test_sound_settings_are_no_finding() -> None:
    assert found() == {}
    assert found(redis=False) == {}


@pytest.mark.parametrize(
    ("changes", "about", "level"),
    [
        ({"task_always_eager": True}, "task_always_eager", Level.ERROR),
        ({"accept_content": ["pickle"]}, "accept_content", Level.ERROR),
        ({"task_acks_late": False}, "task_acks_late", Level.WARNING),
        ({"worker_prefetch_multiplier": 4}, "worker_prefetch_multiplier", Level.WARNING),
        ({"task_reject_on_worker_lost": True}, "task_reject_on_worker_lost", Level.WARNING),
    ],
)
def test_settings_that_lose_work_or_break_priorities_are_named(changes: Any, about: str, level: Level) -> None:
    assert found(**changes) == {about: level}


def test_redis_needs_a_long_visibility_timeout_and_ten_priority_steps() -> None:
    assert set(found(broker_transport_options={"visibility_timeout": 60})) == {"visibility_timeout", "priority_steps"}
    assert found(broker_transport_options={}, redis=False) == {}


def test_what_is_said_tells_what_to_change() -> None:
    for each in of_settings({"task_always_eager": True}, redis=True, adopted=True):
        assert each.advice
