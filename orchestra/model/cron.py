"""Cron expressions: five fields or a macro, checked where they are given, with the place of what is wrong."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from orchestra.errors import InvalidSchedule

MACROS: Mapping[str, str] = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_ITEM = re.compile(r"(?P<first>\*|\?|\w+)(?:-(?P<last>\w+))?(?:/(?P<step>\w+))?\Z", re.ASCII)
_Refuse = Callable[[int, str, str], InvalidSchedule]
# croniter 7.0 takes a range of one, such as 22-22, for all there are.
_ONE = re.compile(r"\b(\w+)-\1(?:/\w+)?(?=,|\Z)", re.ASCII)
_NTH = re.compile(r"(?P<day>\w+)#(?P<nth>\w+)\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Field:
    """What may stand in one place of an expression."""

    name: str
    lowest: int
    highest: int
    names: Mapping[str, int] = field(default_factory=dict[str, int])


FIELDS = (
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day of the month", 1, 31),
    Field("month", 1, 12, {name: at for at, name in enumerate(_MONTHS, 1)}),
    Field("day of the week", 0, 7, {name: at for at, name in enumerate(_DAYS)}),
)


def check(expression: object) -> str:
    """Return the five fields of a cron expression, macros replaced, in lower case with single spaces.

    Fields hold ``*``, numbers, names of months and days, ranges ``a-b``, steps ``/n``, and lists of these; the day of
    the month may be ``L`` (the last one), the day of the week ``mon#2`` (the second Monday). Where both days are given,
    either one is enough.

    Raises:
        InvalidSchedule: It says at which character, what was expected there, and what to write instead.
    """
    if not isinstance(expression, str) or not expression.strip():
        raise InvalidSchedule("cron", expression, None, "it is no text", _EXAMPLE)
    text = expression.strip().lower()
    if text.startswith("@"):
        if text not in MACROS:
            raise InvalidSchedule("cron", expression, 1, f"no macro {text!r}", f"use one of {', '.join(MACROS)}")
        return MACROS[text]
    parts = [(match.start(), match[0].lower()) for match in re.finditer(r"\S+", expression)]
    _check_count(expression, parts)
    for (start, part), each in zip(parts, FIELDS, strict=True):
        for offset, item in _items(part):
            _check_item(expression, start + offset, item, each)
    return " ".join(_ONE.sub(r"\1", part) for _start, part in parts)


_EXAMPLE = "write five fields: minute hour day month weekday, such as '30 9 * * mon-fri'"


def _check_count(expression: str, parts: list[tuple[int, str]]) -> None:
    if len(parts) == len(FIELDS):
        return
    position = parts[5][0] + 1 if len(parts) > 5 else len(expression) + 1
    hint = "for seconds use interval_seconds=…; " if len(parts) == 6 else ""
    raise InvalidSchedule("cron", expression, position, f"{len(parts)} fields where there are five", hint + _EXAMPLE)


def _items(part: str) -> Iterator[tuple[int, str]]:
    at = 0
    for item in part.split(","):
        yield at, item
        at += len(item) + 1


def _check_item(expression: str, start: int, item: str, where: Field) -> None:
    """Check one item of a list: ``*/5``, ``mon-fri``, ``L``, ``mon#2``."""

    def refuse(offset: int, reason: str, hint: str) -> InvalidSchedule:
        return InvalidSchedule("cron", expression, start + offset + 1, f"{reason} in the {where.name}", hint)

    def number(text: str, offset: int) -> int:
        value = where.names.get(text, int(text) if text.isdecimal() else -1)
        if not where.lowest <= value <= where.highest:
            names = f" or {', '.join(where.names)}" if where.names else ""
            raise refuse(offset, f"{text!r} is not possible", f"use {where.lowest} to {where.highest}{names}")
        return value

    if item == "l" and where.name == "day of the month":
        return
    nth = _NTH.match(item)
    if nth is not None and where.name == "day of the week":
        number(nth["day"], 0)
        if nth["nth"] not in {"1", "2", "3", "4", "5"}:
            raise refuse(nth.start("nth"), f"{nth['nth']!r} is not possible", "a month has 1 to 5 of a weekday")
        return
    match = _ITEM.match(item)
    if match is None or (match["first"] in "*?" and match["last"] is not None):
        raise refuse(0, f"{item!r} cannot be read", "use *, numbers, names, ranges a-b, steps */n and lists a,b")
    if match["first"] not in "*?":
        first = number(match["first"], 0)
        if match["last"] is not None:
            _check_range(refuse, first, number(match["last"], match.start("last")), match, where)
    if match["step"] is not None and not (match["step"].isdecimal() and 1 <= int(match["step"]) <= where.highest):
        raise refuse(match.start("step"), f"step {match['step']!r} is not possible", f"use 1 to {where.highest}")


def _check_range(refuse: _Refuse, first: int, last: int, match: re.Match[str], where: Field) -> None:
    if where.name == "day of the week" and last == 0:
        last = 7
    if first > last:
        whole = f"{match['first']}-{match['last']}"
        hint = f"write {match['first']}-{where.highest},{where.lowest}-{match['last']}"
        raise refuse(0, f"range {whole!r} runs backwards", hint)
