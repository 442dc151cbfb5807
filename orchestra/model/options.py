"""Options that people give: checked once, where they are given, with an error that says what was expected."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias, TypeVar, cast

from orchestra.errors import InvalidOption
from orchestra.model import template

DEFAULT_PRIORITY = 5
LONGEST_NAME = 200
LONGEST_TIMEOUT_S = 366 * 86_400.0

E = TypeVar("E", bound=StrEnum)

Duration: TypeAlias = float | int | timedelta
"""Seconds, or a timedelta."""
When: TypeAlias = float | int | timedelta | datetime
"""Seconds from now, a timedelta from now, or an aware datetime."""


def seconds(option: str, value: Duration, *, minimum: float = 0.0, above: bool = False) -> float:
    """Return a duration in seconds, or raise InvalidOption naming the option."""
    match value:
        case timedelta():
            result = value.total_seconds()
        case bool():
            raise InvalidOption(option, value, "seconds or a timedelta")
        case int() | float():
            result = float(value)
        case _:  # pyright: ignore[reportUnnecessaryComparison] — callers are not all type-checked
            raise InvalidOption(option, value, "seconds or a timedelta")
    if not (minimum < result if above else minimum <= result) or result > LONGEST_TIMEOUT_S:
        bound = "more than" if above else "at least"
        raise InvalidOption(option, value, f"{bound} {minimum:g} s and at most {LONGEST_TIMEOUT_S:g} s")
    return result


def moment(option: str, value: When, now: float) -> float:
    """Return a time in seconds since the epoch: an aware datetime, or so long from now."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidOption(option, value, "a datetime with a time zone, seconds from now or a timedelta")
        return value.timestamp()
    return now + seconds(option, value, above=True)


def priority(value: object) -> int:
    """Return a priority, 1 (highest) to 10, or raise InvalidOption."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 10:
        raise InvalidOption("priority", value, "a whole number from 1 (highest) to 10")
    return value


def timeout(value: Duration | None) -> float | None:
    """Return a time limit in seconds; None means no limit."""
    return None if value is None else seconds("timeout", value, above=True)


def queue(value: object) -> str:
    """Return the name of a queue, or raise InvalidOption."""
    if not isinstance(value, str) or not value.strip() or "," in value or len(value) > 200:
        raise InvalidOption("queue", value, "a name of 1 to 200 characters without commas")
    return value


def at_least_one(option: str, value: object) -> int:
    """Return a whole number of at least 1, or raise InvalidOption."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidOption(option, value, "a whole number of at least 1")
    return value


def member(kind: type[E], option: str, value: object) -> E:
    """Return the member of an enumeration that a value or text names, or raise InvalidOption."""
    try:
        return kind(value)
    except ValueError:
        raise InvalidOption(option, value, f"one of {', '.join(kind)}") from None


def since(value: datetime | timedelta | None, now: float) -> float | None:
    """Return a point in time, in seconds since the epoch; a timedelta counts back from now. Or raise InvalidOption."""
    match value:
        case None:
            return None
        case timedelta():
            return now - value.total_seconds()
        case datetime():
            if value.tzinfo is None:
                raise InvalidOption("since", value, "a datetime with a time zone, or a timedelta")
            return value.timestamp() - 1e-6  # a datetime is rounded: a run's own created_at has to find it


def fallback(value: object) -> object:
    """Return something to call, or None; or raise InvalidOption."""
    if value is not None and not (callable(value) or isinstance(value, str)):
        raise InvalidOption("fallback", value, "something to call: a function, a @task, a Celery task or its name")
    return value


def text(option: str, value: object) -> str:
    """Return a name, id or key that people give, or raise InvalidOption."""
    if not isinstance(value, str) or not value.strip() or len(value) > LONGEST_NAME:
        raise InvalidOption(option, value, f"text of 1 to {LONGEST_NAME} characters")
    if any(each < " " or "\ud800" <= each <= "\udfff" for each in value):
        raise InvalidOption(option, value, "text on one line, without control characters or halves of surrogate pairs")
    return value


def metadata(value: object) -> dict[str, object]:
    """Return metadata as JSON holds it, or raise InvalidOption or UnserialisableInput."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidOption("metadata", value, "a mapping with text keys")
    items: dict[str, object] = {}
    for key, each in value.items():  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(key, str):
            raise InvalidOption("metadata", value, f"text keys, not {key!r}")  # pyright: ignore[reportUnknownArgumentType]
        items[key] = each
    return cast(dict[str, object], template.plain(items, path="metadata"))
