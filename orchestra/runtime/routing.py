"""Routing: one priority scale, 1 (highest) to 10, what each broker needs to keep it, and how a step is told apart."""

from collections.abc import Callable, Mapping
from typing import Any

from celery import Celery

HEADER = "orchestra"
"""The message header that marks a step."""

PRIORITY_STEPS = list(range(10))
"""Redis keeps a list per step, lowest number first; stock Celery has four steps, which would merge priorities."""

VISIBILITY_TIMEOUT_S = 12 * 3600
"""Redis hands a message out again after this time. Recovery does not wait for it, and a claim refuses the double."""

CONNECT_TIMEOUT_S = 5
"""How long a server may take to accept a connection. Without a limit it would be the system's: minutes."""


def to_broker(url: str) -> Callable[[int], int]:
    """Return the translation of a priority into the scale of the broker behind a URL."""
    return _to_redis if is_redis(url) else _to_amqp


def transport_options(url: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return transport options with what priorities need, unless the user has set it otherwise."""
    if not is_redis(url):
        return dict(own)
    return {
        "priority_steps": PRIORITY_STEPS,
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_keepalive": True,
        **own,
    }


def tune(app: Celery) -> None:
    """Set the transport options of an application whose broker may only have become known by now. May be repeated."""
    options: dict[str, Any] = dict(app.conf.broker_transport_options or {})
    app.conf.broker_transport_options = transport_options(str(app.conf.broker_url or ""), options)


def is_redis(url: str) -> bool:
    """Whether a URL is that of a Redis broker, by any of its transports."""
    return url.startswith(("redis", "sentinel", "valkey"))


def _to_redis(priority: int) -> int:
    return priority - 1


def _to_amqp(priority: int) -> int:
    return 10 - priority
