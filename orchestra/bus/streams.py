"""Streams: the texts that running steps write, on their way to those who follow a run. Nothing waits for them.

What is lost is lost: a follower hears what is said from then on, what comes too fast is left out, and a broker that is
away costs what was said meanwhile. What a step came to is in the store.
"""

import logging
import os
import queue
import threading
import uuid
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any, Protocol

from kombu import Consumer, Exchange, Queue

from orchestra.model.piece import Piece

logger = logging.getLogger(__name__)

GAP_S = 0.05
"""A process sends at most so often."""
MOST_WAITING = 100_000
"""Characters that wait to be sent by one process; more are left out."""
MOST_HEARD = 10_000
"""Pieces that wait for one follower; more are left out."""
_BEGIN_S = 5.0
_FIRST_LOOK_S, _LISTEN_S = 0.001, 0.2
_PAUSE_S = 1.0


class Streams(Protocol):
    """Takes pieces, and gives them to those who follow."""

    def say(self, piece: Piece) -> None:
        """Send a piece. Quick, from any thread."""
        ...

    def follow(self, run_id: str) -> AbstractContextManager["queue.Queue[Piece]"]:
        """Hear the pieces of a run from now on."""
        ...


class Stream(Iterator[Piece]):
    """What is heard of a run, or of one step of it. It is listened for from the beginning, until it ends or is dropped.

    Args:
        following: Gives what is heard, while it is open.
        ended: Says whether nothing more will be said.
        step_id: The one step.
    """

    def __init__(
        self, following: AbstractContextManager[queue.Queue[Piece]], ended: Callable[[], bool], step_id: str | None
    ) -> None:
        opened = ExitStack()
        self._heard = opened.enter_context(following)
        self._ended, self._step_id, self._over = ended, step_id, False
        self.close = weakref.finalize(self, opened.close)
        """Stops listening."""

    def __next__(self) -> Piece:
        while self.close.alive:
            try:
                piece = self._heard.get(timeout=_LISTEN_S)
            except queue.Empty:
                if self._over:
                    self.close()
                self._over = self._over or self._ended()  # what was said last may be on its way: listen once more
            else:
                if self._step_id in (None, piece.step_id):
                    return piece
        raise StopIteration


class LocalStreams:
    """Within one process."""

    def __init__(self) -> None:
        self._followers: dict[str, list[queue.Queue[Piece]]] = {}
        self._lock = threading.Lock()

    def say(self, piece: Piece) -> None:
        """See ``Streams``."""
        for each in self._followers.get(piece.step_id.partition(".")[0], ()):
            with suppress(queue.Full):
                each.put_nowait(piece)

    @contextmanager
    def follow(self, run_id: str) -> Generator[queue.Queue[Piece]]:
        """See ``Streams``."""
        heard: queue.Queue[Piece] = queue.Queue(MOST_HEARD)
        with self._lock:
            self._followers[run_id] = [*self._followers.get(run_id, ()), heard]
        try:
            yield heard
        finally:
            with self._lock:
                left = [each for each in self._followers[run_id] if each is not heard]
                self._followers[run_id] = left
                if not left:
                    del self._followers[run_id]


class BrokerStreams:
    """Over the broker of a Celery application, which drops what nobody follows. A forked child sends by itself."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._teller: int | None = None
        self._lock = threading.Lock()
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._waiting: dict[tuple[str, str], list[Piece]] = {}
        self._size = 0
        self._news = threading.Event()

    def say(self, piece: Piece) -> None:
        """See ``Streams``."""
        if self._teller != os.getpid():
            self._teller, self._lock = os.getpid(), threading.Lock()  # another thread of the parent may have held it
            self._begin_anew()
            threading.Thread(target=self._tell, name="orchestra-streams", daemon=True).start()
        with self._lock:
            if self._size + len(piece.text) > MOST_WAITING:
                return
            self._size += len(piece.text)
            self._waiting.setdefault((piece.step_id, piece.by), []).append(piece)
        self._news.set()

    def _tell(self) -> None:
        pause = threading.Event()
        while True:
            self._news.wait()
            self._news.clear()
            with self._lock:
                waiting, self._waiting, self._size = self._waiting, {}, 0
            try:
                with self._app.producer_or_acquire() as producer:
                    exchange = _exchange(producer.connection)
                    for pieces in waiting.values():
                        run_id = pieces[0].step_id.partition(".")[0]
                        body = [list(each) for each in joined(pieces)]
                        producer.publish(
                            body, exchange=exchange, routing_key=run_id, declare=[exchange], serializer="json",
                            retry=False, delivery_mode="transient",
                        )  # fmt: skip
            except Exception as error:
                logger.debug("The broker does not take the texts of steps at the moment: %s", error)
                pause.wait(_PAUSE_S)
            pause.wait(GAP_S)

    @contextmanager
    def follow(self, run_id: str) -> Generator[queue.Queue[Piece]]:
        """See ``Streams``. It returns when the broker listens, or after 5 s without it."""
        heard: queue.Queue[Piece] = queue.Queue(MOST_HEARD)
        begun, over = threading.Event(), threading.Event()
        ear = threading.Thread(target=self._listen, args=(run_id, heard, begun, over), daemon=True)
        ear.start()
        begun.wait(_BEGIN_S)
        try:
            yield heard
        finally:
            over.set()

    def _listen(self, run_id: str, heard: queue.Queue[Piece], begun: threading.Event, over: threading.Event) -> None:
        def hear(body: Any, _message: Any) -> None:
            for each in body:
                with suppress(queue.Full):
                    heard.put_nowait(Piece(*each))

        while not over.is_set():
            try:
                with self._app.connection_for_read() as connection:
                    name = f"orchestra.streams.{uuid.uuid4().hex}"
                    its = Queue(
                        name, _exchange(connection), routing_key=run_id, exclusive=True, auto_delete=True,
                        durable=False, no_ack=True, expires=60.0, max_length=MOST_HEARD,
                    )  # fmt: skip
                    with Consumer(connection, queues=[its], callbacks=[hear], accept=["json"]):
                        while not over.is_set():
                            with suppress(TimeoutError):  # Redis is told of a listener when it first looks
                                connection.drain_events(timeout=_LISTEN_S if begun.is_set() else _FIRST_LOOK_S)
                            begun.set()
            except Exception as error:
                logger.debug("The texts of steps cannot be heard at the moment: %s", error)
                over.wait(_PAUSE_S)


def _exchange(connection: Any) -> Exchange:
    """Return what tells the runs apart on the broker: Redis does so for fanouts, which keep nothing for nobody."""
    kind = "direct" if connection.transport.driver_type == "amqp" else "fanout"
    return Exchange("orchestra.streams", type=kind, durable=False, delivery_mode="transient")


def joined(pieces: list[Piece]) -> list[Piece]:
    """Return the pieces of one text with those that follow on each other joined. Pure."""
    found: list[Piece] = []
    for each in pieces:
        last = found[-1] if found else None
        if last is not None and last.offset + len(last.text) == each.offset:
            found[-1] = last._replace(text=last.text + each.text)
        else:
            found.append(each)
    return found
