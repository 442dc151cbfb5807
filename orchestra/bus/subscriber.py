"""Named subscribers: each reads the log behind a cursor that the store keeps, so that it misses nothing while away."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

from orchestra.bus.calling import Caller
from orchestra.bus.pace import rest_s
from orchestra.errors import NotDelivered, StoreUnavailable
from orchestra.model.event import Event, Wanted, matches, position

logger = logging.getLogger(__name__)

HELD_S = 5.0
"""For how long a cursor is held without being renewed."""
_RENEW_S = 1.0
SAVE_S = 0.25
"""How often the cursor is moved while events are delivered. What was delivered after the last time comes once more."""
_IDLE_POLL_S = 0.25
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 60.0
"""Between two times that an event is given to a handler that did not take it; doubled each time."""
_MOST_ROWS = 200


@dataclass(frozen=True, slots=True)
class Log:
    """What a subscriber needs of a store."""

    events: Callable[[int, int, Wanted], tuple[Sequence[Event], int]]
    end: Callable[[], int]
    take: Callable[[str, str, int, float, float, str], tuple[int, str]]
    """Takes a cursor, as ``store.cursors`` says: name, holder, start, now, until, instead of whom → place, holder."""
    move: Callable[[str, str, int, float], bool]
    """Moves one: name, holder, place, until."""
    clock: Callable[[], float]
    me: str
    """Names this process, as other processes see it."""
    is_gone: Callable[[str], bool]
    """Whether the process of that name is known to be gone."""


class Subscriber:
    """Delivers the events of a pattern to one handler, at least once each, in the order of the log.

    It goes on where it, or an earlier process under the same name, stopped. Several processes under one name take
    turns: one at a time delivers. A handler that raises, or takes too long, is logged with the event, which counts as
    delivered; one that raises NotDelivered gets the event again, and the events behind it wait.

    Args:
        deliver: Calls the handler with an event.
        limit_s: How long one call may take.
    """

    def __init__(self, name: str, pattern: str, deliver: Callable[[Event], object], log: Log, limit_s: float) -> None:
        self.name, self.pattern = name, pattern
        self._deliver, self._log, self._limit_s = deliver, log, limit_s
        self._caller = Caller(f"orchestra-{name}", self._renew)
        self._news = threading.Event()
        self._closing = threading.Event()
        self._rest_s = 0.0
        """How long the next read may wait."""
        self._seq: int | None = None
        """The last row of the log that was dealt with; None while another process reads."""
        self._saved_at = 0.0
        self._thread = threading.Thread(target=self._run, name=f"orchestra-subscriber-{name}", daemon=True)

    def start(self) -> None:
        """Take the cursor, if it is free, and begin: a subscriber that is new hears what is committed from now on."""
        self._take()
        self._thread.start()

    def ring(self) -> None:
        """Say that there may be news. Quick, from any thread."""
        self._news.set()

    def close(self, timeout_s: float = 0.3) -> None:
        """Stop after what is being delivered now, and give the cursor back; a second time does nothing."""
        self._closing.set()
        self._news.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                busy = self._turn()
            except Exception as error:
                if not self._closing.is_set():
                    logger.warning("Subscriber %r cannot read events at the moment: %s", self.name, error)
                busy = False
            if busy:
                self._closing.wait(self._rest_s)
            else:
                self._news.wait(_IDLE_POLL_S)
            self._news.clear()
        self._caller.close()
        if self._seq is not None:
            self._give_back(self._seq)

    def _turn(self) -> bool:
        """Deliver what there is, as far as this process is the one to. Returns whether there may be more."""
        if self._seq is None and not self._take():
            return False
        assert self._seq is not None
        begun = time.monotonic()
        events, last = self._log.events(self._seq, _MOST_ROWS, cache(partial(matches, self.pattern)))
        # A page that is full is followed by the next at once.
        self._rest_s = 0.0 if last - self._seq >= _MOST_ROWS else rest_s(time.monotonic() - begun)
        if last == self._seq:
            self._renew()
            return False
        for event in events:
            row = position(event.id)[0]
            # A row is dealt with when an event of the next one comes: one transaction may have written several.
            if row - 1 > self._seq:
                self._seq = row - 1
                if time.monotonic() - self._saved_at > SAVE_S and not self._save():
                    return False
            if self._closing.is_set():
                return False
            if not self._hand(event):
                return False
            if not self._holds():  # lost to another process while the handler took its time
                return False
        self._seq = last
        return self._save()

    def _holds(self) -> bool:
        return self._seq is not None

    def _hand(self, event: Event) -> bool:
        """Give an event to the handler, until it takes it. False when this is not the process to do so any more."""
        wait_s = _FIRST_PAUSE_S
        while True:
            try:
                self._caller.call(lambda: self._deliver(event), self._limit_s)
            except StoreUnavailable:
                raise  # nothing to do with the event: it comes again when the store is back
            except NotDelivered as error:
                pause_s = max(wait_s, error.after_s or 0.0)
                logger.warning("Subscriber %r: %s; it is sent again in %.1f s", self.name, error, pause_s)
                if not self._pause(pause_s):
                    return False
                wait_s = min(_LONGEST_PAUSE_S, wait_s * 2)
            except Exception:
                logger.exception("The subscriber %r failed on %s", self.name, event)
                return True
            else:
                return True

    def _pause(self, seconds: float) -> bool:
        """Wait, holding the cursor. False when the wait was in vain."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._news.wait(min(_RENEW_S, left))
            if self._closing.is_set():
                return False
            self._news.clear()
            self._renew()
            if not self._holds():
                return False
        return True

    def _take(self) -> bool:
        log = self._log
        now = log.clock()
        seq, holder = log.take(self.name, log.me, log.end(), now, now + HELD_S, "")
        if holder != log.me and log.is_gone(holder):
            seq, holder = log.take(self.name, log.me, 0, now, now + HELD_S, holder)
        self._seq = seq if holder == log.me else None
        self._saved_at = time.monotonic()
        return self._seq is not None

    def _renew(self) -> None:
        if self._seq is not None and time.monotonic() - self._saved_at > _RENEW_S:
            self._save()

    def _save(self) -> bool:
        """Move the cursor. False when another process has taken over; then this one stops delivering."""
        assert self._seq is not None
        self._saved_at = time.monotonic()
        if not self._log.move(self.name, self._log.me, self._seq, self._log.clock() + HELD_S):
            self._seq = None
        return self._seq is not None

    def _give_back(self, seq: int) -> None:
        try:
            self._log.move(self.name, self._log.me, seq, 0.0)
        except Exception as error:
            logger.info("The cursor of %r could not be given back, and is free in %g s: %s", self.name, HELD_S, error)
