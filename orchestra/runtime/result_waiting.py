"""Waiting for results: connects what a store's ears hear to the result objects that somebody waits for."""

# Celery is untyped where its backends are extended.
# pyright: reportUntypedBaseClass=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportIncompatibleMethodOverride=false

import os
import threading
from typing import Any

from celery import states
from celery.backends import asynchronous

from orchestra.store.task_results import Ears, TaskResults

_Consumer: Any = asynchronous.BaseResultConsumer  # the stubs know little of it


class ResultConsumer(_Consumer):
    """What has changed is noted by the ears' thread, and read and passed on by whichever thread waits.

    Each other thread that waits looks at its own result afterwards.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._ears: Ears | None = None
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._news = threading.Condition()
        self._changed: dict[str, bytes | None] = {}
        self._all_may_have = False
        self._turn = 0
        self._seen = threading.local()

    # --- what is heard -------------------------------------------------------------------------------------------

    def consume_from(self, task_id: str) -> None:
        """Somebody begins to wait for a task, which may have ended before."""
        self._check_process()
        ears = self._ears
        if ears is None:
            results: TaskResults = self.backend.task_results
            ears = self._ears = results.listen(self._note)
        ears.add(task_id)
        self._note(task_id)

    def cancel_for(self, task_id: str) -> None:
        """Nobody waits for it any more. Called by garbage collection, too: takes no lock."""
        if self._ears is not None:
            self._ears.discard(task_id)

    def on_wait_for_pending(self, result: Any, **_options: Any) -> None:
        """A result, or all of a set, is waited for."""
        self._check_process()
        for each in getattr(result, "results", (result,)):
            self._note(each.id)

    def stop(self) -> None:
        """Hear nothing any more."""
        if self._ears is not None:
            self._ears.close()

    def on_after_fork(self) -> None:
        """Begin anew in a forked child: locks may be held by threads that it has not."""
        self._reset()

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            self._reset()

    def _note(self, task_id: str | None, payload: bytes | None = None) -> None:
        with self._news:
            if task_id is None:
                self._all_may_have = True
            else:
                self._changed[task_id] = payload
            self._news.notify_all()

    # --- what comes of it ----------------------------------------------------------------------------------------

    def drain_events(self, timeout: float | None = None) -> None:
        """Wait until something has changed, and pass it on; or until another thread has passed something on."""
        self._check_process()
        with self._news:
            # Without the turn, what another thread passed on just before would be noticed after the timeout.
            if not self._has_news() and self._turn == getattr(self._seen, "turn", -1):
                self._news.wait(timeout)
            self._seen.turn = self._turn
            changed = self._taken()
        if not changed:
            self.backend.look_for_overdue()
            return
        try:
            self._pass_on(changed)
        except BaseException:
            for each in changed:
                self._note(each)
            raise
        finally:
            with self._news:
                self._turn += 1
                self._news.notify_all()

    def _has_news(self) -> bool:
        return bool(self._changed) or self._all_may_have

    def _taken(self) -> dict[str, bytes | None]:
        changed, self._changed = self._changed, {}
        if self._all_may_have:
            self._all_may_have = False
            for awaited in self._pending_results:
                changed = dict.fromkeys(list(awaited)) | changed
        return changed

    def _pass_on(self, changed: dict[str, bytes | None]) -> None:
        known = {id_: payload for id_, payload in changed.items() if payload is not None}
        known |= self.backend.payloads([id_ for id_ in changed if id_ not in known])
        for task_id, payload in known.items():
            if any(awaited.get(task_id) for awaited in self._pending_results):
                self.on_state_change(self.backend.decode_result(payload), None)

    def on_state_change(self, meta: Any, message: Any) -> None:
        """A result has a new state."""
        super().on_state_change(meta, message)
        if meta["status"] in states.READY_STATES:
            self.cancel_for(meta["task_id"])
