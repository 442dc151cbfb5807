"""Subscriptions: who hears of events in this process, under a name or without."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from orchestra.bus.calling import LIMIT_S
from orchestra.bus.subscriber import Log, Subscriber
from orchestra.bus.tail import Handler, Tail, call_of, wants
from orchestra.bus.webhook import Webhook
from orchestra.engine.recovery import why_dead
from orchestra.errors import InvalidOption
from orchestra.lifetime import Lifetime
from orchestra.model import options
from orchestra.model.event import Event, check_pattern
from orchestra.model.ids import new_id
from orchestra.model.options import Duration
from orchestra.runtime.machine import this_machine
from orchestra.wiring import Parts

Subject = Callable[[Event], object]


class Subscriptions:
    """The tail for handlers of this process, and the named subscribers that it serves.

    Args:
        subject: Returns what a handler of one argument gets for an event.
    """

    def __init__(self, parts: Parts, lifetime: Lifetime, subject: Subject) -> None:
        self._parts, self._lifetime, self._subject = parts, lifetime, subject
        live = parts.live
        self.tail = Tail(
            lambda cursor, limit, wanted: lifetime.store.events(cursor, limit, wanted=wanted),
            lambda: lifetime.store.last_event(),
            subject,
            lambda: live is not None and live.listening,
        )
        self._named: dict[str, Subscriber] = {}
        self._lock = threading.Lock()

    def add(self, pattern: str, handler: Handler, name: str | None, timeout: Duration | None) -> None:
        """Deliver the events of a pattern to a handler.

        Raises:
            InvalidOption: There is no event of that type, the handler takes other arguments, or the name is in use.
        """
        check_pattern(pattern)
        limit_s = LIMIT_S if timeout is None else options.seconds("timeout", timeout)
        if isinstance(handler, Webhook) and name is None:
            raise InvalidOption("name", name, "a name for a Webhook, under which it goes on where it stopped")
        if name is None:
            self.tail.subscribe(pattern, handler, limit_s)
        else:
            self._add_named(options.text("name", name), pattern, handler, limit_s)
        self.listen()

    def listen(self) -> None:
        """Hear of commits of other processes at once, where there is a broker to hear of them from."""
        if self._parts.live is not None:
            self._parts.live.listen(self.ring)

    def _add_named(self, name: str, pattern: str, handler: Handler, limit_s: float) -> None:
        wanted = wants(handler)
        with self._lock:
            if name in self._named:
                raise InvalidOption("name", name, "a name that no other handler of this process has")
            made = Subscriber(
                name, pattern, lambda event: call_of(handler, wanted, event, self._subject)(), self._log(), limit_s
            )
            self._named[name] = made
        made.start()

    def _log(self) -> Log:
        store = self._lifetime.store
        me = _Holder.this()
        clock = self._parts.cycle.clock
        return Log(
            lambda after, limit, wanted: store.events(after, limit, wanted=wanted),
            store.last_event, store.take_cursor, store.move_cursor, clock, str(me), is_gone,
        )  # fmt: skip

    def ring(self) -> None:
        """Say that there may be news. Quick, from any thread."""
        self.tail.ring()
        for each in tuple(self._named.values()):
            each.ring()

    def close(self) -> None:
        """Deliver what handlers without a name have still to hear, and stop; a second time does nothing."""
        for each in self._named.values():
            each.close()
        self.tail.close()
        if self._parts.live is not None:
            self._parts.live.close()


@dataclass(frozen=True, slots=True)
class _Holder:
    """A process that reads for a subscriber, as other processes see it. It has what ``why_dead`` asks of a lease."""

    host: str
    boot_id: str
    pid: int
    pid_started: float
    one: str
    """Which orchestrator of the process."""
    expires_at: float = float("inf")

    @classmethod
    def this(cls) -> "_Holder":
        machine = this_machine()
        return cls(machine.host, machine.boot_id, machine.pid, machine.pid_started, new_id()[-8:])

    @classmethod
    def of(cls, text: str) -> "_Holder":
        host, boot_id, pid, started, one = text.split("|")
        return cls(host, boot_id, int(pid), float(started), one)

    def __str__(self) -> str:
        return f"{self.host}|{self.boot_id}|{self.pid}|{self.pid_started:.0f}|{self.one}"


def is_gone(holder: str) -> bool:
    """Whether a process that reads for a subscriber is known to be gone: those of this machine are seen at once."""
    return why_dead(_Holder.of(holder), this_machine(), now=0.0, may_expire=False) is not None
