"""Events: types, patterns, places in the log, and handing them to those who asked."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestra.bus.tail import Tail
from orchestra.errors import InvalidOption
from orchestra.model.event import (
    LIFECYCLE,
    RUN_ENDS,
    TASK_ENDS,
    Event,
    Wanted,
    check_custom,
    check_pattern,
    cut,
    matches,
    position,
)
from tests.processes import wait_until

LONG_S = 30


# Types and patterns


@pytest.mark.parametrize(
    ("pattern", "event", "covered"),
    [
        ("task.completed", "task.completed", True), ("task.completed", "task.completed.late", False),
        ("task.*", "task.failed", True), ("task.*", "workflow.failed", False), ("*", "order.shipped", True),
        ("*.failed", "task.failed", True), ("order.*.eu", "order.shipped.eu", True), ("Task.*", "task.failed", False),
        ("task", "task.failed", False),
    ],
)  # fmt: skip
def test_a_pattern_covers_what_it_spells(pattern: str, event: str, covered: bool) -> None:
    assert matches(pattern, event) == covered


@pytest.mark.parametrize("pattern", [*LIFECYCLE, "task.*", "*", "*.failed", "order.shipped", "order.*"])
def test_a_pattern_that_something_can_match_is_taken(pattern: str) -> None:
    assert check_pattern(pattern) == pattern


@pytest.mark.parametrize("pattern", ["task.finished", "workflow.", "job.*.now", "worker.up*", "", "a b", "a\nb"])
def test_a_pattern_that_nothing_will_match_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidOption, match="event="):
        check_pattern(pattern)


def test_custom_events_may_not_pass_for_ours() -> None:
    assert check_custom("order.shipped") == "order.shipped"
    for name in ("task.mine", "workflow.completed", "job.x", "worker.x", "", "a.*", "a b"):
        with pytest.raises(InvalidOption, match="event="):
            check_custom(name)


def test_ends_are_events_of_ours() -> None:
    assert set(LIFECYCLE) > TASK_ENDS | RUN_ENDS


def test_events_are_ordered_by_transaction_and_place() -> None:
    ids = ["2-0", "2-1", "2-10", "10-0"]
    assert sorted(ids, key=position) == ids
    assert position("7") == (7, 0)
    with pytest.raises(InvalidOption, match="after='x'"):
        position("x")


# The tail


class Log:
    """A log in memory, and a tail that reads it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.broken = False
        self.tail = Tail(self.read, lambda: len(self.events), lambda event: f"subject of {event.type}")

    def read(self, cursor: int, _limit: int, wanted: Wanted) -> tuple[list[Event], int]:
        if self.broken:
            raise OSError("away")
        page = self.events[cursor : cursor + 3]
        return [each for each in page if wanted(each.type)], cursor + len(page)

    def say(self, kind: str, task_id: str | None = None, run_id: str | None = None) -> Event:
        event = Event(f"{len(self.events)}-0", kind, datetime.now(UTC), run_id or task_id, task_id)
        self.events.append(event)
        self.tail.ring()
        return event

    def settle(self) -> None:
        heard = threading.Event()
        stop = self.tail.subscribe("settled", lambda _event: heard.set())
        self.say("settled")
        assert heard.wait(LONG_S)
        stop()


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    yield log
    log.tail.close()


def test_a_handler_gets_subject_event_or_both_as_it_asks(log: Log) -> None:
    heard: list[Any] = []

    class Handlers:
        def method(self, task: object) -> None:
            heard.append(("method", task))

    def both(task: object, event: Event) -> None:
        heard.append(("both", task, event))

    def optional(task: object, extra: int = 3) -> None:
        heard.append(("optional", task, extra))

    handlers: list[Any] = [
        Handlers().method,
        both,
        optional,
        lambda event: heard.append(("event", event)),
        heard.append,
    ]
    for handler in handlers:
        log.tail.subscribe("a", handler)
    event = log.say("a")
    log.settle()
    assert heard == [("method", "subject of a"), ("both", "subject of a", event), ("optional", "subject of a", 3),
                     ("event", event), "subject of a"]  # fmt: skip


@pytest.mark.parametrize("handler", [lambda: None, lambda a, b: None, lambda *, task: None, 3, None])
def test_a_handler_that_cannot_be_called_like_that_is_refused(log: Log, handler: Any) -> None:
    with pytest.raises(InvalidOption, match="handler="):
        log.tail.subscribe("a", handler)
    with pytest.raises(InvalidOption, match="callback="):
        log.tail.subscribe_once("a", handler, "t")


def test_only_what_happens_from_now_on_is_heard_until_it_is_stopped(log: Log) -> None:
    heard: list[Event] = []
    log.say("a")
    stop = log.tail.subscribe("a", lambda event: heard.append(event))
    second = log.say("a")
    log.settle()
    assert (stop(), stop()) == (True, False)
    log.say("a")
    log.settle()
    assert heard == [second]


def test_a_subscription_to_one_task_is_over_after_its_first_event(log: Log) -> None:
    heard: list[object] = []
    stop = log.tail.subscribe_once(frozenset({"done", "failed"}), heard.append, "t1")
    for kind, about in (("done", "t2"), ("started", "t1"), ("failed", "t1"), ("done", "t1")):
        log.say(kind, about)
    log.settle()
    assert heard == ["subject of failed"]
    assert stop() is False


def test_a_handler_may_subscribe_and_stop_others_while_it_is_called(log: Log) -> None:
    heard: list[str] = []
    log.tail.subscribe("a", lambda event: (log.tail.subscribe("b", lambda event: heard.append("late")), stop()))
    stop = log.tail.subscribe("b", lambda event: heard.append("stopped"))
    log.say("a")
    log.settle()
    log.say("b")
    log.settle()
    assert heard == ["late"]


def test_a_log_that_cannot_be_read_is_read_again(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    heard = threading.Event()
    log.tail.subscribe("a", lambda _event: heard.set())
    log.broken = True
    log.say("a")
    wait_until(lambda: "Events cannot be read at the moment: away" in caplog.text, LONG_S, "a look at the log")
    assert not heard.is_set()
    log.broken = False
    assert heard.wait(LONG_S)


def test_an_async_handler_that_raises_is_logged_with_the_event(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    async def bad(_task: object) -> None:
        raise RuntimeError("bad coroutine")

    log.tail.subscribe("a", bad)
    log.say("a", "t1")
    log.settle()
    assert "bad coroutine" in caplog.text
    assert "task_id='t1'" in caplog.text


def test_closing_delivers_what_has_happened_first(log: Log) -> None:
    heard: list[object] = []
    log.tail.subscribe("a", heard.append)
    log.tail.call(heard.append, "called")
    for _ in range(10):
        log.say("a")
    log.tail.close(LONG_S)
    assert heard.count("subject of a") == 10
    assert "called" in heard
    log.tail.close()


def test_what_an_event_says_is_cut_to_a_size_its_longest_values_first() -> None:
    data = {"name": "A", "error": "x" * 1000, "rows": list(range(1000))}
    assert cut(data, 100_000) is data
    shown = cut(data, 100)
    assert shown["name"] == "A"
    assert len(str(shown["error"])) + len(str(shown["rows"])) <= 102
    assert str(shown["error"]) == "x" * (len(str(shown["error"])) - 1) + "…"
    assert str(shown["rows"]).startswith("[0, 1, 2")
    assert cut(shown, 200) == shown
