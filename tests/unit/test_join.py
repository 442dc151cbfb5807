"""Joins: what an arrival means, as a table."""

from itertools import product

import pytest

from orchestra.engine.join import Arrivals, Verdict, verdict

WAIT, RELEASE, SKIP, BREAK = Verdict.WAIT, Verdict.RELEASE, Verdict.SKIP, Verdict.BREAK


@pytest.mark.parametrize(("arrivals", "expected"), [
    (Arrivals(remaining=1, live=0, broken=0), WAIT),
    (Arrivals(remaining=1, live=3, broken=0), WAIT),
    (Arrivals(remaining=1, live=0, broken=3), WAIT),
    (Arrivals(remaining=0, live=1, broken=0), RELEASE),
    (Arrivals(remaining=0, live=0, broken=0), SKIP),
    (Arrivals(remaining=0, live=0, broken=1), BREAK),
    (Arrivals(remaining=0, live=5, broken=1), BREAK),
])  # fmt: skip
def test_a_join_of_all_runs_on_the_ways_taken_unless_something_broke(arrivals: Arrivals, expected: Verdict) -> None:
    assert verdict(arrivals) is expected


@pytest.mark.parametrize(("arrivals", "expected"), [
    (Arrivals(remaining=5, live=0, broken=0, any=True), WAIT),
    (Arrivals(remaining=5, live=0, broken=4, any=True), WAIT),
    (Arrivals(remaining=5, live=1, broken=0, any=True), RELEASE),
    (Arrivals(remaining=0, live=1, broken=4, any=True), RELEASE),
    (Arrivals(remaining=0, live=0, broken=0, any=True), SKIP),
    (Arrivals(remaining=0, live=0, broken=1, any=True), BREAK),
])  # fmt: skip
def test_a_join_of_any_runs_on_the_first_way_taken(arrivals: Arrivals, expected: Verdict) -> None:
    assert verdict(arrivals) is expected


def test_no_join_waits_when_every_part_has_arrived() -> None:
    for live, broken, any_way in product(range(3), range(3), (False, True)):
        assert verdict(Arrivals(0, live, broken, any_way)) is not WAIT
