"""Calendar: the times of a schedule, and what a beat does about those that have come. Pure; time is passed in.

Cron expressions are read on the clock on the wall of their zone, and then become instants by two rules. A local time
that does not exist, because the clock is put forward over it, fires at the next instant that does; several such times,
and a regular one at that instant, are one firing. A local time that occurs twice, because the clock is put back, fires
once, the first time. (croniter keeps the first rule; of the second it fires both.)
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from croniter import CroniterBadDateError, croniter

from orchestra.model.schedule import Misfire, Schedule, ScheduleType

MOST_AT_ONCE = 100
"""Runs that one look at a job creates at most; the job stays due when there are more."""
_COUNTED = 1000
"""Times of a cron job that are gone through one by one; of a longer gap only the end is looked at."""
_ANY = datetime(2024, 1, 1, tzinfo=UTC).replace(tzinfo=None)
_YEARS = 8
"""How far a cron expression is followed: from one leap day to the next, over a century."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done about a job whose time has come."""

    fire: Sequence[float] = ()
    """The times that become runs."""
    missed: Sequence[float] = ()
    """The first and the last time that become none."""
    missed_count: int = 0
    next_run_at: float | None = None
    """The time after all these."""


def times(schedule: Schedule, after: float, created_at: float) -> Iterator[float]:
    """Give the times of a schedule after an instant, in order, from ``starts_at`` to ``ends_at``.

    An interval counts from ``starts_at``, which is its first time; without one from when the job was made, and then
    the first time is one interval later.
    """
    if schedule.starts_at is not None:
        after = max(after, schedule.starts_at - 1e-6)
    for each in _all(schedule, after, created_at):
        if schedule.ends_at is not None and each > schedule.ends_at:
            return
        yield each


def following(schedule: Schedule, after: float, created_at: float) -> float | None:
    """Return the first time after an instant; None when there is none."""
    return next(times(schedule, after, created_at), None)


def due_at(schedule: Schedule, at: float, job_id: str) -> float:
    """Return when a time is acted upon: with its jitter, which is the same whoever asks."""
    if not schedule.jitter_s:
        return at
    digest = hashlib.sha256(f"{job_id} {at!r}".encode()).digest()
    return round(at + schedule.jitter_s * int.from_bytes(digest[:8], "big") / 2**64, 6)


def decide(
    schedule: Schedule, next_run_at: float, *, job_id: str, created_at: float, runs: int, now: float
) -> Decision:
    """Say which of the times that have come become runs, and which is the next.

    Args:
        next_run_at: The first time that nothing has been decided about.
        runs: How many runs the job has had.
    """
    skipped: list[float] = []
    count = 0
    due: list[float] = []
    left = MOST_AT_ONCE if schedule.max_runs is None else min(MOST_AT_ONCE, max(0, schedule.max_runs - runs))
    at: float | None = next_run_at
    jump_at = now - schedule.grace_s
    while at is not None and len(due) < left:
        its = due_at(schedule, at, job_id)
        if its > now:
            break
        if schedule.misfire is Misfire.ALL or its >= jump_at:
            due.append(at)
        else:
            skipped.append(at)
            count += 1
            if len(skipped) >= _COUNTED or schedule.type is ScheduleType.INTERVAL:
                at, more = _jump(schedule, at, jump_at - schedule.jitter_s - 1e-6, created_at)
                skipped, count = [skipped[0], at], count + more
        at = following(schedule, at, created_at)
    if schedule.misfire is Misfire.ONCE and skipped and len(due) < left:
        due.insert(0, skipped.pop())
        count -= 1
    return Decision(due, [skipped[0], skipped[-1]] if skipped else (), count, at)


def never_fires(schedule: Schedule) -> bool:
    """Whether no day of the calendar fits, such as 30 February."""
    return schedule.cron is not None and next(_walls(schedule.cron, _ANY), None) is None


