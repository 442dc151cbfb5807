"""Connection: commands and functions on pooled connections, tried again while the server is away.

A command may reach the server twice, when its answer was lost; functions know by a token, or by what they find, that
they have done it before.
"""

import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis import ConnectionPool, exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from orchestra.errors import SettingsError, StoreUnavailable
from orchestra.store.redis.library import library
from orchestra.store.redis.wire import Wire, packed

PATIENCE_S = 10.0
"""How long an operation is tried again before the store counts as away."""
_TIMEOUT_S = 5.0
_WAITS_S = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
_PASSING = ("LOADING", "BUSY", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "OOM", "MISCONF")
"""Beginnings of answers that say that the server cannot do it now."""


class Address:
    """A URL of this store: where the server is, and what the store itself is told."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        own = dict(parse_qsl(parts.query))
        self.prefix = own.pop("prefix", "orchestra")
        durable = own.pop("durable", "0")
        own.pop("protocol", None)
        where, query = f"{parts.netloc}{parts.path}", urlencode(own)
        self.server = f"{parts.scheme}://{where}?{query}" if query else f"{parts.scheme}://{where}"
        told = {"prefix": self.prefix} if self.prefix != "orchestra" else {}
        query = urlencode({**own, **told, **({"durable": durable} if durable != "0" else {})})
        login, at, host = where.rpartition("@")
        masked = f"{login.partition(':')[0]}:***" if ":" in login else login
        self.shown = f"{parts.scheme}://{masked}{at}{host}{'?' if query else ''}{query}"
        if durable not in ("0", "1"):
            raise SettingsError(f"store={self.shown!r}: durable={durable!r} is not possible: expected 0 or 1")
        if not self.prefix or any(each in self.prefix for each in "{}"):
            raise SettingsError(
                f"store={self.shown!r}: prefix={self.prefix!r} is not possible: it is empty or has braces"
            )
        self.durable = durable == "1"


class Connection:
    """The connections of one store. Threads share them; a forked child makes its own."""

    def __init__(
        self,
        address: Address,
        library: Callable[[], tuple[str, str]] = library,
        encoding_errors: str = "surrogatepass",
    ) -> None:
        self.url = address.shown
        self.key = f"{{{address.prefix}}}:"
        """What every key begins with: one hash tag for the whole store."""
        try:
            self._pool: Any = ConnectionPool.from_url(
                address.server,
                protocol=2,  # the answers of scripts are the same in both; this one is quicker to read
                decode_responses=True,
                # Texts of users may hold half of a surrogate pair; they come back as they went.
                encoding_errors=encoding_errors,
                socket_timeout=_TIMEOUT_S,
                socket_connect_timeout=_TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise SettingsError(f"store={self.url!r} is not possible: {error}") from None
        self._errors = encoding_errors
        self._library, self._text = library()
        self._closed = False
        self._begin()

    def token(self) -> str:
        """Return a text that no other call gets: by it a function sees that it was sent twice."""
        if self._pid != os.getpid():
            self._begin()
        return f"{self._process}{next(self._calls):x}"

    def run(self, name: str, *args: object) -> Any:
        """Call a function of the library and return its answer."""
        return self.command("FCALL", f"{self._library}_{name}", 1, self.key, *args)

    def command(self, *args: object, patience_s: float = PATIENCE_S) -> Any:
        """Send a command and return its answer.

        Raises:
            StoreUnavailable: The server did not answer for so long, or refused the credentials.
        """
        waits = self._waits(patience_s)
        while True:
            try:
                return self._send(args)
            except StoreUnavailable:
                raise  # it was closed: no waiting opens it again
            except exceptions.AuthenticationError as error:
                raise StoreUnavailable(self.url, str(error)) from error
            except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
                self._wait(waits, error)
            except exceptions.ResponseError as error:
                if str(error) == "Function not found" and args[0] == "FCALL":
                    self._load(waits)  # another server took over, or somebody flushed its functions
                elif str(error).startswith(_PASSING):
                    self._wait(waits, error)
                else:
                    raise

    def _load(self, waits: Iterator[float]) -> None:
        try:
            self._send(("FUNCTION", "LOAD", self._text))
        except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
            self._wait(waits, error)
        except exceptions.ResponseError as error:
            if str(error).startswith(_PASSING):
                self._wait(waits, error)
            elif "already exists" not in str(error):
                raise SettingsError(
                    f"store {self.url}: functions cannot be loaded: {error}; it must be Redis 7.0, Valkey 7.2 or newer,"
                    " and its user must be allowed FUNCTION LOAD and FCALL"
                ) from error

    def another(self) -> Any:
        """Return a connection of the driver for somebody else's use."""
        # Not by the pool: it counts all that it ever made against its limit, those that have ended included.
        return self._pool.connection_class(**self._pool.connection_kwargs)

    def close(self) -> None:
        """Close; a second time does nothing."""
        self._closed = True
        if self._pid == os.getpid():
            self._drop_idle()

    def _begin(self) -> None:
        # A forked child leaves its parent's connections alone; they are kept so that nothing closes them.
        self._inherited: object = getattr(self, "_idle", None)
        self._pid = os.getpid()
        self._idle: deque[Wire] = deque()
        self._process = secrets.token_urlsafe(4)
        self._calls = count()

    def _send(self, args: tuple[object, ...]) -> Any:
        if self._closed:
            raise StoreUnavailable(self.url, "it was closed")
        if self._pid != os.getpid():
            self._begin()
        data, wire = packed(args, self._errors), None
        try:
            wire = self._wire()
            wire.send(data)
            answer = wire.receive()
        except exceptions.ResponseError as error:
            assert wire is not None
            if isinstance(error, exceptions.ReadOnlyError):
                wire.close()  # it was the primary once; the name may lead to another server by now
            else:
                self._idle.append(wire)
            raise
        except BaseException as error:
            if wire is not None:
                wire.close()  # whatever it still brings belongs to nobody
            if isinstance(error, (exceptions.ConnectionError, ConnectionError)):
                self._drop_idle()  # a server that has gone has gone for all of them
            raise
        self._idle.append(wire)
        return answer

    def _wire(self) -> Wire:
        try:
            return self._idle.pop()
        except IndexError:
            return Wire(self.another(), self._errors)

    def _drop_idle(self) -> None:
        with suppress(IndexError):  # other threads take from it, too
            while True:
                self._idle.pop().close()

    def _waits(self, patience_s: float) -> Iterator[float]:
        until = time.monotonic() + patience_s
        for at in count():
            if time.monotonic() >= until:
                return
            yield _WAITS_S[min(at, len(_WAITS_S) - 1)]

    def _wait(self, waits: Iterator[float], error: Exception) -> None:
        wait = next(waits, None)
        if wait is None:
            raise StoreUnavailable(self.url, str(error)) from error
        time.sleep(wait)
