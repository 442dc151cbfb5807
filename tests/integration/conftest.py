"""What all integration tests are held against."""

from collections.abc import Iterator
from contextlib import suppress

import pytest

from orchestra import Orchestrator
from orchestra.errors import StoreUnavailable
from orchestra.testing.watched import check_log


@pytest.fixture(scope="module", autouse=True)
def every_step_changes_as_it_may() -> Iterator[None]:
    """Whatever an orchestrator of this process has stored: its log is looked through before it is closed."""
    close = Orchestrator.close

    def check_and_close(orch: Orchestrator) -> None:
        if not orch.closed:
            with suppress(StoreUnavailable):
                check_log(orch.parts.store)
        close(orch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Orchestrator, "close", check_and_close)
        yield
