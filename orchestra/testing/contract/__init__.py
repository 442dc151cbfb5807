"""The suite that every store passes. Importing it needs pytest."""

import pytest

_TOPICS = (
    "cancelling",
    "claiming",
    "counting",
    "creating",
    "failing",
    "growing",
    "keeping",
    "noting",
    "reading",
    "sending",
    "steering",
    "telling",
)
# The tests say what went wrong by plain assertions, which pytest has to know before it sees them.
pytest.register_assert_rewrite(*(f"{__name__}.{each}" for each in ("desk", *_TOPICS)))

from orchestra.testing.contract.suite import StoreContract  # noqa: E402

__all__ = ["StoreContract"]
