"""Grouping: claims and records of one process that come at the same time share transactions.

Nobody waits for company. Who comes first makes a transaction of what it wants alone; those who come meanwhile share the
next one, which the first of them makes for all. So groups are as large as there are steps that begin and end at once,
and who is alone asks the store as if there was no grouping.
"""

import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, takewhile
from typing import Any, cast

from orchestra.engine.outcome import Change, Completed, Expanded
from orchestra.errors import StoreUnavailable
from orchestra.model.ids import MessageRef
from orchestra.runtime.loop import Pause, pause
from orchestra.store.contract import (
    MOST_TOGETHER,
    Claimed,
    ClaimRef,
    Dispatch,
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
_MOST_OF_ONE = 2
"""What one member may want and still share: the record of what has ended, and the claim of what follows it."""


class _Member:
    """What one thread or coroutine wants, and what came of it."""

    def __init__(self, wanted: Sequence[ToClaim | ToRecord], onward: Onward | None, waiting: Pause | None) -> None:
        self.wanted, self.onward, self.waiting = wanted, onward, waiting
        self.group: list[_Member] = []
        """Those for whom it makes the transaction; none when another made it."""
        self.answers: list[Answer] = []
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
        return cast("Claimed | Refused", self._make([ToClaim(message, worker, now)])[0])

    def record(self, claim: ClaimRef, change: Change, now: float, onward: Onward | None = None) -> Recorded | None:
        """See the contract."""
        if _is_large(change):
            return self._store.record(claim, change, now, onward)
        return cast("Recorded | None", self._make([ToRecord(claim, change, now)], onward)[0])

    def together(self, wanted: Sequence[ToClaim | ToRecord], onward: Onward | None = None) -> list[Answer]:
        """See the contract. Who wants much is alone."""
        if len(wanted) > _MOST_OF_ONE or any(isinstance(each, ToRecord) and _is_large(each.change) for each in wanted):
            return self._store.together(wanted, onward)
        return self._make(wanted, onward)

    def _begin(self) -> None:
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._under_way = False
        self._next: list[_Member] = []

    def _make(self, wanted: Sequence[ToClaim | ToRecord], onward: Onward | None = None) -> list[Answer]:
        if self._pid != os.getpid():
            self._begin()  # a forked child: another thread of its parent may have been in the middle
        with self._lock:
            member = _Member(wanted, onward, self._pause() if self._under_way else None)
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
        return member.answers

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
            most = _how_many(self._next)
            following, self._next = self._next[:most], self._next[most:]
            self._under_way = bool(following)
        if following:
            following[0].group = following
        for each in (*following[:1], *group[1:]):
            if each.waiting is not None:
                each.waiting.wake()

    def _ask(self, group: list[_Member]) -> None:
        if len(group) > 1:
            try:
                self._ask_at_once(group)
                return
            except StoreUnavailable:
                raise
            except Exception:  # of one of them: alone, each gets its own
                pass
        for each in group:
            try:
                each.answers = self._alone(each)
            except Exception as error:
                each.error = error

    def _ask_at_once(self, group: list[_Member]) -> None:
        # Those of one kind behind each other are made in few statements; they all came at the same time.
        places = [(member, at) for member in group for at in range(len(member.wanted))]
        places.sort(key=lambda place: isinstance(place[0].wanted[place[1]], ToClaim))
        wishing = _wishing(group)
        wish = wishing[0].onward if wishing else None
        onward = None if wish is None else replace(wish, most=wish.most * len(wishing))
        found = self._store.together([member.wanted[at] for member, at in places], onward)
        answers = dict(zip(places, found, strict=True))
        for member in group:
            member.answers = [answers[member, at] for at in range(len(member.wanted))]
        _share(group, wishing)

    def _alone(self, member: _Member) -> list[Answer]:
        match member.wanted:
            case [ToClaim(message, worker, now)]:
                return [self._store.claim(message, worker, now)]
            case [ToRecord(claim, change, now)]:
                return [self._store.record(claim, change, now, member.onward)]
            case _:
                return list(self._store.together(member.wanted, member.onward))


def _is_large(change: Change) -> bool:
    return isinstance(change, Expanded) or (isinstance(change, Completed) and len(change.output) > _LARGE)


def _how_many(members: Sequence[_Member]) -> int:
    """How many of those who wait share the next transaction."""
    wanted = accumulate(len(member.wanted) for member in members)
    return sum(1 for _ in takewhile(lambda number: number <= MOST_TOGETHER, wanted))


def _wishing(group: Sequence[_Member]) -> Sequence[_Member]:
    """Return the members that go on with something: those who wish for the same, as most do."""
    wishes = Counter(member.onward for member in group if member.onward is not None)
    return [member for member in group if wishes and member.onward == wishes.most_common(1)[0][0]]


def _share(group: Sequence[_Member], wishing: Sequence[_Member]) -> None:
    """A record may hand on several steps and the next one none: share what was claimed among those who wish for it."""
    takers = [
        (member, at)
        for member in wishing
        for at, answer in enumerate(member.answers)
        if isinstance(answer, Recorded)
    ]  # fmt: skip
    if not takers:
        return
    claimed: list[tuple[Dispatch, Claimed]] = []
    for member in group:
        for at, answer in enumerate(member.answers):
            if isinstance(answer, Recorded) and answer.onward:
                claimed += answer.onward
                member.answers[at] = replace(answer, onward=())
    for number, (member, at) in enumerate(takers):
        answer = member.answers[at]
        assert isinstance(answer, Recorded)
        member.answers[at] = replace(answer, onward=claimed[number :: len(takers)])
