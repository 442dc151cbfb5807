"""What docs/stores.md promises of single stores and nothing else shows."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from orchestra.errors import KeyConflict, StoreUnavailable
from orchestra.model.ids import new_id
from orchestra.store.contract import NewRun, RunFilter, Store
from orchestra.store.memory.store import MemoryStore
from orchestra.store.redis.store import RedisStore
from orchestra.store.sql.store import SqlStore
from tests.graphs import create, layered, planned, work
from tests.stores import KINDS, open_url, store_url


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    store = open_url(store_url(request.param, request))
    yield store
    store.close()


def test_what_an_error_cuts_short_leaves_no_trace(store: Store) -> None:
    plan = planned([[], [0]])
    store.create_runs([NewRun("first", "w", "w", plan, key="k", fingerprint="f")], 1.0)
    before = store.census(), store.depth(), store.events(0)
    with pytest.raises(KeyConflict):
        store.create_runs(
            [NewRun(new_id(), "w", "w", plan), NewRun(new_id(), "w", "w", plan, key="k", fingerprint="other")], 2.0
        )
    after = store.census(), store.depth(), store.events(0)
    assert after == before
    assert [run.id for run in store.runs(RunFilter())] == ["first"]


def test_what_is_in_memory_goes_with_its_store() -> None:
    store = MemoryStore()
    create(store, [[]])
    store.close()
    with pytest.raises(StoreUnavailable):
        store.runs(RunFilter())
    assert MemoryStore().runs(RunFilter()) == []


def test_a_sqlite_file_is_synchronised_with_every_commit(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/state.db")
    database: Any = store._database
    connection: sqlite3.Connection = database._connection
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    full = 2
    assert connection.execute("PRAGMA synchronous").fetchone() == (full,)
    store.close()


def test_every_key_of_a_redis_store_has_its_hash_tag(redis_url: str) -> None:
    prefix = f"tag-{new_id()}"
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        before = set(client.scan_iter(count=1000))
        store = RedisStore(f"{redis_url}?prefix={prefix}")
        _run, messages = create(store, layered(2, 3))
        work(store, messages[:2])
        create(store, layered(2, 700))
        store.emit("hello", {}, 1.0)
        store.close()
        written = set(client.scan_iter(count=1000)) - before
    assert written
    assert {key for key in written if not key.startswith(f"{{{prefix}}}:")} == set()
