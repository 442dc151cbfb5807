"""The suite that every store passes. Importing it needs pytest."""

from collections.abc import Iterator

import pytest

_TOPICS = (
    "cancelling",
    "claiming",
    "counting",
    "creating",
    "failing",
    "growing",
    "keeping",
    "reading",
    "sending",
    "telling",
)
# The tests say what went wrong by plain assertions, which pytest has to know before it sees them.
pytest.register_assert_rewrite("orchestra.testing.contract.desk", *(f"{__name__}.{each}" for each in _TOPICS))

from orchestra.store.contract import Store  # noqa: E402
from orchestra.testing.clock import Clock  # noqa: E402
from orchestra.testing.contract.cancelling import Cancelling  # noqa: E402
from orchestra.testing.contract.claiming import Claiming  # noqa: E402
from orchestra.testing.contract.counting import Counting  # noqa: E402
from orchestra.testing.contract.creating import Creating  # noqa: E402
from orchestra.testing.contract.desk import Desk  # noqa: E402
from orchestra.testing.contract.failing import Failing  # noqa: E402
from orchestra.testing.contract.growing import Growing  # noqa: E402
from orchestra.testing.contract.keeping import Keeping  # noqa: E402
from orchestra.testing.contract.reading import Reading  # noqa: E402
from orchestra.testing.contract.sending import Sending  # noqa: E402
from orchestra.testing.contract.telling import Telling  # noqa: E402
from orchestra.testing.watched import check_history, check_transitions  # noqa: E402


class StoreContract(Creating, Claiming, Counting, Growing, Failing, Cancelling, Sending, Telling, Reading, Keeping):
    """Everything that ``orchestra.store.contract`` promises. A subclass gives a ``store`` fixture: an empty store.

    Its window must be the default. Every test watches all status changes, and reads the log when it is over.
    """

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        """An empty store, closed afterwards."""
        raise NotImplementedError("give a store fixture")

    @pytest.fixture
    def desk(self, store: Store) -> Iterator[Desk]:
        """The store, watched, with a clock that stands still."""
        yield Desk(check_transitions(store), Clock())
        check_history(store)


__all__ = ["StoreContract"]
