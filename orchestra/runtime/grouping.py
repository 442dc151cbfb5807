"""Grouping: claims and records of one process that come at the same time share transactions.

Nobody waits for company. Who comes first makes a transaction of what it wants alone; those who come meanwhile share the
next one, which the first of them makes for all. So groups are as large as there are steps that begin and end at once,
and who is alone asks the store as if there was no grouping.
"""

import os
import threading
from collections.abc import Callable
from typing import Any, cast

from orchestra.engine.outcome import Change, Completed, Expanded
from orchestra.errors import StoreUnavailable
from orchestra.model.ids import MessageRef
from orchestra.runtime.loop import Pause, pause
from orchestra.store.contract import (
    MOST_TOGETHER,
    Claimed,
    ClaimRef,
    Onward,
    Recorded,
    Refused,
    Store,
    ToClaim,
    ToRecord,
)

Answer = Claimed | Refused | Recorded | None
_LARGE = 16_384
"""Characters of an output that is recorded alone: others shall not wait for its way to the store."""


class _Member:
    """One claim or record, and what came of it."""

    def __init__(self, wanted: ToClaim | ToRecord, waiting: Pause | None) -> None:
        self.wanted, self.waiting = wanted, waiting
        self.group: list[_Member] = []
        """Those for whom it makes the transaction; none when another made it."""
        self.answer: Answer = None
        self.error: BaseException | None = None


class GroupingStore:
    """Stands before a store, and groups what the threads and coroutines of a process want from it.

    Args:
        pause: Makes what a member waits with until its transaction was made, without blocking others.
    """

    def __init__(self, store: Store, pause: Callable[[], Pause] = pause) -> None:
        self._store, self._pause = store, pause
        self._begin()

    @classmethod
    def of(cls, store: Store, pause: Callable[[], Pause] = pause) -> Store:
        """Return it as what it stands for."""
        return cast(Store, cls(store, pause))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def claim(self, message: MessageRef, worker: str, now: float) -> Claimed | Refused:
        """See the contract."""
        return cast("Claimed | Refused", self._make(ToClaim(message, worker, now)))

    def record(self, claim: ClaimRef, change: Change, now: float, onward: Onward | None = None) -> Recorded | None:
        """See the contract. Who goes on by itself is alone in its process."""
        large = isinstance(change, Expanded) or (isinstance(change, Completed) and len(change.output) > _LARGE)
        if large or onward is not None:
            return self._store.record(claim, change, now, onward)
        return cast("Recorded | None", self._make(ToRecord(claim, change, now)))

    def _begin(self) -> None:
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._under_way = False
        self._next: list[_Member] = []

    def _make(self, wanted: ToClaim | ToRecord) -> Answer:
        if self._pid != os.getpid():
            self._begin()  # a forked child: another thread of its parent may have been in the middle
        with self._lock:
            member = _Member(wanted, self._pause() if self._under_way else None)
            if member.waiting is not None:
                self._next.append(member)
            else:
                self._under_way, member.group = True, [member]
        if member.waiting is not None:
            member.waiting.wait()
        if member.group:
            self._make_all(member.group)
        if member.error is not None:
            raise member.error
        return member.answer

    def _make_all(self, group: list[_Member]) -> None:
        try:
            self._ask(group)
        except StoreUnavailable as error:
            for each in group:
                each.error = error
        except BaseException as error:  # of whoever makes it for all: the others ask again
            group[0].error = error
            for each in group[1:]:
                each.error = StoreUnavailable(self._store.url, f"whoever asked it for several was stopped: {error!r}")
        with self._lock:
            following, self._next = self._next[:MOST_TOGETHER], self._next[MOST_TOGETHER:]
            self._under_way = bool(following)
        if following:
            following[0].group = following
        for each in (*following[:1], *group[1:]):
            if each.waiting is not None:
                each.waiting.wake()

    def _ask(self, group: list[_Member]) -> None:
        if len(group) > 1:
            try:
                for each, answer in zip(group, self._store.together([each.wanted for each in group]), strict=True):
                    each.answer = answer
                return
            except StoreUnavailable:
                raise
            except Exception:  # of one of them: alone, each gets its own
                pass
        for each in group:
            try:
                each.answer = self._alone(each.wanted)
            except Exception as error:
                each.error = error

    def _alone(self, wanted: ToClaim | ToRecord) -> Answer:
        if isinstance(wanted, ToClaim):
            return self._store.claim(wanted.message, wanted.worker, wanted.now)
        return self._store.record(wanted.claim, wanted.change, wanted.now)