def _jump(schedule: Schedule, at: float, to: float, created_at: float) -> tuple[float, int]:
    """Return the last time not after an instant, and how many times that is further on; for gaps that are long."""
    if to <= at:
        return at, 0
    if schedule.ends_at is not None:
        to = min(to, schedule.ends_at)
    if schedule.type is ScheduleType.INTERVAL:
        assert schedule.interval_s is not None
        steps = math.floor((to - at) / schedule.interval_s)
        found = _at(at, steps, schedule.interval_s)
        return (found, steps) if steps > 0 else (at, 0)
    last = _before(schedule, to)
    return (last, 1) if last > at else (at, 0)


def _all(schedule: Schedule, after: float, created_at: float) -> Iterator[float]:
    match schedule.type:
        case ScheduleType.ONCE:
            if schedule.run_at is not None and schedule.run_at > after:
                yield schedule.run_at
        case ScheduleType.INTERVAL:
            yield from _steps(schedule, after, created_at)
        case ScheduleType.CRON:
            yield from _firings(schedule, after)


def _steps(schedule: Schedule, after: float, created_at: float) -> Iterator[float]:
    assert schedule.interval_s is not None
    anchor, first = (created_at, 1) if schedule.starts_at is None else (schedule.starts_at, 0)
    # One early, since a division may be rounded up.
    k = max(first, math.floor((after - anchor) / schedule.interval_s))
    while True:
        at = _at(anchor, k, schedule.interval_s)
        if at > after:
            yield at
        k += 1


def _at(anchor: float, k: int, interval_s: float) -> float:
    """Return the k-th time, always the same number: it is half of the key of a firing."""
    return round(anchor + k * interval_s, 6)


def _firings(schedule: Schedule, after: float) -> Iterator[float]:
    assert schedule.cron is not None
    zone = ZoneInfo(schedule.timezone)
    wall = datetime.fromtimestamp(after, zone).replace(tzinfo=None)
    for each in _walls(schedule.cron, wall - timedelta(seconds=1)):
        at = _instant(each, zone)
        if at > after:
            after = at
            yield at


def _before(schedule: Schedule, to: float) -> float:
    """Return the last time of a cron schedule that is not after an instant."""
    assert schedule.cron is not None
    zone = ZoneInfo(schedule.timezone)
    # A day later, since walls may run back by that much; croniter looks back from before its start.
    wall = datetime.fromtimestamp(to, zone).replace(tzinfo=None) + timedelta(days=1)
    past = croniter(schedule.cron, wall)
    while (at := _instant(past.get_prev(datetime), zone)) > to:
        pass
    return at


def _walls(expression: str, after: datetime) -> Iterator[datetime]:
    """Give the local times of an expression, as a clock without daylight saving would show them."""
    found = croniter(expression, after, max_years_between_matches=_YEARS)
    while True:
        try:
            yield found.get_next(datetime)
        except CroniterBadDateError:
            return


def _instant(wall: datetime, zone: ZoneInfo) -> float:
    """Return the instant of a local time by the two rules."""
    first = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if first.astimezone(zone).replace(tzinfo=None) == wall:
        return first.timestamp()
    # In a gap: one reading lies behind the change of the clock, the other before it.
    before, behind = int(wall.replace(tzinfo=zone, fold=1).timestamp()), int(first.timestamp())
    offset = datetime.fromtimestamp(behind, zone).utcoffset()
    while behind - before > 1:
        middle = (before + behind) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == offset:
            behind = middle
        else:
            before = middle
    return float(behind)


def upcoming(schedule: Schedule, after: float, created_at: float, count: int) -> list[float]:
    """Return the next times of a schedule."""
    return list(islice(times(schedule, after, created_at), count))


def aligned(schedule: Schedule, start: float, created_at: float) -> float:
    """Return the first time of an interval, followed back beyond its anchor, that is not before an instant."""
    assert schedule.interval_s is not None
    anchor = created_at if schedule.starts_at is None else schedule.starts_at
    return _at(anchor, math.ceil((start - anchor) / schedule.interval_s - 1e-9), schedule.interval_s)
