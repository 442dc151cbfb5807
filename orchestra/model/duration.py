"""Durations as people write them in settings and commands: ``90``, ``90s``, ``15m``, ``12h``, ``30d``, ``2w``."""

import re
from datetime import timedelta

_UNITS = {"": "seconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_WRITTEN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw]?)", re.ASCII)


def parse_duration(text: str) -> timedelta:
    """Return the duration that a text says: a number, which may have a fraction, and one unit; seconds without one.

    >>> parse_duration("1.5h")
    datetime.timedelta(seconds=5400)

    Raises:
        ValueError: It says none. ``m`` is minutes; months and years have no fixed length.
    """
    found = _WRITTEN.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(f"{text!r} is no duration: expected a number and s, m, h, d or w, such as 90s, 12h or 30d")
    number, unit = found.groups()
    try:
        return timedelta(**{_UNITS[unit]: float(number)})
    except OverflowError:
        raise ValueError(f"{text!r} is too long a duration: expected less than 999,999,999 days") from None
