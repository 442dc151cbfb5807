"""RetryPolicy: how often, when, and for which errors."""

import json
import random
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.errors import InvalidOption
from orchestra.model.retry import ONCE, RetryPolicy, error_names, policy


class Passing(ConnectionError):
    class Nested(TimeoutError): ...


def names(kind: type[BaseException]) -> list[str]:
    return error_names(kind("x"))


def test_the_default_of_a_task_is_one_attempt_and_of_a_policy_three() -> None:
    assert policy(None) is ONCE
    assert ONCE.delay_after(1, names(ValueError)) is None
    assert RetryPolicy().max_attempts == 3


def test_a_number_is_a_number_of_attempts() -> None:
    three = policy(3)
    assert [three.delay_after(attempt, []) is None for attempt in (1, 2, 3)] == [False, False, True]
    assert policy(three) is three


def test_the_wait_grows_up_to_its_limit() -> None:
    steady = RetryPolicy(10, delay=1, backoff=3, max_delay=timedelta(seconds=20), jitter=0)
    assert [steady.delay_after(attempt, []) for attempt in range(1, 6)] == [1, 3, 9, 20, 20]


def test_the_wait_of_the_thousandth_attempt_is_still_a_number() -> None:
    assert RetryPolicy(1000, delay=1, backoff=100, max_delay=60, jitter=0).delay_after(999, []) == 60
    assert RetryPolicy(1000, delay=0, backoff=100, jitter=0).delay_after(999, []) == 0


@given(st.floats(0, 1), st.integers(1, 20), st.integers())
def test_the_wait_varies_by_no_more_than_its_jitter(jitter: float, attempt: int, seed: int) -> None:
    varied = RetryPolicy(100, delay=2, backoff=2, max_delay=64, jitter=jitter)
    wait = varied.delay_after(attempt, [], spread=random.Random(seed))
    middle = min(2 * 2 ** (attempt - 1), 64)
    assert wait is not None
    assert middle * (1 - jitter) - 1e-9 <= wait <= middle * (1 + jitter) + 1e-9


def test_many_that_fail_together_do_not_come_back_together() -> None:
    varied = RetryPolicy(3, delay=100, jitter=0.5)
    waits = [varied.delay_after(1, [], spread=random.Random(seed)) or 0.0 for seed in range(100)]
    assert len(set(waits)) == 100
    assert min(waits) < 60
    assert max(waits) > 140


@pytest.mark.parametrize(
    ("options", "kind", "again"),
    [
        ({"retry_on": ConnectionError}, Passing, True),
        ({"retry_on": "ConnectionError"}, Passing, True),
        ({"retry_on": "builtins.OSError"}, Passing, True),
        ({"retry_on": Passing.Nested}, Passing.Nested, True),
        ({"retry_on": "Passing.Nested"}, Passing.Nested, True),
        ({"retry_on": Passing}, ConnectionError, False),
        ({"retry_on": [KeyError, "ValueError"]}, ValueError, True),
        ({"retry_on": (KeyError,)}, ValueError, False),
        ({"give_up_on": OSError}, Passing, False),
        ({"give_up_on": [KeyError]}, Passing, True),
        ({"retry_on": OSError, "give_up_on": Passing}, Passing, False),
        ({"retry_on": OSError, "give_up_on": Passing}, ConnectionError, True),
    ],
)
def test_errors_are_known_by_the_names_of_all_their_classes(
    options: dict[str, Any], kind: type[BaseException], again: bool
) -> None:
    assert (RetryPolicy(3, delay=0, **options).delay_after(1, names(kind)) is not None) == again


def test_a_policy_survives_json() -> None:
    whole = RetryPolicy(
        7, delay=timedelta(milliseconds=1500), backoff=1.5, max_delay=30, jitter=0.25,
        retry_on=[OSError, "requests.exceptions.Timeout"], give_up_on=KeyError,
    )  # fmt: skip
    assert RetryPolicy.from_json(json.loads(json.dumps(whole.to_json()))) == whole


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_attempts", 0), ("max_attempts", 1001), ("max_attempts", 2.5), ("max_attempts", True), ("delay", -1),
        ("delay", "1"), ("backoff", 0.9), ("backoff", 101), ("backoff", "x"), ("backoff", True), ("max_delay", -1),
        ("jitter", -0.1), ("jitter", 1.1), ("jitter", None), ("retry_on", 3), ("retry_on", [int]),
        ("give_up_on", [None]), ("backoff", float("nan")),
    ],
)  # fmt: skip
def test_a_value_that_is_not_possible_is_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=option):
        RetryPolicy(**{option: value})


@pytest.mark.parametrize("value", [True, "3", 2.0, [3]])
def test_a_retry_that_is_neither_number_nor_policy_is_refused(value: object) -> None:
    with pytest.raises(InvalidOption, match="retry="):
        policy(value)
