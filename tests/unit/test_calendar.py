"""The times of schedules, and what a beat does about those that have come."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from cronsim import CronSim

from orchestra.engine import calendar
from orchestra.errors import InvalidOption, InvalidSchedule
from orchestra.model import cron
from orchestra.model.schedule import Misfire, Schedule, schedule

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()


def local(timing: Schedule, start: datetime, count: int) -> list[str]:
    """Return the next times on the clock of Berlin."""
    found = calendar.upcoming(timing, start.timestamp(), 0.0, count)
    return [datetime.fromtimestamp(each, BERLIN).isoformat(timespec="minutes") for each in found]


# --- daylight saving ------------------------------------------------------------------------------------------------


def test_a_local_time_that_does_not_exist_fires_at_the_next_valid_instant() -> None:
    timing = schedule(cron="30 2 * * *", timezone="Europe/Berlin")
    assert local(timing, datetime(2026, 3, 28, tzinfo=BERLIN), 3) == [
        "2026-03-28T02:30+01:00",
        "2026-03-29T03:00+02:00",
        "2026-03-30T02:30+02:00",
    ]


def test_several_times_in_a_gap_and_one_behind_it_are_one_firing() -> None:
    timing = schedule(cron="*/20 * * * *", timezone="Europe/Berlin")
    assert local(timing, datetime(2026, 3, 29, 1, 30, tzinfo=BERLIN), 3) == [
        "2026-03-29T01:40+01:00",
        "2026-03-29T03:00+02:00",
        "2026-03-29T03:20+02:00",
    ]


def test_a_local_time_that_occurs_twice_fires_once() -> None:
    timing = schedule(cron="*/30 * * * *", timezone="Europe/Berlin")
    assert local(timing, datetime(2026, 10, 25, 1, 45, tzinfo=BERLIN), 4) == [
        "2026-10-25T02:00+02:00",
        "2026-10-25T02:30+02:00",
        "2026-10-25T03:00+01:00",
        "2026-10-25T03:30+01:00",
    ]
    second = datetime(2026, 10, 25, 2, 10, tzinfo=BERLIN, fold=1)
    assert local(timing, second, 1) == ["2026-10-25T03:00+01:00"]


def test_an_interval_takes_no_notice_of_the_clock() -> None:
    timing = schedule(interval_seconds=3600, starts_at=datetime(2026, 10, 25, 0, 0, tzinfo=BERLIN))
    assert local(timing, datetime(2026, 10, 24, tzinfo=BERLIN), 5)[-1] == "2026-10-25T03:00+01:00"


# --- against other implementations ----------------------------------------------------------------------------------

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/St_Johns", "Asia/Kathmandu", "UTC")


def test_two_thousand_random_expressions_fire_when_croniter_and_cronsim_say() -> None:
    rng = random.Random(7)
    for number in range(2000):
        zone = ZoneInfo(rng.choice(ZONES))
        expression = random_expression(rng)
        start = around_a_change(rng, zone) if number % 2 else any_moment(rng, zone)
        count = 8
        ours = calendar.upcoming(schedule(cron=expression, timezone=zone.key), start.timestamp(), 0.0, count)
        # Both are asked about the clock on the wall, where the two agree; the written rule makes instants of that.
        wall = start.replace(tzinfo=None) - timedelta(days=1)
        for theirs in (walls_of_croniter(cron.check(expression), wall), CronSim(expression, wall)):
            expected = by_the_rule(theirs, zone, after=start.timestamp())
            assert ours == list(islice(expected, count)), (expression, start.isoformat(), type(theirs))


def test_away_from_changes_of_the_clock_croniter_and_cronsim_say_the_same_with_their_own_zones() -> None:
    rng = random.Random(11)
    compared = 0
    for _number in range(4000):
        zone, expression = ZoneInfo(rng.choice(ZONES)), random_expression(rng)
        start = any_moment(rng, zone)
        ours = calendar.upcoming(schedule(cron=expression, timezone=zone.key), start.timestamp(), 0.0, 5)
        offsets = {start.utcoffset(), *(datetime.fromtimestamp(each, zone).utcoffset() for each in ours)}
        if len(offsets) > 1 or ours[-1] - start.timestamp() > 90 * 86_400:
            continue
        compared += 1
        found = croniter(cron.check(expression), start)  # a range of one apart: see there
        assert ours == [found.get_next(float) for _ in range(5)], (expression, start.isoformat())
        others = islice(CronSim(expression, start), 5)
        assert ours == [each.timestamp() for each in others], (expression, start.isoformat())
    assert compared > 2000


def random_expression(rng: random.Random) -> str:
    """Return an expression whose two days are not both given: where they are, the implementations differ on purpose."""
    fields = [random_field(rng, each) for each in cron.FIELDS]
    if "*" not in (fields[2], fields[4]):
        fields[rng.choice((2, 4))] = "*"
    return " ".join(fields)


def random_field(rng: random.Random, where: cron.Field) -> str:
    low, high = where.lowest, where.highest - (where.name == "day of the month") * 3
    match rng.randrange(6):
        case 0 | 1:
            return "*"
        case 2:
            return str(rng.randint(low, high))
        case 3:
            return f"*/{rng.randint(1, max(2, high // 2))}"
        case 4:
            first = rng.randint(low, high)
            last = rng.randint(first, high)
            # cronsim takes 13-13/2 for 13/2.
            step = f"/{rng.randint(1, 5)}" if last > first and rng.random() < 0.3 else ""
            return f"{first}-{last}{step}"
        case _:
            names = list(where.names) or [str(each) for each in range(low, high + 1)]
            return ",".join(rng.sample(names, min(3, len(names))))


def any_moment(rng: random.Random, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(rng.randrange(1_700_000_000, 1_900_000_000), zone)


def around_a_change(rng: random.Random, zone: ZoneInfo) -> datetime:
    """Return a moment within a day of a change of the clock."""
    at = any_moment(rng, zone)
    for _day in range(370):
        following = datetime.fromtimestamp(at.timestamp() + 86_400, zone)
        if following.utcoffset() != at.utcoffset():
            break
        at = following
    return datetime.fromtimestamp(at.timestamp() + rng.randrange(86_400), zone)


def walls_of_croniter(expression: str, wall: datetime) -> Iterator[datetime]:
    found = croniter(expression, wall)
    while True:
        yield found.get_next(datetime)


def by_the_rule(walls: Iterator[datetime], zone: ZoneInfo, *, after: float) -> Iterator[float]:
    """Return instants by the written rule, in the plainest way: every minute of the day is looked at."""
    for wall in walls:
        at = wall
        while at.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None) != at:
            at += timedelta(minutes=1)  # it does not exist: the next one that does
        instant = at.replace(tzinfo=zone, fold=0).timestamp()  # the first of two
        if instant > after:
            after = instant
            yield instant


# --- intervals, bounds, jitter --------------------------------------------------------------------------------------


def test_an_interval_does_not_drift_and_begins_at_starts_at() -> None:
    start = datetime(2026, 1, 1, 0, 0, 0, 250_000, tzinfo=UTC)
    timing = schedule(interval_seconds=0.7, starts_at=start)
    found = calendar.upcoming(timing, 0.0, 0.0, 3)
    assert found == [round(start.timestamp() + each, 6) for each in (0, 0.7, 1.4)]
    late = start.timestamp() + 0.7 * 10_000_000
    assert calendar.following(timing, late - 0.01, 0.0) == round(late, 6)


def test_nothing_fires_before_starts_at_or_after_ends_at() -> None:
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)
    timing = schedule(cron="@daily", starts_at=start, ends_at=end)
    found = list(calendar.times(timing, 0.0, 0.0))
    assert [datetime.fromtimestamp(each, UTC).day for each in found] == [1, 2, 3]


def test_jitter_is_stable_per_firing_and_differs_between_firings() -> None:
    timing = schedule(cron="* * * * *", jitter_seconds=30)
    offs = [calendar.due_at(timing, NOW + 60 * each, "job") - NOW - 60 * each for each in range(200)]
    assert offs == [calendar.due_at(timing, NOW + 60 * each, "job") - NOW - 60 * each for each in range(200)]
    assert 0 <= min(offs) < 3
    assert 27 < max(offs) <= 30


# --- misfire --------------------------------------------------------------------------------------------------------


def decided(misfire: str, *, behind_s: float, grace_s: float = 60, **options: object) -> calendar.Decision:
    timing = schedule(interval_seconds=1, misfire=misfire, grace_seconds=grace_s, **options)  # type: ignore[arg-type]
    first = NOW - behind_s
    return calendar.decide(timing, first, job_id="j", created_at=first - 1, runs=0, now=NOW)


def test_times_within_the_grace_all_fire_whatever_misfire_says() -> None:
    for misfire in Misfire:
        made = decided(misfire, behind_s=5)
        assert list(made.fire) == [NOW - each for each in (5, 4, 3, 2, 1, 0)]
        assert made.missed_count == 0
        assert made.next_run_at == NOW + 1


def test_misfire_skip_leaves_out_what_is_later_than_the_grace() -> None:
    made = decided("skip", behind_s=3600, grace_s=2)
    assert list(made.fire) == [NOW - 2, NOW - 1, NOW]
    assert made.missed_count == 3598


def test_misfire_once_makes_one_run_of_what_is_later_than_the_grace() -> None:
    made = decided("once", behind_s=3600, grace_s=2)
    assert list(made.fire) == [NOW - 3, NOW - 2, NOW - 1, NOW]
    assert made.missed_count == 3597


def test_misfire_all_makes_every_run_a_hundred_at_a_time() -> None:
    made = decided("all", behind_s=3600)
    assert len(made.fire) == calendar.MOST_AT_ONCE
    assert made.next_run_at == made.fire[-1] + 1
    assert made.missed_count == 0


def test_a_year_of_missed_minutes_costs_no_year() -> None:
    timing = schedule(cron="* * * * *", misfire="once")
    made = calendar.decide(timing, NOW - 366 * 86_400, job_id="j", created_at=0.0, runs=0, now=NOW + 1)
    assert list(made.fire) == [NOW - 60, NOW]
    assert made.next_run_at == NOW + 60


def test_max_runs_bounds_what_fires() -> None:
    assert len(decided("all", behind_s=3600, max_runs=3).fire) == 3


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "position", "about"),
    [
        ("61 * * * *", 1, "0 to 59"),
        ("* * * *", 8, "five"),
        ("* * * * * *", 11, "interval_seconds"),
        ("0 0 * foo *", 7, "jan"),
        ("0 9 * * mon-fro", 13, "sun"),
        ("5-1 * * * *", 1, "5-59,0-1"),
        ("*/0 * * * *", 3, "1 to 59"),
        ("1,,2 * * * *", 3, "lists"),
        ("0 0 * * mon#6", 13, "1 to 5"),
        ("@fortnightly", 1, "@weekly"),
        ("r r * * *", 1, "0 to 59"),
    ],
)
def test_a_wrong_expression_is_refused_with_its_place_and_a_hint(expression: str, position: int, about: str) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        cron.check(expression)
    assert caught.value.position == position
    assert about in str(caught.value)


@pytest.mark.parametrize("macro", cron.MACROS)
def test_macros_names_and_case_are_understood(macro: str) -> None:
    assert cron.check(macro.upper()) == cron.MACROS[macro]
    assert cron.check("0  9 * JAN-mar  Mon,fri-SUN") == "0 9 * jan-mar mon,fri-sun"
    assert calendar.following(schedule(cron="0 0 L * *"), NOW, 0.0) == datetime(2026, 6, 30, tzinfo=UTC).timestamp()


def test_a_range_of_one_is_one() -> None:
    assert cron.check("5-5,7-7/2,1-2 22-22 1-15 jan-jan mon-mon") == "5,7,1-2 22 1-15 jan mon"


def test_a_wrong_zone_is_refused_with_those_it_may_have_meant() -> None:
    for wrong in ("Europe/Berln", "Berlin"):
        with pytest.raises(InvalidSchedule, match="Europe/Berlin"):
            schedule(cron="* * * * *", timezone=wrong)


@pytest.mark.parametrize(
    ("zone", "position"), [("Europe/Berln", 12), ("Europe/Ber", 11), ("berlin", 1), ("", 1), (5, None)]
)
def test_a_wrong_zone_is_refused_with_the_place_from_which_on_no_zone_is_called_so(
    zone: object, position: int | None
) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        schedule(cron="* * * * *", timezone=zone)  # type: ignore[arg-type]
    assert caught.value.position == position


def test_a_wrong_interval_is_refused() -> None:
    for wrong in (0, -1, float("nan"), float("inf"), "5"):
        with pytest.raises(InvalidSchedule, match="interval_seconds"):
            schedule(interval_seconds=wrong)  # type: ignore[arg-type]


def test_exactly_one_kind_of_schedule_is_given() -> None:
    with pytest.raises(InvalidOption):
        schedule()
    with pytest.raises(InvalidOption):
        schedule(cron="@daily", interval_seconds=5)
    with pytest.raises(InvalidOption):
        schedule(schedule_type="once", cron="@daily")


def test_an_expression_that_no_day_fits_is_known() -> None:
    assert calendar.never_fires(schedule(cron="0 0 30 2 *"))
    assert not calendar.never_fires(schedule(cron="0 0 29 2 *"))


def test_a_schedule_survives_json() -> None:
    timing = schedule(cron="@daily", timezone="Asia/Tokyo", misfire="all", overlap="skip", max_runs=3)
    assert Schedule.from_json(timing.to_json()) == timing
