"""Wire: commands and answers on a connection that redis-py has opened.

redis-py knows how to connect: names, TLS, passwords, databases. What it does for each command after that takes longer
than the kernel does to carry it: four fifths of the processor time of a call.
"""

import select
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from redis import exceptions

_CHUNK = 65_536
_KINDS: dict[str, type[exceptions.RedisError]] = {
    "LOADING": exceptions.BusyLoadingError,
    "NOAUTH": exceptions.AuthenticationError,
    "NOPERM": exceptions.NoPermissionError,
    "READONLY": exceptions.ReadOnlyError,
    "WRONGPASS": exceptions.AuthenticationError,
}


def packed(command: Sequence[object], errors: str = "surrogatepass") -> bytes:
    """Return a command as it travels. ``errors`` says how texts that are no UTF-8 become bytes, and bytes texts."""
    parts = [f"*{len(command)}\r\n"]
    for each in command:
        text = each if isinstance(each, str) else _text(each, errors)
        # The length is that of its bytes, which for most texts is the same.
        length = len(text) if text.isascii() else len(text.encode("utf-8", errors))
        parts.append(f"${length}\r\n{text}\r\n")
    return "".join(parts).encode("utf-8", errors)


def _text(value: object, errors: str) -> str:
    return value.decode("utf-8", errors) if isinstance(value, bytes) else repr(value)


class Wire:
    """What travels on one connection. Where something goes wrong with that, close it: the rest belongs to nobody.

    Args:
        connection: A connection of redis-py that nobody else uses; it is opened unless it is open.
        errors: How bytes that are no UTF-8 become texts.

    Raises:
        OSError, redis.exceptions.ConnectionError: It cannot be opened; in other methods: it is broken.
    """

    def __init__(self, connection: Any, errors: str = "surrogatepass") -> None:
        self._connection, self._errors = connection, errors
        connection.connect()
        self._socket: Any = connection._sock  # noqa: SLF001  (its answers so far have all been read)
        self._polled = select.poll()
        self._polled.register(self._socket, select.POLLIN)
        self._data, self._at = b"", 0

    def send(self, data: bytes) -> None:
        """Send commands that are packed."""
        self._socket.sendall(data)

    def receive(self) -> Any:
        """Wait for the next answer and return it; an error of the server inside a list is returned as a value.

        Raises:
            redis.exceptions.ResponseError: The server refused the command. The connection is as good as before.
        """
        answer = self._answer()
        if self._at == len(self._data):
            self._data, self._at = b"", 0
        if isinstance(answer, exceptions.RedisError):
            raise answer
        return answer

    def has_more(self) -> bool:
        """Whether there is something to receive at once, be it the end of the connection."""
        return self._at < len(self._data) or bool(self._polled.poll(0))

    def be_patient(self, seconds: float) -> None:
        """Wait for the server for so long from now on; then it counts as broken."""
        self._socket.settimeout(seconds)

    def close(self) -> None:
        """Close the connection; a second time does nothing."""
        self._connection.disconnect()

    def __del__(self) -> None:
        with suppress(Exception):  # it may not have come so far
            self.close()

    def _answer(self) -> Any:
        line = self._line()
        kind, rest = line[:1], line[1:]
        match kind:
            case b"$":
                length = int(rest)
                return None if length < 0 else self._bulk(length)
            case b":":
                return int(rest)
            case b"*":
                return None if rest == b"-1" else [self._answer() for _ in range(int(rest))]
            case b"+":
                return str(rest, "utf-8", self._errors)
            case b"-":
                return _refusal(str(rest, "utf-8", "replace"))
            case _:
                raise exceptions.ConnectionError(f"the server answered what is not of its protocol: {line[:80]!r}")

    def _line(self) -> bytes:
        while (end := self._data.find(b"\r\n", self._at)) < 0:
            self._data, self._at = self._data[self._at :] + self._received(), 0
        line, self._at = self._data[self._at : end], end + 2
        return line

    def _bulk(self, length: int) -> str:
        end = self._at + length
        missing = end + 2 - len(self._data)
        if missing > 0:
            chunks = [self._data[self._at :]]
            while missing > 0:
                chunks.append(self._received())
                missing -= len(chunks[-1])
            self._data, self._at, end = b"".join(chunks), 0, length
        text = str(self._data[self._at : end], "utf-8", self._errors)
        self._at = end + 2
        return text

    def _received(self) -> bytes:
        data = self._socket.recv(_CHUNK)
        if not data:
            raise exceptions.ConnectionError("Connection closed by server.")
        return data


def _refusal(text: str) -> exceptions.RedisError:
    code, _space, rest = text.partition(" ")
    return _KINDS.get(code, exceptions.ResponseError)(rest if code == "ERR" else text)
