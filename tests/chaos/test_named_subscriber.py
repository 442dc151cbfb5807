"""A named subscriber that is killed again and again misses nothing."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from orchestra.model.event import position
from orchestra.store.contract import Store
from tests.cluster import ROOT, Cluster
from tests.forks import Program
from tests.processes import wait_until

SIZES = [
    pytest.param((400, 4), id="400-tasks"),
    pytest.param((5000, 10), id="5000-tasks", marks=[pytest.mark.soak, pytest.mark.timeout(400)]),
]


@pytest.fixture(params=["redis", "rabbitmq", "rabbitmq+postgresql"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    kind: str = request.param
    broker = request.getfixturevalue("redis_url" if kind == "redis" else "rabbitmq_url")
    with Cluster(tmp_path, broker, queue="named") as made:
        if "postgresql" in kind:
            made.store = request.getfixturevalue("postgres_store_url")
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_it_receives_every_event_at_least_once_and_in_order_per_run(cluster: Cluster, size: tuple[int, int]) -> None:
    tasks, kills = size
    heard = cluster.folder / "heard.txt"
    subscriber = Program(
        [sys.executable, "-m", "tests.subscriber_app", heard], log=cluster.folder / "sub.log", cwd=ROOT, env=cluster.env
    )
    cluster.closing(subscriber.kill9)
    subscriber.start().wait_for("subscribed")
    orch = cluster.orchestrator()
    store = orch.parts.store
    begin = store.take_cursor("pager", "nobody", 0, 0.0, 0.0).seq
    cluster.worker("--pool", "threads", "--concurrency", "4", "--loglevel", "WARNING", ready=False)
    from tests.bodies import noop

    held = Interloper(cluster.store) if cluster.store.startswith("postgresql") else None
    for at in range(tasks):
        orch.submit(noop)
        if held is not None and at % (tasks // 4) == tasks // 8:
            held.begin(at)
        if at % (tasks // kills) == tasks // kills - 1:
            if held is not None:
                held.commit()
            subscriber.kill9()
            subscriber.start()
    wait_until(lambda: not store.open_queues(), 300, "all tasks to end")
    orch.emit("that.is.all")
    wait_until(lambda: heard.read_text().endswith("that.is.all\n"), 60, "the subscriber to have heard the last")
    lines = [line.split() for line in heard.read_text().splitlines()]
    expected = log_of(store, begin)  # to its end, or what came after the last that was waited for
    expected = expected[: expected.index(next(each[0] for each in lines if each[2] == "that.is.all")) + 1]
    assert {each[0] for each in lines} >= set(expected)
    assert held is None or held.committed == sum(each[2] == "interloper.came" for each in first_times(lines))
    last: dict[str, tuple[int, int]] = {}
    for event_id, run_id, _type in first_times(lines):
        assert last.get(run_id, (0, 0)) < position(event_id)
        last[run_id] = position(event_id)
    print(f"{len(expected)} events, {len(lines) - len(expected)} of them more than once")


def first_times(lines: list[list[str]]) -> list[list[str]]:
    """Return what was heard, without what had been heard before."""
    return list({each[0]: each for each in reversed(lines)}.values())[::-1]


def log_of(store: Store, begin: int) -> list[str]:
    found: list[str] = []
    while True:
        page, last = store.events(begin)
        if last == begin:
            return found
        found += [each.id for each in page]
        begin = last


class Interloper:
    """Writes events in transactions that stay open while others, with later numbers, are committed."""

    def __init__(self, url: str) -> None:
        server, _, self._schema = url.partition("?schema=")
        self._connection: psycopg.Connection[Any] = psycopg.connect(server)
        self.committed = 0
        self._open = False

    def begin(self, at: int) -> None:
        entries = json.dumps([["interloper.came", [], {"at": at}]])
        self._connection.execute(
            f'INSERT INTO "{self._schema}".events (time, single, entries) VALUES (%s, 0, %s)',  # type: ignore[arg-type]
            (time.time(), entries),
        )
        self._open = True

    def commit(self) -> None:
        if self._open:
            self._connection.commit()
            self._open = False
            self.committed += 1
