"""Live: tells the other processes over the broker that there is news in the log, so that they need not poll for it.

What travels says nothing but that: the events themselves are read from the store. A word that is lost costs the time
until the next poll.
"""

import logging
import os
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kombu import Consumer, Exchange, Queue

from orchestra.bus.pace import gap_s

logger = logging.getLogger(__name__)

EXCHANGE = Exchange("orchestra.events", type="fanout", durable=False, delivery_mode="transient")
_PAUSE_S = 1.0
_LISTEN_S = 1.0


class Live:
    """Tells and hears of news, on threads that start when they are needed. A forked child tells by itself.

    Args:
        app: The Celery application whose broker is used.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._news = threading.Event()
        self._closing = threading.Event()
        self._teller: int | None = None
        self._told = 0
        """Of how many commits it was to tell since it last did; roughly, where several threads commit."""
        self._listener: threading.Thread | None = None
        self._lock = threading.Lock()

    def tell(self) -> None:
        """Say that something was committed. Quick, from any thread."""
        if self._teller != os.getpid():
            self._begin()
        self._told += 1
        self._news.set()

    def _begin(self) -> None:
        self._teller = os.getpid()
        self._news, self._closing = threading.Event(), threading.Event()
        threading.Thread(
            target=self._tell, args=(self._news, self._closing), name="orchestra-live", daemon=True
        ).start()

    def _tell(self, news: threading.Event, closing: threading.Event) -> None:
        while True:
            news.wait()
            if closing.is_set():
                return
            news.clear()
            told, self._told = self._told, 0
            try:
                with self._app.producer_or_acquire() as producer:
                    producer.publish({}, exchange=EXCHANGE, declare=[EXCHANGE], serializer="json", retry=False)
            except Exception as error:
                logger.debug("The broker does not take news at the moment: %s", error)
                closing.wait(_PAUSE_S)
            closing.wait(gap_s(told))

    @property
    def listening(self) -> bool:
        """Whether it hears what others tell, or will."""
        return self._listener is not None

    def listen(self, ring: Callable[[], object]) -> None:
        """Call ``ring`` when there may be news; a second time does nothing."""
        with self._lock:
            if self._listener is None:
                self._listener = threading.Thread(target=self._listen, args=(ring,), name="orchestra-ear", daemon=True)
                self._listener.start()

    def _listen(self, ring: Callable[[], object]) -> None:
        closing = self._closing
        name = f"orchestra.events.{uuid.uuid4().hex}"
        queue = Queue(name, EXCHANGE, exclusive=True, auto_delete=True, durable=False, no_ack=True, expires=60.0)

        def heard(_body: Any, _message: Any) -> None:
            ring()

        while not closing.is_set():
            try:
                with (
                    self._app.connection_for_read() as connection,
                    Consumer(connection, queues=[queue], callbacks=[heard], accept=["json"]),
                ):
                    ring()  # of what came before
                    while not closing.is_set():
                        with suppress(TimeoutError):
                            connection.drain_events(timeout=_LISTEN_S)
            except Exception as error:
                logger.debug("News cannot be heard at the moment: %s", error)
                closing.wait(_PAUSE_S)

    def close(self) -> None:
        """Stop; a second time does nothing."""
        self._closing.set()
        self._news.set()
