"""How long calls take, and how many steps a child takes at a time."""

from orchestra.runtime.durations import MOST_IN_HAND, TOGETHER_S, Durations, Reach


def test_durations_follow_what_is_measured_and_are_bounded() -> None:
    durations = Durations()
    assert (durations.is_short("f"), durations.of("f")) == (False, None)
    durations.note("f", 0.1)
    assert not durations.is_short("f")
    for _ in range(20):
        durations.note("f", 0.001)
    assert durations.is_short("f")
    assert durations.short() == {"f"}
    for n in range(1001):
        durations.note(f"g{n}", 0.001)
    assert durations.of("f") is None


def test_a_child_takes_twice_as_many_each_time_until_it_was_too_many() -> None:
    reach = Reach(late_s=0.02)
    assert [reach.next(0.0) for _ in range(6)] == [2, 4, 8, MOST_IN_HAND, MOST_IN_HAND, MOST_IN_HAND]
    reach.was_too_far()
    assert reach.next(0.0) == 2
    assert (reach.is_near(0.019), reach.is_near(0.021)) == (True, False)


def test_a_child_takes_no_more_than_what_is_known_to_be_over_soon() -> None:
    reach = Reach(late_s=0.02)
    for _ in range(5):
        reach.next(0.0)
    assert [reach.next(seconds) for seconds in (TOGETHER_S, TOGETHER_S / 3.5, 1.0)] == [1, 3, 1]
    assert reach.next(None) == 1  # of what is not known
