"""``orchestra run``, ``submit``, ``runs``, ``events`` and ``doctor``, as people and scripts use them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import commands
from tests.cluster import Cluster
from tests.forks import Program
from tests.processes import Process, wait_until

FLOWS = """
from orchestra import Orchestrator, task, workflow

orch = Orchestrator()


@task
def pages(site: str) -> list[str]:
    return [f"{site}/{n}" for n in range(3)]


@task
def size(page: str) -> int:
    if page.startswith("bad"):
        raise ValueError("no such site")
    return len(page)


@task
def total(sizes: list[int]) -> int:
    return sum(sizes)


@task(queue="nobody")
def lonely(x: object) -> object:
    return x


@workflow
def survey(site: str):
    return total(size.map(pages(site)))
"""


WORDS = """
from pathlib import Path

from orchestra import Orchestrator, task, workflow

orch = Orchestrator()


@task
def heading() -> str:
    return "Words"


@task
def read(path: str) -> str:
    return Path(path).read_text()


@task
def report(heading: str, text: str) -> str:
    return f"{heading}: {len(text.split())}"


@workflow
def words(path: str):
    return report(heading(), read(path))
"""


def orchestra(
    *arguments: str, cwd: Path, env: dict[str, str] | None = None, status: int = 0
) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRA_")}
    done = commands.orchestra(*arguments, cwd=cwd, env={**clean, **(env or {})})
    assert done.returncode == status, f"{arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "flows.py").write_text(FLOWS)
    return tmp_path


def test_run_prints_the_output_alone_and_tells_the_story_on_stderr(folder: Path) -> None:
    done = orchestra("run", "flows.py", "--input", "abc", cwd=folder)
    assert done.stdout == "15\n"
    assert "workflow.started   survey" in done.stderr
    assert "workflow.completed" in done.stderr


def test_run_takes_json_keyword_arguments_and_names(folder: Path) -> None:
    assert (
        json.loads(orchestra("run", "flows:size", "--arg", 'page="four"', "--json", cwd=folder).stdout)["output"] == 4
    )
    assert orchestra("run", "flows.py:total", "-i", "[1, 2]", cwd=folder).stdout == "3\n"


def test_a_run_that_fails_gives_status_1_and_its_error(folder: Path) -> None:
    done = orchestra("run", "flows.py:survey", "-i", "bad", cwd=folder, status=1)
    assert done.stdout == ""
    assert "FAILED: ValueError: 'size[" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "nowhere.py"], "there is no file 'nowhere.py'"),
        (["run", "flows.py:nothing"], "module 'flows' has no 'nothing'"),
        (["run", "flows"], "expected file.py, file.py:name or module:name"),
        (["run", "flows.py", "--arg", "x"], "--arg='x' is not possible: expected key=value"),
        (["submit", "flows.py", "-i", "abc"], "this orchestrator is embedded"),
        (["runs", "show", "nothing"], "the store holds no run or task with id 'nothing'"),
        (["runs", "list", "--since", "yesterday"], "--since='yesterday' is not possible"),
    ],
)
def test_a_wrong_call_is_one_sentence_and_status_2(folder: Path, arguments: list[str], said: str) -> None:
    done = orchestra(*arguments, cwd=folder, status=2, env={"ORCHESTRA_STORE": f"sqlite:///{folder / 'state.db'}"})
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [("runs", "list"), ("runs", "watch", "x"), ("events",), ("jobs", "list")])
def test_where_nothing_is_kept_it_is_said_that_there_is_no_store(folder: Path, arguments: tuple[str, ...]) -> None:
    done = orchestra(*arguments, cwd=folder, status=2)
    assert done.stderr.startswith("Error: there is no store to ")
    assert "set ORCHESTRA_STORE (orchestra dev prints it" in done.stderr
    assert "none: each program keeps its runs in its memory" in orchestra("doctor", cwd=folder).stdout


def test_a_file_with_several_workflows_asks_which(folder: Path) -> None:
    (folder / "two.py").write_text(FLOWS + "\n\n@workflow\ndef other(site: str):\n    return pages(site)\n")
    done = orchestra("run", "two.py", cwd=folder, status=2)
    assert "'two.py' has several: survey, other; say which to run, as two.py:NAME" in done.stderr


class Shared:
    """A folder with flows, and the settings of everything that meets there."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.folder = cluster, cluster.folder
        (self.folder / "flows.py").write_text(FLOWS)
        self.env = {name: cluster.env[name] for name in ("ORCHESTRA_BROKER", "ORCHESTRA_STORE", "ORCHESTRA_QUEUE")}

    def __call__(self, *arguments: str, status: int = 0) -> str:
        return orchestra(*arguments, cwd=self.folder, env=self.env, status=status).stdout

    def json(self, *arguments: str, status: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", status=status))

    def start(self, *arguments: str, log: str) -> Process:
        process = Program(
            [sys.executable, "-m", "orchestra", *arguments], log=self.folder / log, cwd=self.folder, env=self.env
        )
        self.cluster.closing(process.kill9)
        return process.start()


@pytest.fixture
def shared(tmp_path: Path, redis_url: str) -> Iterator[Shared]:
    with Cluster(tmp_path, redis_url, queue="cli") as cluster:
        yield Shared(cluster)


def test_a_run_is_submitted_explained_served_watched_shown_and_listed(shared: Shared) -> None:
    run_id = shared("submit", "flows.py", "-i", "abc", "-m", "team=x", "--key", "k").strip()
    assert shared("submit", "flows.py", "-i", "abc", "--key", "k").strip() == run_id
    assert "'pages' is ready, and no worker serves queue 'cli'" in shared("runs", "why", run_id)
    sick = shared.json("doctor", status=1)
    assert [each["about"] for each in sick if each["level"] == "error"] == ["queue cli"]
    watcher = shared.start("runs", "watch", run_id, log="watch.log")
    watcher.wait_for("it waits: 'pages' is ready, and no worker serves queue 'cli'; start one: orchestra worker --app")
    worker = shared.start("worker", "--app", "flows:orch", "--concurrency", "2", log="worker.log")
    assert watcher.wait() == 0
    assert "workflow.completed" in watcher.output
    healthy = "consumes, and its lease holds"
    wait_until(lambda: healthy in shared("doctor"), 60, "a healthy doctor", ignoring=AssertionError)
    shown = shared.json("runs", "show", run_id)
    assert (shown["status"], shown["output"], shown["metadata"]) == ("COMPLETED", 15, {"team": "x"})
    assert [each["name"] for each in shown["steps"]] == ["pages", "size", "total", "size[0]", "size[1]", "size[2]"]
    assert shown["steps"][2]["after"] == [f"{run_id}.1"]
    assert {each["came_to"] for each in shown["attempts"]} == {"completed"}
    drawn = shared("runs", "show", run_id)
    assert "└── ✔ size  completed" in drawn
    assert "├── ✔ size[0]  completed" in drawn
    assert "it ended COMPLETED" in shared("runs", "why", f"{run_id}.2")
    assert [each["id"] for each in shared.json("runs", "list", "--metadata", "team=x", "--status", "completed")] == [
        run_id
    ]
    assert shared.json("runs", "list", "--name", "other") == []
    assert worker.stop() == 0


def test_events_are_followed_as_they_happen_and_filtered(shared: Shared) -> None:
    orch = shared.cluster.orchestrator()
    orch.emit("order.placed", {"n": 1})
    follower = shared.start("events", "--follow", "--type", "order.*", "--json", log="events.log")
    follower.wait_for('"n": 1')
    orch.emit("other.event")
    orch.emit("order.shipped", {"n": 2})
    follower.wait_for('"n": 2')
    follower.popen.send_signal(signal.SIGINT)
    assert follower.wait() == 130
    heard = [json.loads(each) for each in follower.output.splitlines()]
    assert [each["type"] for each in heard] == ["order.placed", "order.shipped"]
    after = shared("events", "--after", heard[0]["id"])
    assert "order.placed" not in after
    assert "order.shipped" in after


def test_cancel_says_what_came_of_each_id_and_gives_status_1_for_what_had_ended(shared: Shared) -> None:
    run_id = shared("submit", "flows.py:lonely", "-i", "1").strip()
    assert shared("runs", "cancel", run_id) == f"{run_id} cancelled\n"
    assert shared.json("runs", "cancel", run_id, status=1) == [{"id": run_id, "done": False}]
    assert "CANCELLED" in shared("runs", "list")
    lines = [json.loads(each) for each in shared("runs", "watch", run_id, "--json", status=1).splitlines()]
    assert [each["type"] for each in lines] == ["task.submitted", "task.queued", "task.cancelled"]
    assert {each["task_id"] for each in lines} == {run_id}


def test_a_run_is_paused_resumed_and_retried(shared: Shared) -> None:
    run_id = shared("submit", "flows.py:lonely", "-i", "1").strip()
    assert shared("runs", "pause", run_id) == f"{run_id} paused\n"
    assert "PAUSED" in shared("runs", "list")
    assert shared.json("runs", "resume", run_id) == [{"id": run_id, "done": True}]
    assert shared("runs", "resume", run_id, status=1) == f"{run_id} not resumed: it is not paused\n"
    shared("runs", "cancel", run_id)
    assert shared("runs", "retry", run_id) == f"{run_id} retried\n"


def test_a_run_that_failed_is_retried_when_the_cause_is_gone_and_ends_well(shared: Shared) -> None:
    (shared.folder / "words.py").write_text(WORDS)
    # With one slot the heading is done before the reading fails.
    worker = shared.start("worker", "--app", "words:orch", "--concurrency", "1", log="worker.log")
    run_id = shared("submit", "words.py", "-i", "words.txt").strip()
    watched = shared("runs", "watch", run_id, status=1)
    assert "task.failed        read [Errno 2] No such file or directory: 'words.txt'" in watched
    why = shared("runs", "why", run_id)
    assert f"runs again with: orchestra runs retry {run_id}" in why
    (shared.folder / "words.txt").write_text("one two three")
    assert shared("runs", "retry", run_id) == f"{run_id} retried\n"
    assert "workflow.completed" in shared("runs", "watch", run_id)
    shown = shared("runs", "show", run_id)
    assert 'output: "Words: 3"' in shown
    assert "read #2" in shown
    assert "heading #2" not in shown  # what had completed did not run again
    assert [each["status"] for each in shared.json("runs", "list")] == ["COMPLETED"]
    assert shared("runs", "retry", run_id, status=1).endswith("it has not ended, or nothing of it failed\n")
    events = shared("events", "--run", run_id, "--type", "task.retrying").splitlines()
    assert [each.split()[-1] for each in events] == ["read", "report"]
    assert worker.stop() == 0


def test_a_broker_that_is_away_is_an_error_of_the_doctor(shared: Shared) -> None:
    shared.env["ORCHESTRA_BROKER"] = "redis://localhost:1/0"
    found = shared.json("doctor", status=1)
    broker = next(each for each in found if each["about"] == "broker")
    assert broker["level"] == "error"
    assert "does not answer" in broker["text"]
