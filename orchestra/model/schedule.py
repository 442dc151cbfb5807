"""Schedules: when a job runs, as data. ``engine.calendar`` says what follows from it."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from orchestra.errors import InvalidOption, InvalidSchedule
from orchestra.model import cron as crons
from orchestra.model import options
from orchestra.model.options import Duration

SHORTEST_INTERVAL_S = 0.1


class ScheduleType(StrEnum):
    """How the times of a job come about."""

    ONCE = "once"
    INTERVAL = "interval"
    CRON = "cron"


class Misfire(StrEnum):
    """What becomes of the times that are later than the grace when a beat sees them."""

    SKIP = "skip"
    ONCE = "once"
    """One run for all of them, that of the newest."""
    ALL = "all"


class Overlap(StrEnum):
    """What happens when a run of the job has not ended at the time of the next."""

    ALLOW = "allow"
    SKIP = "skip"


class JobStatus(StrEnum):
    """Where a job stands."""

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    ENDED = "ENDED"
    """No time is left: its one time has passed, ``ends_at`` or ``max_runs`` is reached."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a job runs. Times are seconds since the epoch."""

    type: ScheduleType
    run_at: float | None = None
    interval_s: float | None = None
    cron: str | None = None
    """Five fields, checked."""
    timezone: str = "UTC"
    misfire: Misfire = Misfire.ONCE
    grace_s: float = 60.0
    overlap: Overlap = Overlap.ALLOW
    jitter_s: float = 0.0
    starts_at: float | None = None
    ends_at: float | None = None
    max_runs: int | None = None
    most_open: int | None = None
    """Of a backfill: how many of its job's runs may be open at a time."""

    def to_json(self) -> dict[str, object]:
        """Return what ``from_json`` takes back, without what is as by default."""
        default = asdict(Schedule(self.type))
        return {key: value for key, value in asdict(self).items() if key == "type" or value != default[key]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Schedule":
        """Return the schedule that ``to_json`` wrote."""
        kinds: dict[str, Callable[[str], Any]] = {"type": ScheduleType, "misfire": Misfire, "overlap": Overlap}
        return cls(**{key: kinds[key](value) if key in kinds else value for key, value in data.items()})


def schedule(
    *,
    schedule_type: str | None = None,
    run_at: datetime | None = None,
    interval_seconds: Duration | None = None,
    cron: str | None = None,
    timezone: str = "UTC",
    misfire: str = "once",
    grace_seconds: Duration = 60,
    overlap: str = "allow",
    jitter_seconds: Duration = 0,
    starts_at: datetime | None = None,
    ends_at: datetime | None = None,
    max_runs: int | None = None,
) -> Schedule:
    """Check what a user gave, and return the schedule.

    Raises:
        InvalidSchedule: The expression, the zone or the interval is wrong; it says where, and what to write.
        InvalidOption: Another option has a value that it cannot have, or none or several kinds are given.
    """
    named = check_zone(timezone)
    starts, ends = _instant("starts_at", starts_at, named), _instant("ends_at", ends_at, named)
    if starts is not None and ends is not None and ends < starts:
        raise InvalidOption("ends_at", ends_at, "a time that is not before starts_at")
    return Schedule(
        type=_type(schedule_type, {"once": run_at, "interval": interval_seconds, "cron": cron}),
        run_at=_instant("run_at", run_at, named),
        interval_s=None if interval_seconds is None else _interval(interval_seconds),
        cron=None if cron is None else crons.check(cron),
        timezone=named,
        misfire=options.member(Misfire, "misfire", misfire),
        grace_s=options.seconds("grace_seconds", grace_seconds),
        overlap=options.member(Overlap, "overlap", overlap),
        jitter_s=options.seconds("jitter_seconds", jitter_seconds),
        starts_at=starts,
        ends_at=ends,
        max_runs=None if max_runs is None else options.at_least_one("max_runs", max_runs),
    )


def check_zone(name: object) -> str:
    """Return the name of a time zone, or raise InvalidSchedule with those that it may have meant."""
    if isinstance(name, str) and name in _zones():
        return name
    near = difflib.get_close_matches(str(name), _zones(), n=3, cutoff=0.5)
    near = near or [each for each in sorted(_zones()) if str(name).lower() in each.lower()][:3]
    hint = f"did you mean {', '.join(map(repr, near))}?" if near else "use a name such as 'Europe/Berlin' or 'UTC'"
    raise InvalidSchedule("timezone", name, _place(name), "there is no such time zone", hint)


def _place(name: object) -> int | None:
    """Return from which character on no name of a zone goes like this one."""
    if not isinstance(name, str):
        return None
    fits = (at for at in range(len(name), 0, -1) if any(each.startswith(name[:at]) for each in _zones()))
    return next(fits, 0) + 1


def zone(name: str) -> ZoneInfo:
    """Return a time zone by its checked name."""
    return ZoneInfo(name)


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones()) | {"UTC"}


def instant(option: str, value: object, zone: str) -> float:
    """Return a datetime as seconds since the epoch; one without a time zone is in ``zone``."""
    if not isinstance(value, datetime):
        raise InvalidOption(option, value, "a datetime, aware or in the job's timezone")
    if value.tzinfo is None:
        value = value.replace(tzinfo=ZoneInfo(zone))
    return round(value.astimezone(UTC).timestamp(), 6)


def _instant(option: str, value: datetime | None, zone: str) -> float | None:
    return None if value is None else instant(option, value, zone)


def _interval(value: Duration) -> float:
    try:
        return round(options.seconds("interval_seconds", value, minimum=SHORTEST_INTERVAL_S), 6)
    except InvalidOption as error:
        hint = f"use {SHORTEST_INTERVAL_S:g} s to a year, as in 90 or timedelta(minutes=5); for days and months of the"
        hint += " calendar use cron=…"
        raise InvalidSchedule("interval_seconds", value, None, f"expected {error.expected}", hint) from None


def _type(named: object, given: Mapping[str, object]) -> ScheduleType:
    found = [kind for kind, value in given.items() if value is not None]
    wanted = "one of run_at=…, interval_seconds=… or cron=…"
    if len(found) != 1:
        raise InvalidOption("schedule", found, wanted)
    kind = ScheduleType(found[0])
    if named is not None and options.member(ScheduleType, "schedule_type", named) is not kind:
        raise InvalidOption("schedule_type", named, f"{kind.value!r}, or {wanted.replace('one of ', '')} to go with it")
    return kind
