"""Opening a SQL database, SQLite's ways, and trying again."""

import os
import sqlite3
import sys
import threading
import time
from pathlib import Path

import pytest

from orchestra.errors import SettingsError, StoreUnavailable
from orchestra.model.status import TaskStatus
from orchestra.store.sql import database
from orchestra.store.sql.address import parsed, shown
from orchestra.store.sql.store import SqlStore
from tests.graphs import create, layered, work


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("sqlite://", "sqlite+pysqlite"),
        ("sqlite:///state.db", "sqlite+pysqlite"),
        ("sqlite:////var/lib/state.db", "sqlite+pysqlite"),
        ("postgresql://u:p@h:1/d", "postgresql+psycopg"),
        ("postgresql+psycopg://u:p@h/d?schema=x", "postgresql+psycopg"),
    ],
)
def test_the_driver_is_ours_to_choose(url: str, driver: str) -> None:
    assert parsed(url).drivername == driver


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "mysql://u:s3cret@h/d", "postgresql+psycopg2://u:s3cret@h/d", "sqlite://state.db", "redis://h"],
)
def test_other_urls_are_refused_with_what_is_expected_and_without_their_password(url: str) -> None:
    with pytest.raises(SettingsError, match="postgresql://") as raised:
        parsed(url)
    assert "s3cret" not in str(raised.value)


def test_a_url_is_shown_as_it_was_written_but_for_its_password() -> None:
    assert shown(parsed("postgresql+psycopg://u:s3cret@h:1/d?schema=x")) == "postgresql://u:***@h:1/d?schema=x"
    assert "s3cret" not in shown(parsed("postgresql://h/d?user=u&password=s3cret"))


def test_a_relative_path_means_the_folder_where_the_store_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = SqlStore("sqlite:///state.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    pid = os.fork()
    if pid == 0:
        try:
            store.emit("custom", {}, 1.0)
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert len(store.events(0)[0]) == 1
    store.close()


def test_a_missing_driver_is_named_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(SettingsError, match=r"orchestra-celery\[postgres\]"):
        SqlStore("postgresql://u:s3cret@h/d")


def test_a_file_that_cannot_be_opened_is_a_store_that_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="does not exist"):
        SqlStore(f"sqlite:///{tmp_path}/missing/state.db")
    (tmp_path / "text.db").write_text("this is no database, but long enough to be looked at" * 100)
    with pytest.raises(StoreUnavailable, match="not a database"):
        SqlStore(f"sqlite:///{tmp_path}/text.db")


def test_a_busy_file_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.db"
    store = SqlStore(f"sqlite:///{path}")
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    releasing = threading.Timer(0.3, other.execute, ["COMMIT"])
    releasing.start()
    store.emit("custom", {}, 1.0)
    releasing.join()
    assert len(store.events(0)[0]) == 1
    monkeypatch.setattr(database, "PATIENCE_S", 0.1)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        store.emit("custom", {}, 1.0)
    other.close()
    store.close()


def test_a_forked_child_has_a_connection_of_its_own(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/state.db")
    run_id, messages = create(store, [[]] * 20)
    pid = os.fork()
    if pid == 0:
        done = -1
        try:
            done = work(store, messages[:10], "child")
        finally:
            os._exit(0 if done == 10 else 1)
    assert work(store, messages[10:], "parent") == 10
    assert os.waitpid(pid, 0)[1] == 0
    assert store.counts(run_id) == {TaskStatus.COMPLETED: 20}
    store.close()


def test_eight_threads_record_each_step_of_a_run_once(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/state.db")
    run_id, messages = create(store, layered(4, 10))
    messages += messages
    done: list[int] = []

    def act() -> None:
        mine = 0
        while (run := store.run(run_id)) is not None and not run.status.ended:
            mine += work(store, messages)
        done.append(mine)

    threads = [threading.Thread(target=act) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(done) == 40
    assert store.counts(run_id) == {TaskStatus.COMPLETED: 40}
    store.close()


def test_a_closed_store_says_so_and_closing_twice_is_fine() -> None:
    store = SqlStore("sqlite://")
    store.close()
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.depth()


def test_an_error_of_a_block_takes_back_what_it_did_and_is_not_tried_again() -> None:
    store = SqlStore("sqlite://")
    tries: list[float] = []

    def block(tx: database.Transaction) -> None:
        tries.append(time.monotonic())
        tx.execute("INSERT INTO meta VALUES ('a', 'b')")
        raise LookupError

    with pytest.raises(LookupError):
        store._database.write(block)
    count = store._database.read(lambda tx: tx.execute("SELECT count(*) FROM meta WHERE name = 'a'").fetchone())
    assert tuple(count) == (0,)
    assert len(tries) == 1
    store.close()
