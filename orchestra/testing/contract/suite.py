"""StoreContract: all topics in one class."""

from collections.abc import Iterator

import pytest

from orchestra.store.contract import Store
from orchestra.testing.clock import Clock
from orchestra.testing.contract.cancelling import Cancelling
from orchestra.testing.contract.claiming import Claiming
from orchestra.testing.contract.counting import Counting
from orchestra.testing.contract.creating import Creating
from orchestra.testing.contract.desk import Desk
from orchestra.testing.contract.failing import Failing
from orchestra.testing.contract.going_on import GoingOn
from orchestra.testing.contract.grouping import Grouping
from orchestra.testing.contract.growing import Growing
from orchestra.testing.contract.keeping import Keeping
from orchestra.testing.contract.learning import Learning
from orchestra.testing.contract.noting import Noting
from orchestra.testing.contract.reading import Reading
from orchestra.testing.contract.retrying import Retrying
from orchestra.testing.contract.scheduling import Scheduling
from orchestra.testing.contract.sending import Sending
from orchestra.testing.contract.steering import Steering
from orchestra.testing.contract.subscribing import Subscribing
from orchestra.testing.contract.telling import Telling
from orchestra.testing.watched import check_history, check_transitions


class StoreContract(
    Creating,
    Claiming,
    Counting,
    GoingOn,
    Grouping,
    Growing,
    Failing,
    Cancelling,
    Retrying,
    Steering,
    Scheduling,
    Sending,
    Telling,
    Subscribing,
    Reading,
    Noting,
    Keeping,
    Learning,
):
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
