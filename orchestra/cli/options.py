"""Options: those that several commands share, and how their values are read."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestra.errors import InvalidOption
from orchestra.model.duration import parse_duration

App = Annotated[
    str | None,
    typer.Option("--app", "-A", metavar="MODULE:ATTRIBUTE", help="Your Orchestrator; default: from ORCHESTRA_*."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Plain = Annotated[bool, typer.Option("--plain", help="Plain lines, as in a pipe.")]
Metadata = Annotated[
    list[str] | None, typer.Option("--metadata", "-m", metavar="KEY=VALUE", help="An entry; may be repeated.")
]


class LogFormat(StrEnum):
    """What log lines look like."""

    text = "text"
    json = "json"


Logs = Annotated[
    LogFormat | None,
    typer.Option("--log-format", help="Lines of text or of JSON; default ORCHESTRA_LOG_FORMAT, or text."),
]
MetricsPort = Annotated[
    int | None,
    typer.Option(
        "--metrics-port",
        min=0,
        max=65535,
        help="Serve /metrics, /healthz and /readyz here; default ORCHESTRA_METRICS_PORT.",
    ),
]
MetricsHost = Annotated[
    str | None, typer.Option("--metrics-host", help="Address of that port; default 127.0.0.1; 0.0.0.0 for all.")
]
Heartbeat = Annotated[
    Path | None,
    typer.Option(
        "--heartbeat", metavar="FILE", help="Write to this file every second while live: 'ready', or why it is not."
    ),
]


def value(text: str) -> Any:
    """Return what JSON text holds; what is no JSON is text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def entries(given: Sequence[str] | None, option: str = "--metadata") -> dict[str, Any]:
    """Return the entries of ``key=value`` options.

    Raises:
        InvalidOption: One has no key.
    """
    pairs = [(each, *each.partition("=")) for each in given or ()]
    for each, key, equals, _text in pairs:
        if not (key and equals):
            raise InvalidOption(option, each, "key=value, such as team=billing")
    return {key: value(text) for _each, key, _equals, text in pairs}


def duration(text: str, option: str) -> timedelta:
    """Return the duration that a text says: ``90``, ``90s``, ``15m``, ``12h``.

    Raises:
        InvalidOption: It says none.
    """
    try:
        return parse_duration(text)
    except ValueError:
        raise InvalidOption(option, text, "a duration such as 90s or 5m") from None


def since(text: str) -> Any:
    """Return how long ago (``90m``) or the moment (ISO 8601) that a text says.

    Raises:
        InvalidOption: It is neither.
    """
    try:
        return parse_duration(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise InvalidOption("--since", text, "a duration such as 90m, or a time such as 2030-01-31T12:00") from None


def dump(facts: object, *, indent: int | None = 2) -> str:
    """Return the JSON text of what a command prints."""
    return json.dumps(facts, indent=indent, ensure_ascii=False, default=str)


def short(seconds: float) -> str:
    """Return a duration for people."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 100 else f"{int(seconds) // 60} min {int(seconds) % 60:02} s"
