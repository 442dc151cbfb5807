"""Retention: runs that ended longer ago than they have to be kept are deleted, a bite at a time."""

import logging
from collections.abc import Callable

from orchestra.store.contract import Store

logger = logging.getLogger(__name__)

LOOK_S = 60.0
"""How often it looks whether there is something to delete."""
BITE = 100
"""Runs that go at once. More wait for the next tick, so that leases are renewed in between."""


class Retention:
    """One worker's part in deleting what is old. Any number of workers may do so at the same time.

    Args:
        keep_for_s: For how many seconds runs are kept after their end; None keeps them for ever.
    """

    def __init__(self, store: Store, keep_for_s: float | None, clock: Callable[[], float]) -> None:
        self._store, self._keep_for_s, self._clock = store, keep_for_s, clock
        self._due_at = float("-inf")

    def tick(self, at: float) -> None:
        """Delete a bite when it is time to; ``at`` is read from a clock that only goes forward."""
        if self._keep_for_s is None or at < self._due_at:
            return
        self._due_at = at + LOOK_S  # also when it fails
        deleted = self._store.prune(self._clock() - self._keep_for_s, BITE)
        if deleted:
            self._due_at = at
            logger.debug("%d runs that ended more than %g s ago were deleted", deleted, self._keep_for_s)
