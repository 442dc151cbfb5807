"""The tail: reads the event log behind a cursor and hands each event to those who asked for it."""

import inspect
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestra.model.event import Event, matches

logger = logging.getLogger(__name__)

Read = Callable[[int], tuple[Sequence[Event], int]]
Subject = Callable[[Event], object]
Handler = Callable[..., object]

FASTEST_POLL_S = 0.02
SLOWEST_POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class Subscription:
    """Who wants which events."""

    pattern: str | frozenset[str]
    """A type, a pattern over types, or the types themselves."""
    handler: Handler
    wants_event: bool
    once_for: str | None = None
    """Only the first event about this task or run; then the subscription is over."""

    def covers(self, event: Event) -> bool:
        """Whether an event is for this subscription."""
        if self.once_for is not None and self.once_for != (event.task_id or event.run_id):
            return False
        if isinstance(self.pattern, str):
            return matches(self.pattern, event.type)
        return event.type in self.pattern


class Tail:
    """Delivers events to handlers, on a thread of its own that starts with the first subscription.

    A handler that raises is logged with the event, and disturbs neither the others nor the events after it.

    Args:
        read: Returns the events behind a cursor, and the cursor to go on from.
        end: Returns the cursor behind the newest event.
        subject: Returns what a handler of one argument gets for an event.
    """

    def __init__(self, read: Read, end: Callable[[], int], subject: Subject) -> None:
        self._read, self._end, self._subject = read, end, subject
        self._subscriptions: list[Subscription] = []
        self._news = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._cursor = 0

    def subscribe(
        self, pattern: str | frozenset[str], handler: Handler, *, once_for: str | None = None
    ) -> Callable[[], None]:
        """Deliver events from now on. Returns how to stop that."""
        subscription = Subscription(pattern, handler, _wants_event(handler), once_for)
        with self._lock:
            if self._thread is None and not self._closing:
                self._cursor = self._end()
                self._thread = threading.Thread(target=self._run, name="orchestra-events", daemon=True)
                self._thread.start()
            self._subscriptions.append(subscription)
        return lambda: self._drop(subscription)

    def ring(self) -> None:
        """Say that there may be news. Quick, from any thread."""
        self._news.set()

    def close(self, timeout_s: float = 0.3) -> None:
        """Deliver what has been committed, then stop; a second time does nothing."""
        self._closing = True
        self._news.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _drop(self, subscription: Subscription) -> None:
        with self._lock:
            self._subscriptions = [each for each in self._subscriptions if each is not subscription]

    def _run(self) -> None:
        wait = FASTEST_POLL_S
        while True:
            self._news.wait(wait)
            self._news.clear()
            closing = self._closing
            heard = self._deliver_all()
            if closing:
                return
            # Quick while things happen, slow in silence: other processes' commits are seen by polling only.
            wait = FASTEST_POLL_S if heard else min(SLOWEST_POLL_S, wait * 1.5)

    def _deliver_all(self) -> bool:
        heard = False
        while True:
            try:
                events, cursor = self._read(self._cursor)
            except Exception as error:
                if not self._closing:
                    logger.warning("Events cannot be read at the moment: %s", error)
                return heard
            if cursor == self._cursor:
                return heard
            heard = True
            for event in events:
                self._deliver(event)
            self._cursor = cursor

    def _deliver(self, event: Event) -> None:
        with self._lock:
            concerned = [each for each in self._subscriptions if each.covers(event)]
        for each in concerned:
            if each.once_for is not None:
                self._drop(each)
            try:
                each.handler(event if each.wants_event else self._subject(event))
            except Exception:
                logger.exception("The handler %r of %r failed on %s", each.handler, each.pattern, event)


def _wants_event(handler: Handler) -> bool:
    """Whether a handler's one argument is called ``event``; all others get the task, run or job."""
    try:
        parameters = list(inspect.signature(handler).parameters)
    except (TypeError, ValueError):
        return False
    return parameters[:1] == ["event"]
