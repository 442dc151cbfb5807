"""Listening: one connection that is subscribed to what somebody in this process waits for."""

from collections.abc import Callable, Collection, Generator, Iterable
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from redis import exceptions

from orchestra.store.ears import Deaf, Source, ThreadedEars
from orchestra.store.task_results import Changed


class RedisEars(ThreadedEars):
    """A channel for each task. Payloads come along, so that nothing has to be read."""

    def __init__(self, connect: Callable[[], Any], prefix: str, changed: Changed) -> None:
        super().__init__(changed)
        self._connect, self._prefix = connect, prefix

    def _open(self) -> AbstractContextManager[Source]:
        return self._subscribed()

    @contextmanager
    def _subscribed(self) -> Generator[Source]:
        connection = self._connect()
        try:
            connection.connect()
            yield _Subscription(connection, self._prefix)
        except (exceptions.RedisError, OSError) as error:
            raise Deaf(str(error)) from error
        finally:
            connection.disconnect()


class _Subscription:
    def __init__(self, connection: Any, prefix: str) -> None:
        self._connection, self._prefix = connection, prefix

    def join(self, task_ids: Collection[str]) -> None:
        if task_ids:
            self._send("SUBSCRIBE", *(self._prefix + each for each in task_ids))

    def leave(self, task_id: str) -> None:
        self._send("UNSUBSCRIBE", self._prefix + task_id)

    def _send(self, *command: str) -> None:
        # Who hears finds out, too, and then everything is subscribed to again.
        with suppress(exceptions.RedisError, OSError):
            self._connection.send_command(*command, check_health=False)

    def hear(self, timeout_s: float) -> Iterable[tuple[str | None, bytes | None]]:
        try:
            if not self._connection.can_read(timeout=timeout_s):
                return
            while True:
                kind, channel, said = self._connection.read_response()
                task_id = channel.removeprefix(self._prefix)
                if kind == "message":
                    yield task_id, said.encode("utf-8", "surrogateescape")
                elif kind == "subscribe":
                    yield task_id, None  # what happened before this was not told
                if not self._connection.can_read(timeout=0):
                    return
        except (exceptions.RedisError, OSError) as error:
            raise Deaf(str(error)) from error
