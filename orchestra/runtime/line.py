"""Line: one connection to a Redis broker whose answers are read later.

The broker answers a message with a number that nobody needs. Who waits for it is put to sleep and woken up for it,
which costs more than all else about sending. So the answer is read before the next message goes, or at the end: it is
there by then. If it says that the broker refused, somebody is told; and what a broken connection left unanswered is
given back, to be sent again.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from redis import exceptions

from orchestra.store.redis.wire import Wire, packed

_BROKEN = (exceptions.RedisError, OSError)
_NOTIFIED = "maint_notifications"
"""Of options for news of the server's maintenance, which protocol 2 has none of."""


class Push(NamedTuple):
    """Messages for one list of the broker."""

    key: str
    texts: Sequence[str]


class Unsent(Exception):
    """The line does not carry. Beside what was to be sent, ``before`` may be lost: it was sent and is not answered."""

    def __init__(self, before: Sequence[Push] = ()) -> None:
        super().__init__("the line does not carry")
        self.before = before


def opened(pool: Any, patience_s: float) -> Wire:
    """Return a new connection to where those of a pool of redis-py lead; the pool has to be kept as long.

    It is none of the pool's, which lends them to others; a sentinel's ask the pool where to go.
    """
    known = {name: each for name, each in pool.connection_kwargs.items() if _NOTIFIED not in name}
    wire = Wire(pool.connection_class(**{**known, "protocol": 2}))
    wire.be_patient(patience_s)
    return wire


class Line:
    """One connection for all threads of a process; a forked child has to open its own.

    Args:
        refused: Hears what the broker says of messages that it did not take, and how many these were.
        patience_s: How long an answer may take. An idle connection may have been forgotten on its way without a word.
    """

    def __init__(self, refused: Callable[[int, Exception], object], patience_s: float = 5.0) -> None:
        self._refused, self._patience_s = refused, patience_s
        self._inherited: object = None
        self._begin()

    @property
    def is_open(self) -> bool:
        """Whether something can be sent."""
        return self._wire is not None and self._pid == os.getpid()

    def open(self, pool: Any) -> None:
        """Open it, unless it is open, to where the connections of a pool of redis-py lead."""
        if self._pid != os.getpid():
            self._begin()
        with self._lock, suppress(*_BROKEN):
            if self._wire is None:
                self._pool = pool
                self._wire = opened(pool, self._patience_s)

    def send(self, pushes: Sequence[Push]) -> None:
        """Send messages.

        Raises:
            Unsent: They are not sent, and the line is closed.
        """
        if not self.is_open:
            raise Unsent
        data = b"".join(packed(("LPUSH", key, *texts)) for key, texts in pushes)
        with self._lock:
            wire = self._settled()
            try:
                wire.send(data)
            except BaseException as error:
                self._drop()
                if isinstance(error, _BROKEN):
                    raise Unsent from error
                raise
            self._unanswered.extend(pushes)

    def close(self, patience_s: float = 0.2) -> None:
        """Read what is unanswered, for so long, and close; a second time does nothing."""
        if not self.is_open:
            return
        with self._lock, suppress(Unsent):
            if self._wire is not None:
                self._wire.be_patient(patience_s)
            self._settled()
        with self._lock:
            self._drop()

    def _begin(self) -> None:
        self._inherited = (self._inherited, getattr(self, "_wire", None))  # nothing closes what the parent uses
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._wire: Wire | None = None
        self._pool: object = None
        self._unanswered: deque[Push] = deque()

    def _settled(self) -> Wire:
        """Read what is unanswered, and return the connection if it carries on."""
        wire = self._wire
        if wire is None:
            raise Unsent
        refusals = list[tuple[Push, Exception]]()
        try:
            while self._unanswered:
                try:
                    wire.receive()
                except exceptions.ResponseError as refusal:
                    refusals.append((self._unanswered[0], refusal))
                self._unanswered.popleft()
            if wire.has_more():
                raise exceptions.ConnectionError("the broker has ended the connection")  # there is nothing else to say
        except BaseException as error:
            before = self._drop()
            if isinstance(error, _BROKEN):
                raise Unsent(before) from error
            raise
        finally:
            if refusals:
                self._refused(sum(len(push.texts) for push, _ in refusals), refusals[0][1])
        if refusals:
            self._drop()  # who publishes next waits for the answer
            raise Unsent
        return wire

    def _drop(self) -> Sequence[Push]:
        """Close, and return what is unanswered."""
        wire, self._wire = self._wire, None
        before, self._unanswered = tuple(self._unanswered), deque()
        if wire is not None:
            wire.close()
        return before
