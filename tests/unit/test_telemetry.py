"""What travels from pool children to their parent, and when a process is called live and ready."""

import os
import threading
from dataclasses import dataclass
from typing import Any, cast

from prometheus_client.exposition import generate_latest

from orchestra.runtime.health import STUCK_S, ReconcilerHealth
from orchestra.runtime.observing import Measure, Sample
from orchestra.telemetry.meters import Meters
from orchestra.telemetry.relay import Relay

ONE = Sample(Measure.STARTED, 1, ("q", "größe"))


def in_a_child(work: Any) -> None:
    """Do something in a forked process, and wait for it."""
    pid = os.fork()
    if not pid:
        work()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def test_samples_of_children_reach_their_parent() -> None:
    heard: list[Sample] = []
    relay = Relay(heard.extend)
    relay.observe([ONE])
    assert heard == [ONE]
    for _ in range(2):
        in_a_child(lambda: relay.observe([ONE, ONE]))
    assert heard == [ONE]
    relay.drain()
    assert heard == [ONE] * 5
    relay.close()


def test_a_child_keeps_what_the_pipe_has_no_room_for_and_never_waits() -> None:
    heard: list[Sample] = []
    relay = Relay(heard.extend)
    asked, answered = os.pipe(), os.pipe()

    def work() -> None:
        for _ in range(60_000):
            relay.observe([ONE])
        os.write(answered[1], b"x")
        os.read(asked[0], 1)
        relay.observe([ONE])

    pid = os.fork()
    if not pid:
        work()
        os._exit(0)
    os.read(answered[0], 1)
    relay.drain()
    before = len(heard)
    assert 1000 < before < 60_000
    os.write(asked[1], b"x")
    os.waitpid(pid, 0)
    relay.drain()
    assert before + 1000 < len(heard) <= 60_001
    relay.close()


def test_a_store_that_does_not_answer_hides_no_other_metric() -> None:
    away = threading.Event()
    meters = Meters(lambda: cast(Any, away.wait()), lambda: 0.0)
    meters.take([ONE])
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
