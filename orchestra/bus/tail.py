"""The tail: reads the event log behind a cursor and hands each event to those who asked for it."""

import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache

from orchestra.bus.calling import LIMIT_S, Call, Caller
from orchestra.bus.pace import rest_s
from orchestra.errors import InvalidOption
from orchestra.model.event import Event, Wanted, matches

logger = logging.getLogger(__name__)

Read = Callable[[int, int, Wanted], tuple[Sequence[Event], int]]
Subject = Callable[[Event], object]
Handler = Callable[..., object]
Pattern = str | frozenset[str]
"""A type, a pattern over types, or the types themselves."""

FASTEST_POLL_S = 0.02
SLOWEST_POLL_S = 0.25
_PAGE = 1000


class Wants(Enum):
    """What a handler is called with."""

    SUBJECT = "handler(task)"
    EVENT = "handler(event)"
    BOTH = "handler(task, event=event)"


@dataclass(frozen=True, slots=True, eq=False)
class Subscription:
    """Who wants which events."""

    pattern: Pattern
    handler: Handler
    wants: Wants
    limit_s: float = LIMIT_S
    """How long the handler may take."""
    once_for: str | None = None
    """Only the first event about this task or run; then the subscription is over."""


class Tail:
    """Delivers events to handlers, on a thread of its own that starts with the first subscription.

    A handler that raises is logged with the event, and disturbs neither the others nor the events after it.

    Args:
        read: Returns the events behind a cursor, of so many transactions at most, whose types are wanted; and the
            cursor to go on from.
        end: Returns the cursor behind the newest event.
        subject: Returns what a handler of one argument gets for an event.
        told: Whether commits of other processes are heard of, so that looking for them is for those unheard.
    """

    def __init__(
        self, read: Read, end: Callable[[], int], subject: Subject, told: Callable[[], bool] = lambda: False
    ) -> None:
        self._read, self._end, self._subject, self._told = read, end, subject, told
        self._subscriptions: tuple[Subscription, ...] = ()
        self._once: dict[str, tuple[Subscription, ...]] = {}
        """Those for one event about one task or run, by its id: there may be as many as tasks."""
        self._once_patterns: frozenset[Pattern] = frozenset()
        self._news = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._cursor = 0
        self._calls: deque[Callable[[], object]] = deque()
        self._caller = Caller("orchestra-handlers")

    def subscribe(self, pattern: Pattern, handler: Handler, limit_s: float = LIMIT_S) -> Callable[[], bool]:
        """Deliver events from now on, giving the handler so many seconds each time. Returns how to stop that.

        Raises:
            InvalidOption: The handler cannot be called with what it would get.
        """
        return self._add(Subscription(pattern, handler, wants(handler), limit_s))

    def subscribe_once(self, pattern: Pattern, handler: Handler, about: str) -> Callable[[], bool]:
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
            if self._thread is None and not self._closing.is_set():
                self._cursor = self._end()
                self._thread = threading.Thread(target=self._run, name="orchestra-events", daemon=True)
                self._thread.start()
            if subscription.once_for is None:
                self._subscriptions += (subscription,)
            else:
                self._once[subscription.once_for] = (*self._once.get(subscription.once_for, ()), subscription)
                self._once_patterns |= {subscription.pattern}
        return lambda: self._drop(subscription)

    def ring(self) -> None:
        """Say that there may be news. Quick, from any thread."""
        self._news.set()

    def close(self, timeout_s: float = 0.3) -> None:
        """Deliver what has been committed, then stop; a second time does nothing."""
        self._closing.set()
        self._news.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _drop(self, subscription: Subscription) -> bool:
        about = subscription.once_for
        with self._lock:
            among = self._subscriptions if about is None else self._once.get(about, ())
            if subscription not in among:
                return False
            left = tuple(each for each in among if each is not subscription)
            if about is None:
                self._subscriptions = left
            elif left:
                self._once[about] = left
            else:
                del self._once[about]
            return True

    def _run(self) -> None:
        wait, heard = FASTEST_POLL_S, False
        while True:
            if not heard:
                self._news.wait(wait)
            self._news.clear()
            closing = self._closing.is_set()
            self._make_calls()
            heard, rest = self._deliver()
            if closing and not heard:
                self._caller.close()
                return
            if heard:
                self._closing.wait(rest)
                # Quick while things happen, slow in silence: commits that nobody tells of are seen by polling only.
                wait = SLOWEST_POLL_S if self._told() else FASTEST_POLL_S
            else:
                wait = min(SLOWEST_POLL_S, wait * 1.5)

    def _deliver(self) -> tuple[bool, float]:
        """Deliver a page of what there is. Returns whether there was something, and how long the next may wait."""
        begun = time.monotonic()
        try:
            events, cursor = self._read(self._cursor, _PAGE, cache(self._wanted))
        except Exception as error:
            if not self._closing.is_set():
                logger.warning("Events cannot be read at the moment: %s", error)
            return False, 0.0
        # A page that is full is followed by the next at once.
        rest = 0.0 if cursor - self._cursor >= _PAGE else rest_s(time.monotonic() - begun)
        heard = cursor != self._cursor
        if events:
            self._caller.call_all(self._calls_of(events))
        self._cursor = cursor
        return heard, rest

    def _wanted(self, event_type: str) -> bool:
        return any(_covers(each.pattern, event_type) for each in self._subscriptions) or any(
            _covers(each, event_type) for each in self._once_patterns
        )

    def _calls_of(self, events: Sequence[Event]) -> Iterator[Call]:
        """Give the calls that events are for. Who is subscribed is asked for anew at each event."""
        for event in events:
            for each in self._concerned(event):
                if each.once_for is not None and not self._drop(each):
                    continue  # stopped meanwhile
                yield Call(call_of(each.handler, each.wants, event, self._subject), each.limit_s, _logs(each, event))

    def _concerned(self, event: Event) -> list[Subscription]:
        with self._lock:
            about = event.task_id or event.run_id
            once = self._once.get(about, ()) if about is not None else ()
            return [each for each in (*self._subscriptions, *once) if _covers(each.pattern, event.type)]

    def _make_calls(self) -> None:
        while self._calls:
            call = self._calls.popleft()
            try:
                self._caller.call(call, LIMIT_S)
            except Exception:
                logger.exception("A callback failed")


def _covers(pattern: Pattern, event_type: str) -> bool:
    return matches(pattern, event_type) if isinstance(pattern, str) else event_type in pattern


def _logs(subscription: Subscription, event: Event) -> Callable[[Exception], object]:
    """Return what logs that the handler of a subscription failed on an event."""
    return lambda error: logger.error(
        "The handler %r of %r failed on %s", subscription.handler, subscription.pattern, event, exc_info=error
    )


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
