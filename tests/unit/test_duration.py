"""Durations as people write them."""

from datetime import timedelta

import pytest

from orchestra.model.duration import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("0", 0),
        ("15m", 900),
        ("12h", 43_200),
        ("1.5h", 5_400),
        ("30d", 2_592_000),
        ("2w", 1_209_600),
        (" 7 D ", 604_800),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "soon", "d", "-3d", "3 months", "1d12h", "1e3", "١d", "0x10"])
def test_what_is_none_says_what_is_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected a number and s, m, h, d or w"):
        parse_duration(text)


def test_a_duration_that_no_calendar_holds_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        parse_duration("99999999999w")
