"""Stopping: bodies in pool children whose steps were cancelled: by force, once they have had time to end."""

import logging
import time
from collections.abc import Callable
from typing import Any

from celery.worker import state

from orchestra.model.ids import MessageRef
from orchestra.model.record import StepRecord
from orchestra.model.status import TaskStatus
from orchestra.runtime.adapter import is_step
from orchestra.store.contract import Store

logger = logging.getLogger(__name__)

STOP_GRACE_S = 2.0
"""How long a body may go on after its worker has seen that its step was cancelled."""
_SIGNAL = "SIGKILL"  # a body that was going to end has had its time; whatever else it catches, it cannot catch this


class Stopper:
    """Looks after the children of one prefork pool. Asked from time to time, on a thread of its own.

    Args:
        pool: The worker's pool.
        call_soon: Runs a function on the worker's own thread, which alone may touch its requests.
        now_at: Says which step the child is at that was given a message; Celery ids both.
    """

    def __init__(
        self, store: Store, pool: Any, call_soon: Callable[..., object], now_at: Callable[[str], str | None]
    ) -> None:
        self._store, self._pool, self._call_soon, self._now_at = store, pool, call_soon, now_at
        self._seen: dict[str, float] = {}

    def look(self, held: set[str]) -> None:
        """Stop the bodies whose time to end by themselves is over.

        Args:
            held: Celery ids of all steps that the store says this worker runs: these are as they should be.
        """
        now = time.monotonic()
        at = {self._now_at(each.id): each for each in tuple(state.active_requests) if carries_step(each)}
        suspects = {step: request for step, request in at.items() if step is not None and step not in held}
        self._seen = {step: self._seen.get(step, now) for step in suspects if self._was_cancelled(step)}
        for step, request in suspects.items():
            if now - self._seen.get(step, now) >= STOP_GRACE_S:
                logger.warning("%s was cancelled and did not end by itself; its process is killed", step)
                self._call_soon(request.terminate, self._pool, _SIGNAL)

    def _was_cancelled(self, celery_id: str) -> bool:
        """Whether the store will take nothing from it. One that waits to claim its step is not yet known there."""
        message = MessageRef.parse(celery_id)
        record: StepRecord | None = self._store.step(message.step)
        return record is not None and (record.status is TaskStatus.CANCELLED or record.generation > message.generation)


def carries_step(request: Any) -> bool:
    """Whether a request of the worker is that of a step."""
    return is_step(request) or bool(request.request_dict.get("orchestra"))
