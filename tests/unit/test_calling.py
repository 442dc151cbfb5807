"""Calling handlers one after the other, each within a time; and how long those wait who tell of news or read them."""

import threading
from collections.abc import Iterator
from functools import partial

from orchestra.bus.calling import Call, Caller
from orchestra.bus.pace import LONGEST_S, SHORTEST_GAP_S, gap_s, rest_s
from orchestra.errors import HandlerTimedOut
from tests.processes import wait_until

LONG_S = 30.0


def test_what_a_call_raises_is_told_and_the_next_are_made() -> None:
    made: list[str] = []
    errors: list[tuple[str, str]] = []

    def call(name: str, error: BaseException | None = None) -> Call:
        def make() -> None:
            made.append(name)
            if error is not None:
                raise error

        return Call(make, LONG_S, lambda raised: errors.append((name, str(raised))))

    caller = Caller("test")
    caller.call_all([call("a"), call("b", ValueError("bad")), call("c", SystemExit(3)), call("d")])
    assert made == ["a", "b", "c", "d"]
    assert errors == [("b", "bad"), ("c", "the handler raised SystemExit(3)")]
    caller.close()


def test_a_call_that_takes_too_long_is_left_behind_and_the_others_are_made_elsewhere() -> None:
    hold, ended = threading.Event(), threading.Event()
    made: list[str] = []
    errors: list[Exception] = []

    def stuck() -> None:
        made.append("stuck")
        hold.wait()
        ended.set()
        raise ValueError("nobody hears of it")

    def calls() -> Iterator[Call]:
        yield Call(stuck, 0.05, errors.append)
        for name in "ab":
            yield Call(partial(made.append, name), LONG_S, errors.append)

    caller = Caller("test")
    caller.call_all(calls())
    assert made == ["stuck", "a", "b"]
    assert [type(each) for each in errors] == [HandlerTimedOut]
    hold.set()
    assert ended.wait(LONG_S)
    left = [each for each in threading.enumerate() if each.name == "test"]
    caller.close()
    wait_until(lambda: not any(each.is_alive() for each in left), LONG_S, "the threads to end")
    assert made == ["stuck", "a", "b"]
    assert len(errors) == 1


def test_calls_that_cannot_be_found_do_not_keep_anybody_waiting() -> None:
    def calls() -> Iterator[Call]:
        yield Call(lambda: None, LONG_S, lambda _error: None)
        raise RuntimeError("no more")

    made: list[int] = []
    caller = Caller("test")
    caller.call_all(calls())
    caller.call(lambda: made.append(1), LONG_S)
    assert made == [1]
    caller.close()


def test_who_tells_or_reads_waits_longer_the_more_there_is_but_never_too_long() -> None:
    assert gap_s(1) == SHORTEST_GAP_S < gap_s(20) < gap_s(1000) == LONGEST_S
    assert rest_s(0.0) == 0.0 < rest_s(0.001) < rest_s(10.0) == LONGEST_S
