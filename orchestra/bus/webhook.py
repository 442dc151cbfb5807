"""Webhooks: events as signed HTTP requests, as the Standard Webhooks specification has them (standardwebhooks.com)."""

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from orchestra.errors import InvalidOption, MissingExtra, NotDelivered
from orchestra.model.event import Event

TIMEOUT_S = 10.0
TOLERANCE_S = 300.0
"""How old a request may be that ``verify`` accepts, and how far in the future."""
_PREFIX = "whsec_"
_AGAIN = frozenset({408, 425, 429})
"""Refusals that another time may not be ones."""
_IDS = uuid.UUID("5f0d8f3c-6a86-4f0e-9d0e-3f6c1f6f1d51")


class Webhook:
    """A handler that posts each event to a URL, for ``orch.on("task.failed", Webhook(url, secret=…), name="pager")``.

    The body is ``{"type", "timestamp", "data"}`` in JSON; ``data`` holds ``id``, ``run_id``, ``task_id``, ``job_id``,
    ``worker`` and ``data`` of the event. The headers ``webhook-id``, ``webhook-timestamp`` and ``webhook-signature``
    are those of the specification; the id is the same however often an event is sent.

    What is not answered, or answered with 408, 425, 429 or 5xx, is sent again, later each time. Any other answer than
    2xx is a refusal: it is logged, and the next event follows.

    Args:
        url: Where to.
        secret: ``whsec_`` and base64 of 24 to 64 bytes, as the receiver has it too.
        timeout_s: How long one request may take, in seconds.
        clock: Seconds since the epoch.

    Raises:
        InvalidOption: The URL or the secret is none.
        MissingExtra: httpx is not installed.
    """

    def __init__(
        self, url: str, *, secret: str, timeout_s: float = TIMEOUT_S, clock: Callable[[], float] = time.time
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise InvalidOption("url", url, "http://… or https://…")
        self.url, self._key, self._clock = url, _key(secret), clock
        try:
            import httpx2
        except ImportError as error:
            raise MissingExtra("webhooks", f"Webhook({url!r})") from error
        self._http = httpx2
        self._client = httpx2.Client(timeout=timeout_s, headers={"content-type": "application/json"})

    def __call__(self, event: Event) -> None:
        """Send one event.

        Raises:
            NotDelivered: It has to be sent again.
        """
        body = body_of(event)
        try:
            answer = self._client.post(self.url, content=body, headers=self._headers(event, body))
        except self._http.HTTPError as error:
            raise NotDelivered(self.url, str(error) or type(error).__name__) from error
        if answer.status_code in _AGAIN or answer.status_code >= 500:
            raise NotDelivered(self.url, f"HTTP {answer.status_code}", _seconds(answer.headers.get("retry-after")))
        answer.raise_for_status()

    def _headers(self, event: Event, body: bytes) -> Mapping[str, str]:
        # The id stays the same in every process that may send the event, and differs from those of other stores.
        about = f"{event.id} {event.time.isoformat()} {event.type} {event.run_id} {event.task_id}"
        message, at = str(uuid.uuid5(_IDS, about)), str(int(self._clock()))
        return {
            "webhook-id": message,
            "webhook-timestamp": at,
            "webhook-signature": f"v1,{_signature(self._key, message, at, body)}",
        }

    def __repr__(self) -> str:
        return f"<Webhook {self.url}>"


def body_of(event: Event) -> bytes:
    """Return what is sent of an event."""
    data: dict[str, Any] = {name: getattr(event, name) for name in ("id", "run_id", "task_id", "job_id", "worker")}
    text = {"type": event.type, "timestamp": event.time.isoformat(), "data": {**data, "data": dict(event.data)}}
    return json.dumps(text).encode()


def verify(
    secret: str, headers: Mapping[str, str], body: bytes, *, tolerance_s: float = TOLERANCE_S, now: float | None = None
) -> bool:
    """Whether a request that was received is one that was signed with a secret, lately. For receivers.

    Args:
        headers: Of the request; their names in lower case, or in a mapping that does not mind.
        body: As it was received, to the byte.
    """
    try:
        message, at, given = (headers[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
        age_s = (time.time() if now is None else now) - float(at)
    except (KeyError, ValueError):
        return False
    expected = f"v1,{_signature(_key(secret), message, at, body)}"
    known = [hmac.compare_digest(expected.encode(), each.encode()) for each in given.split()]
    return abs(age_s) <= tolerance_s and any(known)


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except ValueError:
        key = b""
    if not secret.startswith(_PREFIX) or not 24 <= len(key) <= 64:
        expected = "whsec_ and base64 of 24 to 64 random bytes"
        raise InvalidOption("secret", "…", expected)  # not what was given: errors are logged
    return key


def _signature(key: bytes, message: str, at: str, body: bytes) -> str:
    signed = hmac.digest(key, f"{message}.{at}.".encode() + body, hashlib.sha256)
    return base64.b64encode(signed).decode()


def _seconds(retry_after: str | None) -> float | None:
    """Return how long a receiver asks to be left alone, where it says so in seconds."""
    return float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
