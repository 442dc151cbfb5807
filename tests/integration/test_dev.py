"""``orchestra dev``: worker, beat and Flower in one command, in one process or as several, until Ctrl-C."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestra import Orchestrator
from orchestra.runtime.local import asleep
from tests import bodies
from tests.cluster import ROOT
from tests.commands import orchestra
from tests.processes import Process, lives, wait_until
from tests.servers import free_port

FLOWS = """
from orchestra import Orchestrator, task, workflow

orch = Orchestrator()


@task
def pages(site: str) -> list[str]:
    return [f"{site}/{n}" for n in range(3)]


@task(queue="heavy")
def total(pages: list[str]) -> int:
    return len(pages)


@workflow
def survey(site: str):
    return total(pages(site))
"""


class Desk:
    """A folder with an application, and commands that are given there."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder, self.env, self._open = folder, {"PYTHONPATH": str(ROOT), **env}, ExitStack()
        (folder / "flows.py").write_text(FLOWS)

    def dev(self, *options: str) -> Process:
        command = [sys.executable, "-m", "orchestra", "dev", *options]
        process = Process(command, log=self.folder / "dev.log", cwd=self.folder, env={**self.env})
        self._open.callback(process.stop)
        process.start().wait_for("Ctrl-C stops everything.", 60)
        return process

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return orchestra(*arguments, cwd=self.folder, env={**os.environ, **self.env})

    def close(self) -> None:
        self._open.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.close()


def submitted(desk: Desk) -> str:
    """Submit a workflow from another process, and return its output when it has one."""
    ended = wait_until(lambda: _submitted(desk), 60, "somebody to serve the store")
    return ended.stdout.strip()


def _submitted(desk: Desk) -> Any:
    ended = desk.run("submit", "flows.py:survey", "--input", "here", "--wait")
    return ended if ended.returncode == 0 else None


def states(port: int) -> dict[str, str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/tasks", timeout=60) as answer:
        return {each["name"]: each["state"] for each in json.loads(answer.read()).values()}


def test_without_a_broker_all_is_in_one_process_and_flower_sees_what_others_submit(desk: Desk) -> None:
    port = free_port()
    dev = desk.dev("--app", "flows:orch", "--port", str(port))
    store = f"sqlite:///{desk.folder / 'orchestra-dev.db'}"
    assert f"export ORCHESTRA_STORE={store}" in dev.output
    desk.env["ORCHESTRA_STORE"] = store
    ends = {"pages": "SUCCESS", "total": "SUCCESS"}

    def shown() -> bool:
        assert submitted(desk) == "3"  # again and again: Flower listens only after the store is served
        return ends.items() <= states(port).items()

    wait_until(shown, 60, "Flower to show the steps", ignoring=OSError)
    dev.popen.send_signal(signal.SIGINT)
    assert dev.wait(60) == 0
    assert "Traceback" not in dev.output
    refused = desk.run("submit", "flows.py:survey", "--input", "here")
    assert refused.returncode == 2
    assert "nobody else serves its store" in refused.stderr


def test_it_fires_jobs_and_goes_without_flower(desk: Desk) -> None:
    dev = desk.dev("--app", "flows:orch", "--no-flower")
    desk.env["ORCHESTRA_STORE"] = f"sqlite:///{desk.folder / 'orchestra-dev.db'}"
    added = desk.run("jobs", "add", "--workflow", "flows:survey", "--input", '"x"', "--every", "1s", "--name", "often")
    assert added.returncode == 0, added.stderr

    def fired() -> bool:
        return "COMPLETED" in desk.run("runs", "list").stdout

    wait_until(fired, 60, "the job to fire")
    dev.popen.terminate()
    assert dev.wait(60) == 0


def test_with_a_broker_there_are_processes_which_end_together(tmp_path: Path, redis_url: str) -> None:
    store = f"sqlite:///{tmp_path / 'state.db'}"
    desk = Desk(tmp_path, ORCHESTRA_BROKER=redis_url, ORCHESTRA_STORE=store, ORCHESTRA_QUEUE="dev")
    try:
        dev = desk.dev("--app", "flows:orch", "--no-flower")
        dev.wait_for(" ready.", 60)
        ended = desk.run("run", "flows.py:pages", "--input", "here")
        assert json.loads(ended.stdout) == ["here/0", "here/1", "here/2"], ended.stderr
        parts = psutil.Process(dev.pid).children(recursive=True)
        dev.popen.send_signal(signal.SIGINT)
        assert dev.wait(60) == 0
        wait_until(lambda: not any(lives(each.pid) for each in parts), 30, "all parts to be gone")
        again = desk.dev("--app", "flows:orch", "--no-flower")
        again.wait_for(lambda output: output.count(" ready.") == 2, 60)  # in the log of both
        (worker,) = psutil.Process(again.pid).children()
        worker.kill()
        assert again.wait(60) == 1
        assert "orchestra worker ended with status -9" in again.output
    finally:
        desk.close()


def test_a_port_that_is_taken_is_said_before_anything_starts(desk: Desk) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = desk.run("dev", "--app", "flows:orch", "--port", str(taken.getsockname()[1]))
    assert ended.returncode == 2
    assert "give another --port" in ended.stderr


def test_a_command_that_only_looks_does_not_begin_to_work(desk: Desk) -> None:
    file, trace = desk.folder / "kept.db", desk.folder / "trace"
    desk.env |= {"ORCHESTRA_STORE": f"sqlite:///{file}", "ORCHESTRA_MODULES": "tests", bodies.TRACE: str(trace)}
    with asleep(), Orchestrator(state_file=file) as orch:
        kept = orch.submit(bodies.echo, "kept")
    assert "no_worker" in desk.run("runs", "why", kept.id, "--json").stdout
    assert desk.run("events").returncode == 0
    assert not trace.exists()
    desk.dev("--no-flower")
    wait_until(trace.exists, 60, "dev to do what was kept")
