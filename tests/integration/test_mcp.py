"""MCP servers as tools of agents: real servers, started over stdio or listening on HTTP."""

import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from orchestra import Orchestrator, RetryPolicy, TaskStatus, agent
from orchestra.agents.agent import McpServer
from orchestra.testing import Calls, ScriptedModel
from tests.cluster import ROOT, Cluster
from tests.processes import Process, wait_until

CALLS = Calls(("price", {"item": "pen"}))
LISTENING = re.compile(r"Uvicorn running on (http://\S+)")


@pytest.fixture(params=["stdio", "http"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[McpServer]:
    command = (sys.executable, "-m", "tests.mcp_server", str(tmp_path / "asked"))
    if request.param == "stdio":
        yield McpServer(command=command)
        return
    with Process([*command, "0"], log=tmp_path / "mcp.log", cwd=ROOT, env={}) as process:
        process.wait_for(LISTENING.search, timeout=60)
        found = LISTENING.search(process.output)
        assert found is not None
        yield McpServer(url=f"{found[1]}/mcp")


def test_the_tools_of_a_server_are_called_once_whatever_becomes_of_the_step(shop: McpServer, tmp_path: Path) -> None:
    clerk = agent("You know prices", name="clerk", model=ScriptedModel(CALLS, "It is 2.50"), tools=[shop])
    tried: list[str] = []

    def body() -> str:
        tried.append(clerk("How much is a pen?"))
        if len(tried) == 1:
            raise OSError("once")
        return tried[-1]

    with Orchestrator() as orch:
        task = orch.submit(body, retry=RetryPolicy(max_attempts=2, delay=0.01)).wait(60)
        assert (task.status, task.output) == (TaskStatus.COMPLETED, "It is 2.50")
        assert [(each.kind, each.name) for each in task.calls] == [
            ("model", "scripted"), ("tool", "price"), ("model", "scripted"),
        ]  # fmt: skip
    assert (tmp_path / "asked").read_text() == "pen\n"
    wait_until(lambda: shop.url or not servers_of(tmp_path), 30, "the end of the servers that were started")


def servers_of(folder: Path) -> list[str]:
    """Return the processes whose command line names a folder."""
    lines: list[str] = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            lines.append(each.read_bytes().decode())
    return [line for line in lines if "tests.mcp_server" in line and str(folder) in line]


def test_an_agent_with_a_server_travels_to_workers(agents_cluster: Cluster, tmp_path: Path) -> None:
    server = McpServer(command=(sys.executable, "-m", "tests.mcp_server", str(tmp_path / "asked")))
    clerk = agent("You know prices", model="script:tests.agents:SELLER", tools=[server])
    task = agents_cluster.orchestrator().submit(clerk, "How much is a pen?")
    agents_cluster.worker("--pool", "asyncio")
    task.wait(60).raise_for_status()
    assert task.output == "the price is known"
    assert (tmp_path / "asked").read_text() == "pen\n"


def test_a_server_that_does_not_start_is_the_error_of_the_step() -> None:
    clerk = agent("You know prices", model=ScriptedModel(CALLS), tools=[McpServer(command=("no-such-server",))])
    with Orchestrator() as orch:
        error = orch.submit(clerk, "x").wait(60).error
        assert error is not None
        assert "no-such-server" in str(error)


def test_a_tool_that_fails_is_told_to_the_model_and_not_called_again(tmp_path: Path) -> None:
    server = McpServer(command=(sys.executable, "-m", "tests.mcp_server", str(tmp_path / "asked")))
    script = ScriptedModel(Calls(("price", {"item": "car"})), CALLS, "It is 2.50")
    clerk = agent("You know prices", model=script, tools=[server])
    tried: list[str] = []

    def body() -> str:
        tried.append(clerk("How much is a car?"))
        if len(tried) == 1:
            raise OSError("once")
        return tried[-1]

    with Orchestrator() as orch:
        task = orch.submit(body, retry=RetryPolicy(max_attempts=2, delay=0.01)).wait(60)
        assert task.output == "It is 2.50"
    assert (tmp_path / "asked").read_text() == "car\npen\n"
