"""``orchestra store``: info, migrate and prune, as a script uses them."""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from orchestra.store.contract import Lease, NewRun
from orchestra.store.sql import versions
from orchestra.store.sql.opening import connect
from tests import commands
from tests.graphs import create, planned, work
from tests.stores import open_url, store_url


@pytest.fixture(params=["sqlite", "postgresql", "redis"])
def url(request: pytest.FixtureRequest) -> str:
    return store_url(request.param, request)


def orchestra(*arguments: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRA_")}
    return commands.orchestra("store", *arguments, env={**clean, **env}, cwd=cwd)


def facts(*arguments: str) -> dict[str, Any]:
    done = orchestra(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_info_counts_what_the_store_holds(url: str) -> None:
    store = open_url(url)
    _run, messages = create(store, [[], [0]])
    work(store, messages)
    create(store, [[]] * 3)
    store.renew(Lease("w/1", "worker-1", "host", "b", 1, 1.0, ["q"], 4, 0.0, time.time() + 60))
    store.renew(Lease("w/2", "worker-2", "host", "b", 1, 1.0, ["q"], 4, 0.0, 1.0))
    store.close()
    found = facts("info", "--store", url)
    assert found["kind"] in url
    assert found["status"] == "ready"
    assert found["version"] == found["newest"]
    assert found["runs"] == {"COMPLETED": 1, "RUNNING": 1}
    assert found["steps"] == 5
    assert found["ready_steps"] == {"q": 3}
    workers = {each["name"]: (each["slots"], each["alive"]) for each in found["workers"]}
    assert workers == {"worker-1": (4, True), "worker-2": (4, False)}
    shown = orchestra("info", "--store", url).stdout
    assert "COMPLETED 1, RUNNING 1" in shown
    assert "name worker-1, host host, queues q, slots 4, alive yes" in shown


def test_the_store_comes_from_the_settings_when_none_is_given(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    open_url(url).close()
    done = orchestra("info", "--json", ORCHESTRA_STORE=url)
    assert json.loads(done.stdout)["url"] == url


def test_prune_deletes_what_is_older_and_says_how_much(url: str) -> None:
    store = open_url(url)
    _run, messages = create(store, [[], [0]])
    work(store, messages)
    now = time.time()
    (created,) = store.create_runs([NewRun("young", "w", "w", planned([[]]))], now)
    store.cancel("young", None, now)
    assert created.run_id == "young"
    assert facts("prune", "--older-than", "30d", "--dry-run", "--store", url)["would_delete"] == 1
    assert store.census().steps == 3
    assert facts("prune", "--older-than", "30d", "--store", url)["deleted"] == 1
    assert facts("prune", "--older-than", "30d", "--store", url)["deleted"] == 0
    assert store.census().steps == 1
    store.close()


def test_prune_without_an_age_takes_that_of_the_settings(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    open_url(url).close()
    assert orchestra("prune", "--store", url, ORCHESTRA_KEEP_FOR="12h").returncode == 0
    done = orchestra("prune", "--store", url, cwd=tmp_path)
    assert done.returncode == 2
    assert "--older-than" in done.stderr


def test_migrate_makes_the_tables_of_an_empty_database_and_then_has_nothing_to_do(url: str) -> None:
    first = facts("migrate", "--store", url)
    again = facts("migrate", "--store", url)
    assert again["from"] == again["to"] == first["to"]
    assert facts("info", "--store", url)["status"] == "ready"


@pytest.mark.parametrize(("version", "status"), [("0000", "older"), ("9999", "newer")])
def test_info_on_tables_of_another_release_says_so_and_fails(tmp_path: Path, version: str, status: str) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    open_url(url).close()
    database = connect(url)
    database.write(lambda tx: tx.execute(f"UPDATE alembic_version SET version_num = '{version}'") and None)
    database.close()
    done = orchestra("info", "--store", url, "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["status"].startswith(status)
    assert (found["version"], found["newest"]) == (version, versions.NEWEST)
    assert "runs" not in found
    assert orchestra("prune", "--store", url, "--older-than", "1d").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info"], "there is no store"),
        (["info", "--store", "memory://"], "inside the process"),
        (["info", "--store", "sqlite:///none.db"], "there is no such file"),
        (["info", "--store", "mysql://u:secret@h/d"], "is not possible"),
        (["prune", "--store", "sqlite:///none.db", "--older-than", "1d"], "there is no such file"),
        (["prune", "--older-than", "soon"], "there is no store"),
        (["migrate", "--store", "postgresql://u:secret@127.0.0.1:1/d"], "127.0.0.1:1"),
        (["info", "--store", "redis://u:secret@127.0.0.1:1/0"], "127.0.0.1:1"),
    ],
)
def test_what_cannot_be_is_one_line_without_any_password(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = orchestra(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr + done.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_age_that_is_none_is_named(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    open_url(url).close()
    done = orchestra("prune", "--store", url, "--older-than", "soon")
    assert done.returncode == 2
    assert "--older-than 'soon' is no duration" in done.stderr
