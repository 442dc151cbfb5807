"""Flower sees every step under its own name, and its end, through its HTTP API and in a browser."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestra import RetryPolicy, Task, Workflow
from tests.bodies import boom, echo, hold, third_time
from tests.cluster import Cluster
from tests.processes import Process, wait_until
from tests.servers import find_binary, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Flower:
    """`orchestra flower` for a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.port = free_port()
        self.process: Process = cluster.run(["flower", "--app", cluster.app, "--port", str(self.port)])
        self.process.wait_for("orchestra flower on")

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
            return json.loads(answer.read())

    def states(self) -> dict[str, str]:
        """The state of each task, by the name under which it is shown."""
        return {each["name"]: each["state"] for each in self.get("/api/tasks").values()}


@pytest.fixture
def cluster(tmp_path: Path, redis_url: str) -> Iterator[Cluster]:
    with Cluster(tmp_path, redis_url, queue="flower") as made:
        yield made


@pytest.fixture
def flower(cluster: Cluster) -> Flower:
    """Flower, once it sees that the worker sends events."""
    cluster.worker("--concurrency", "2")
    made = Flower(cluster)
    orch = cluster.orchestrator()

    def seen() -> bool:
        orch.submit(echo, "x", name="first").wait(30)
        return "first" in made.states()

    wait_until(seen, 60, "Flower to see a task", ignoring=OSError)
    return made


def test_steps_appear_under_their_names_with_root_and_parent_and_always_end(cluster: Cluster, flower: Flower) -> None:
    orch = cluster.orchestrator()
    gather, retried = Task("Gather", echo, "x"), Task("Third time", third_time, "y", retry=RetryPolicy(3, delay=0.1))
    broken = Task("Broken", boom, "no")
    flow = Workflow("w", [gather, retried, broken], dependencies={"Third time": ["Gather"], "Broken": ["Third time"]})
    run = orch.submit_workflow(flow).wait(60)
    ends = {"Gather": "SUCCESS", "Third time": "SUCCESS", "Broken": "FAILURE"}
    wait_until(lambda: ends.items() <= flower.states().items(), 30, "the ends of all steps")
    tasks = {each["name"]: each for each in flower.get("/api/tasks").values()}
    assert {tasks[name]["root_id"] for name in ends} == {f"{run.id}.0.0"}
    assert tasks["Broken"]["parent_id"] == tasks["Third time"]["uuid"]


def test_a_step_that_was_cancelled_while_it_waited_ends_as_revoked(cluster: Cluster, flower: Flower) -> None:
    orch = cluster.orchestrator()
    holders = [orch.submit(hold, name) for name in ("a", "b")]
    for name in ("a", "b"):
        cluster.wait_for_note(f"{name} begins")
    waiting = orch.submit(echo, "z", name="Cancelled")
    orch.cancel(waiting.id)
    for name in ("a", "b"):
        cluster.release(name)
    orch.wait_all(holders, timeout=30)
    wait_until(lambda: flower.states().get("Cancelled") == "REVOKED", 30, "the end of what was cancelled")


def test_a_browser_shows_them(cluster: Cluster, flower: Flower, tmp_path: Path) -> None:
    import subprocess

    browser = find_binary("chromium", package="chromium", server="Chromium")
    cluster.orchestrator().submit(echo, "x", name="Shown to people").wait(30)
    wait_until(lambda: flower.states().get("Shown to people") == "SUCCESS", 30, "the step in Flower")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000", "--dump-dom")
    command = [browser, *flags, f"--user-data-dir={tmp_path / 'profile'}", f"http://127.0.0.1:{flower.port}/tasks"]
    page = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "Shown to people" in page.stdout, page.stderr[-2000:]
    assert "SUCCESS" in page.stdout
