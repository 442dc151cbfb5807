"""Outcomes: what one attempt means for its step."""

from typing import Any

import pytest

from orchestra.engine.outcome import (
    MAX_CRASHES,
    Completed,
    Done,
    Failed,
    GivenBack,
    NotFound,
    Raised,
    Reopened,
    Rescheduled,
    Vanished,
    decide,
)
from orchestra.model.record import ErrorInfo
from orchestra.model.retry import ONCE, RetryPolicy, error_names

ERROR = ErrorInfo("ConnectionError", "gone", names=tuple(error_names(ConnectionError())))
STEADY = RetryPolicy(3, delay=1, backoff=2, jitter=0)


def decided(outcome: Any, *, attempts: int = 0, crashes: int = 0, retry: RetryPolicy = ONCE) -> Any:
    return decide(outcome, name="step", attempts=attempts, crashes=crashes, retry=retry)


def test_what_returned_is_completed() -> None:
    assert decided(Done("1"), attempts=7, crashes=3) == Completed("1")


def test_what_raised_is_tried_again_until_its_attempts_are_used_up() -> None:
    assert [decided(Raised(ERROR), attempts=n, retry=STEADY) for n in range(3)] == [
        Rescheduled(ERROR, 1.0), Rescheduled(ERROR, 2.0), Failed(ERROR),
    ]  # fmt: skip
    assert decided(Raised(ERROR)) == Failed(ERROR)


def test_crashes_use_up_no_attempts() -> None:
    assert decided(Raised(ERROR), attempts=0, crashes=4, retry=STEADY) == Rescheduled(ERROR, 1.0)


def test_errors_that_the_policy_excludes_are_final() -> None:
    picky = RetryPolicy(3, delay=1, retry_on=KeyError)
    assert decided(Raised(ERROR), retry=picky) == Failed(ERROR)
    assert decided(Raised(ERROR, final=True), retry=STEADY) == Failed(ERROR)


def test_a_body_that_asks_for_a_retry_gets_it_whatever_the_policy_says() -> None:
    assert decided(Raised(ERROR, retry_after_s=5.0), attempts=9) == Rescheduled(ERROR, 5.0)


def test_a_function_that_is_not_there_fails_without_an_attempt() -> None:
    assert decided(NotFound(ERROR), retry=STEADY) == Failed(ERROR, attempted=False)


def test_a_claim_that_vanished_is_open_again_until_it_has_taken_too_many_workers_down() -> None:
    for crashes in range(MAX_CRASHES - 1):
        assert decided(Vanished("killed"), attempts=2, crashes=crashes) == Reopened("killed")
    assert decided(GivenBack("told"), crashes=MAX_CRASHES - 1) == Reopened("told", crashed=False)
    last = decided(Vanished("killed"), crashes=MAX_CRASHES - 1)
    assert isinstance(last, Failed)
    assert (last.attempted, last.crashed, last.error.type) == (False, True, "WorkerCrashed")
    assert all(each in last.error.message for each in ("'step'", str(MAX_CRASHES), "killed"))


@pytest.mark.parametrize("outcome", [Done("1"), Raised(ERROR), NotFound(ERROR), Vanished("x"), GivenBack("x")])
def test_deciding_twice_gives_the_same(outcome: Any) -> None:
    assert decided(outcome, retry=STEADY) == decided(outcome, retry=STEADY)
