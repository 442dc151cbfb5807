"""What travels from pool children to their parent, and when a process is called live and ready."""

import os
import threading
from dataclasses import dataclass
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest

from orchestra.runtime.health import STUCK_S, ReconcilerHealth
from orchestra.runtime.observing import Measure, Sample
from orchestra.telemetry.meters import Meters
from orchestra.telemetry.relay import Relay
from orchestra.telemetry.tally import BOUNDS, Tally
from tests.processes import wait_until

ONE = Sample(Measure.STARTED, 1, ("q", "größe"))


def in_a_child(work: Any) -> None:
    """Do something in a forked process, and wait for it."""
    pid = os.fork()
    if not pid:
        work()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def counted(tally: Tally) -> float:
    return sum(cell[0] for _labels, cell in tally.of(Measure.STARTED))


def test_what_children_measure_is_added_up_by_their_parent() -> None:
    tally = Tally()
    relay = Relay(tally)
    relay.observe([ONE])
    assert counted(tally) == 1

    def work() -> None:
        relay.observe([ONE, ONE])
        relay.flush()

    for _ in range(2):
        in_a_child(work)
    assert counted(tally) == 1
    relay.drain()
    assert list(tally.of(Measure.STARTED)) == [(ONE.labels, [5.0, 5.0])]
    relay.close()


def test_a_child_tells_by_itself_what_it_has_measured() -> None:
    tally = Tally()
    relay = Relay(tally)
    over = os.pipe()

    def work() -> None:
        relay.observe([ONE])
        os.read(over[0], 1)

    pid = os.fork()
    if not pid:
        work()
        os._exit(0)

    def heard() -> bool:
        relay.drain()
        return counted(tally) == 1

    wait_until(heard, 30, "the child to tell")
    os.write(over[1], b"x")
    os.waitpid(pid, 0)
    relay.close()


def test_a_child_keeps_what_the_pipe_has_no_room_for_and_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestra.telemetry.relay.FLUSH_S", 1000.0)  # it tells when it is told to, alone
    tally = Tally()
    relay = Relay(tally)
    asked, answered = os.pipe(), os.pipe()
    many = 5000

    def work() -> None:
        relay.observe([Sample(Measure.STARTED, 1, ("q", f"{'t' * 100}{n}")) for n in range(many)])
        relay.flush()
        os.write(answered[1], b"x")
        os.read(asked[0], 1)
        relay.flush()

    pid = os.fork()
    if not pid:
        work()
        os._exit(0)
    os.read(answered[0], 1)
    relay.drain()
    before = counted(tally)
    assert 0 < before < many
    os.write(asked[1], b"x")
    os.waitpid(pid, 0)
    relay.drain()
    assert before < counted(tally) <= many
    relay.close()


def test_buckets_are_those_that_prometheus_itself_would_fill() -> None:
    values = (0.0, 0.005, 0.0051, 1.0, 1800.0, 1801.0)
    tally = Tally()
    tally.take([Sample(Measure.LAG, value, ("q",)) for value in values])
    registry = CollectorRegistry()
    named = ("orchestra_step_lag_seconds", "Time from when a step was ready to its claim.", ["queue"])
    its = Histogram(*named, registry=registry, buckets=BOUNDS[Measure.LAG])
    for value in values:
        its.labels("q").observe(value)
    ours = generate_latest(Meters(tally, list, lambda: 0.0).registry).decode()
    wanted = [each for each in generate_latest(registry).decode().splitlines() if "_created" not in each]
    assert len(wanted) > len(BOUNDS[Measure.LAG])
    assert "\n".join(wanted) in ours


def test_a_store_that_does_not_answer_hides_no_other_metric() -> None:
    away = threading.Event()
    tally = Tally()
    meters = Meters(tally, lambda: cast(Any, away.wait()), lambda: 0.0)
    tally.take([ONE])
    text = generate_latest(meters.registry).decode()
    assert 'orchestra_steps_started_total{queue="q",task="größe"} 1.0' in text
    assert "orchestra_ready_steps" not in text
    away.set()


@dataclass
class Reconciler:
    """What health looks at."""

    turned_at: float = 0.0
    reached_at: float = 0.0
    deafness: int = 0
    lease_s: float = 5.0


def health(now: float, obstacle: str | None = None, **facts: Any) -> tuple[str | None, str | None]:
    asked = ReconcilerHealth(cast(Any, Reconciler(**facts)), lambda: obstacle, lambda: now)
    return asked.live(), asked.ready()


def test_a_process_is_unready_without_its_store_and_dead_only_when_it_is_stuck() -> None:
    assert health(4.0) == (None, None)
    assert health(6.0) == (None, "it has not reached the store for 6 s")
    assert health(STUCK_S + 1, reached_at=STUCK_S) == ((stuck := "its reconciler has not turned for 61 s"), stuck)
    assert health(1.0, "it is stopping") == (None, "it is stopping")


def test_a_worker_that_stays_deaf_after_it_reconnected_is_to_be_started_anew() -> None:
    assert health(1.0, deafness=1) == (None, "it hears nothing of what is sent to its queues")
    assert health(1.0, deafness=2)[0] == "it hears nothing of what is sent to its queues, although it reconnected"
