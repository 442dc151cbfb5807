"""Handlers with a name: they go on where they stopped. Handlers with a time limit, and news over the broker."""

import logging
import threading
import time
from pathlib import Path

import pytest

from orchestra import Orchestrator
from orchestra.errors import InvalidOption
from orchestra.model.event import Event
from orchestra.settings import IN_MEMORY_STORE
from tests.cluster import Cluster
from tests.processes import wait_until


def test_a_named_handler_hears_what_happened_while_it_was_away(tmp_path: Path) -> None:
    heard: list[object] = []

    def hear(event: Event) -> None:
        heard.append(event.data["n"])

    for round_ in range(3):
        with Orchestrator(state_file=tmp_path / "state.db") as orch:
            if round_ == 1:
                orch.emit("order.placed", {"n": 1})  # nobody listens
                continue
            orch.on("order.*", hear, name="pager")
            orch.emit("order.placed", {"n": round_})
            orch.emit("other.event")
            wait_until(lambda: heard[-1:] == [round_], 30, "the event")  # noqa: B023
            remembered(orch)
    assert heard == [0, 1, 2]


def remembered(orch: Orchestrator) -> None:
    """Wait until what the pager has heard is remembered: what is not by then comes once more."""
    store = orch.parts.store
    wait_until(lambda: store.take_cursor("pager", "nobody", 0, 0.0, 0.0).seq >= store.last_event(), 30, "the cursor")


def test_two_processes_under_one_name_share_the_events_and_one_takes_over_from_the_other(tmp_path: Path) -> None:
    heard: list[tuple[str, object]] = []
    first, second = (Orchestrator(state_file=tmp_path / "state.db") for _ in range(2))

    def hear_first(event: Event) -> None:
        heard.append(("first", event.data["n"]))

    def hear_second(event: Event) -> None:
        heard.append(("second", event.data["n"]))

    first.on("order.*", hear_first, name="pager")
    second.on("order.*", hear_second, name="pager")
    first.emit("order.placed", {"n": 1})
    wait_until(lambda: len(heard) == 1, 30, "one delivery")
    remembered(first)
    first.close()
    second.emit("order.placed", {"n": 2})
    wait_until(lambda: len(heard) == 2, 30, "the other one")
    second.close()
    assert heard == [("first", 1), ("second", 2)]


def test_a_handler_that_raises_or_takes_too_long_is_logged_and_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    hold, heard = threading.Event(), list[object]()

    def stuck(event: Event) -> None:
        if event.data["n"] == 0:
            hold.wait()

    def broken(event: Event) -> None:
        raise ValueError(event.data["n"])

    def fine(event: Event) -> None:
        heard.append(event.data["n"])

    with Orchestrator() as orch, caplog.at_level(logging.ERROR):
        # Only the one that is stuck has so little time: on a machine that stalls any of them would take longer.
        for handler, name, limit_s in ((stuck, "stuck", 0.2), (broken, "broken", 60.0), (fine, "fine", 60.0)):
            orch.on("order.*", handler, name=name, timeout=limit_s)
            orch.on("order.*", handler, timeout=limit_s)
        for n in range(2):
            orch.emit("order.placed", {"n": n})
        wait_until(lambda: sorted(map(str, heard)) == ["0", "0", "1", "1"], 30, "both events, twice")
        wait_until(lambda: raised(caplog, "HandlerTimedOut") >= 2, 30, "limits")
        hold.set()
        wait_until(lambda: raised(caplog, "ValueError") >= 4, 30, "errors")
    assert raised(caplog, "ValueError") == 4
    assert raised(caplog, "HandlerTimedOut") <= 4


def raised(caplog: pytest.LogCaptureFixture, kind: str) -> int:
    """Return how many records carry an error of a kind, however they are formatted."""
    return sum(
        bool(each.exc_info and each.exc_info[0] and each.exc_info[0].__name__ == kind) for each in caplog.records
    )


def test_a_name_is_for_one_handler_and_can_be_forgotten() -> None:
    with Orchestrator() as orch:
        orch.on("task.*", print, name="pager")
        with pytest.raises(InvalidOption, match="name='pager' is not possible"):
            orch.on("task.failed", print, name="pager")
        with pytest.raises(InvalidOption):
            orch.on("task.failed", print, name="")
        assert orch.forget("pager")
        assert not orch.forget("pager")


@pytest.mark.parametrize("broker", ["redis_url", "rabbitmq_url"])
def test_news_of_other_processes_arrive_over_the_broker(
    broker: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestra.bus.tail.FASTEST_POLL_S", 300.0)  # nothing comes by polling
    monkeypatch.setattr("orchestra.bus.tail.SLOWEST_POLL_S", 300.0)
    monkeypatch.setattr("orchestra.bus.subscriber._IDLE_POLL_S", 300.0)
    heard: list[float] = []
    with Cluster(tmp_path, request.getfixturevalue(broker), queue="live") as cluster:
        listening, telling = cluster.orchestrator(), cluster.orchestrator()
        for name in (None, "pager"):
            listening.on("order.*", lambda event: heard.append(time.time() - event.data["at"]), name=name)
        telling.emit("other.event")  # until the listener's queue is there, a word may be lost
        wait_until(lambda: _emitted(telling) and len(heard) >= 2, 30, "the event, twice", ignoring=())


def _emitted(orch: Orchestrator) -> bool:
    orch.emit("order.placed", {"at": time.time()})
    time.sleep(0.2)
    return True


def test_the_store_of_an_embedded_orchestrator_has_cursors_too() -> None:
    with Orchestrator(store=IN_MEMORY_STORE) as orch:
        heard: list[str] = []
        orch.on("*", lambda event: heard.append(event.type), name="all")
        orch.submit(len, "abc").wait()
        wait_until(lambda: "task.completed" in heard, 30, "the end")
        assert heard[0] == "worker.online" or heard[0] == "task.submitted"
