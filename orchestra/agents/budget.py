"""Budget: what the agents of a run may use together, and what is left of it as far as is recorded.

Each step keeps the sum of its calls as a small checkpoint of its own, and reads those of the other steps before a call.
"""

import asyncio
import threading
from collections.abc import Generator
from contextlib import contextmanager

from orchestra.model.current import Current
from orchestra.model.usage import NOTHING_USED, Usage, UsageLimits

KEPT = "agents/usage"
"""The checkpoint key of a step's sum."""


class Budget:
    """The budget of a run, as one of its steps sees it.

    What is under way counts as a request or a tool call in this step; in others, where nothing of it is recorded yet,
    it does not: as many calls as run there at that moment may come on top of a limit.

    Args:
        recorded: What the calls of the step took that it has recorded.
    """

    def __init__(self, limits: UsageLimits, recorded: Usage) -> None:
        self._limits, self._recorded = limits, recorded
        self._under_way = NOTHING_USED
        self._lock = threading.Lock()

    async def elsewhere(self, step: Current) -> Usage:
        """Return what the other steps of the run have used, read now."""
        used = NOTHING_USED
        for each in (await asyncio.to_thread(step.others, KEPT)).values():
            used += Usage.model_validate(each)
        return used

    @contextmanager
    def call(self, elsewhere: Usage, counts: Usage) -> Generator[None]:
        """Be around one call that counts as one request, or as one tool call. Afterwards it is to be kept at once.

        Raises:
            UsageLimitReached: It may not be made.
        """
        self._limits.check(elsewhere + self._recorded + self._under_way, counts)
        self._under_way += counts
        try:
            yield
        finally:
            self._under_way -= counts

    async def keep(self, step: Current, took: Usage) -> None:
        """Write down what a call of the step took that was recorded."""
        self._recorded += took
        await asyncio.to_thread(self._write, step)

    def _write(self, step: Current) -> None:
        with self._lock:  # the sum is read inside, so that the one that is written last is the newest
            step.checkpoint.save(self._recorded.model_dump(exclude_defaults=True), KEPT)
