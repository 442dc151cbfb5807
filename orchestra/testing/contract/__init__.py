"""The suites that every store passes. Importing them needs pytest."""

import pytest

_TOPICS = (
    "cancelling",
    "claiming",
    "counting",
    "creating",
    "failing",
    "grouping",
    "growing",
    "keeping",
    "learning",
    "noting",
    "reading",
    "retrying",
    "scheduling",
    "sending",
    "steering",
    "subscribing",
    "telling",
)
# The tests say what went wrong by plain assertions, which pytest has to know before it sees them.
pytest.register_assert_rewrite(*(f"{__name__}.{each}" for each in ("desk", "results", *_TOPICS)))

from orchestra.testing.contract.results import TaskResultsContract  # noqa: E402
from orchestra.testing.contract.suite import StoreContract  # noqa: E402

__all__ = ["StoreContract", "TaskResultsContract"]
