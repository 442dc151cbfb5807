"""The tail: reads the event log behind a cursor and hands each event to those who asked for it."""

import inspect
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from orchestra.bus.calling import LIMIT_S, Caller
from orchestra.errors import InvalidOption
from orchestra.model.event import Event, matches

logger = logging.getLogger(__name__)

Read = Callable[[int], tuple[Sequence[Event], int]]
Subject = Callable[[Event], object]
Handler = Callable[..., object]

FASTEST_POLL_S = 0.02
SLOWEST_POLL_S = 0.25


class Wants(Enum):
    """What a handler is called with."""

    SUBJECT = "handler(task)"
    EVENT = "handler(event)"
    BOTH = "handler(task, event=event)"


@dataclass(frozen=True, slots=True, eq=False)
class Subscription:
    """Who wants which events."""

    pattern: str | frozenset[str]
    """A type, a pattern over types, or the types themselves."""
    handler: Handler
    wants: Wants
    limit_s: float = LIMIT_S
    """How long the handler may take."""
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
        self._calls: deque[Callable[[], object]] = deque()
        self._caller = Caller("orchestra-handlers")

    def subscribe(
        self, pattern: str | frozenset[str], handler: Handler, limit_s: float = LIMIT_S
    ) -> Callable[[], bool]:
        """Deliver events from now on, giving the handler so many seconds each time. Returns how to stop that.

        Raises:
            InvalidOption: The handler cannot be called with what it would get.
        """
        return self._add(Subscription(pattern, handler, wants(handler), limit_s))

    def subscribe_once(self, pattern: str | frozenset[str], handler: Handler, about: str) -> Callable[[], bool]:
        """Deliver the first such event about a task or run. The handler gets the task or run, whatever it calls it.

        Returns how to stop that, which tells whether it was still to come.

        Raises:
            InvalidOption: The handler cannot be called with one argument.
        """
        if not _takes(handler, None):
            raise InvalidOption("callback", handler, "a function of one argument, the ended task")
        return self._add(Subscription(pattern, handler, Wants.SUBJECT, once_for=about))

    def call(self, handler: Handler, subject: object) -> None:
        """Call a handler on the thread of the handlers, for something that is no news to the log."""
        self._calls.append(lambda: handler(subject))
        self.ring()

    def _add(self, subscription: Subscription) -> Callable[[], bool]:
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

    def _drop(self, subscription: Subscription) -> bool:
        with self._lock:
            before = len(self._subscriptions)
            self._subscriptions = [each for each in self._subscriptions if each is not subscription]
            return len(self._subscriptions) < before

    def _run(self) -> None:
        wait = FASTEST_POLL_S
        while True:
            self._news.wait(wait)
            self._news.clear()
            closing = self._closing
            self._make_calls()
            heard = self._deliver_all()
            if closing:
                self._caller.close()
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
            if each.once_for is not None and not self._drop(each):
                continue  # stopped meanwhile
            try:
                self._caller.call(call_of(each.handler, each.wants, event, self._subject), each.limit_s)
            except Exception:
                logger.exception("The handler %r of %r failed on %s", each.handler, each.pattern, event)

    def _make_calls(self) -> None:
        while self._calls:
            call = self._calls.popleft()
            try:
                self._caller.call(call, LIMIT_S)
            except Exception:
                logger.exception("A callback failed")


def call_of(handler: Handler, wants: Wants, event: Event, subject: Subject) -> Callable[[], object]:
    """Return the call that gives an event to a handler."""
    match wants:
        case Wants.EVENT:
            return lambda: handler(event)
        case Wants.BOTH:
            return lambda: handler(subject(event), event=event)
        case Wants.SUBJECT:
            return lambda: handler(subject(event))


def wants(handler: Handler) -> Wants:
    """Say what a handler gets: the task, run or job, unless it asks for ``event``."""
    names = _parameters(handler)
    wanted = Wants.EVENT if names[:1] == ["event"] else Wants.BOTH if "event" in names else Wants.SUBJECT
    if not (_takes(handler, None, event=None) if wanted is Wants.BOTH else _takes(handler, None)):
        raise InvalidOption(
            "handler",
            handler,
            "a function of one argument: the task, run or job, or the event if the argument is called 'event'",
        )
    return wanted


def _parameters(handler: Handler) -> list[str]:
    try:
        return list(inspect.signature(handler).parameters)
    except (TypeError, ValueError):
        return []  # a built-in that does not tell


def _takes(handler: Handler, *args: object, **kwargs: object) -> bool:
    if not callable(handler):
        return False
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True
