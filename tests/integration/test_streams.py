"""What running steps write, followed while they run: offline, over HTTP, and over brokers from other processes."""

import json
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from orchestra import Orchestrator, TaskStatus, agent, current
from orchestra.bus.streams import MOST_HEARD, LocalStreams, joined
from orchestra.model.ids import new_id
from orchestra.model.piece import Piece
from orchestra.testing import Calls, ScriptedModel
from tests import agents as scripts
from tests.cluster import Cluster
from tests.openai_server import OpenAiServer
from tests.processes import wait_until


def test_what_a_body_says_is_heard_in_order_by_all_who_follow() -> None:
    go = threading.Event()

    def body() -> str:
        assert go.wait(30)
        for n in range(100):
            current().say(f"{n};")
        return "over"

    with Orchestrator() as orch:
        task = orch.submit(body)
        followed = task.stream(), orch.get_run(task.id).stream()
        go.set()
        heard = [list(each) for each in followed]
        assert task.output == "over"
    for pieces in heard:
        assert "".join(map(str, pieces)) == "".join(f"{n};" for n in range(100))
        assert joined(pieces) == [Piece(f"{task.id}.0", "", 0, "".join(map(str, pieces)))]


def test_a_follower_that_does_not_read_costs_the_step_nothing() -> None:
    streams = LocalStreams()
    with streams.follow("r") as heard:
        for n in range(MOST_HEARD + 5):
            streams.say(Piece("r.0", "", n, "x"))
        assert heard.qsize() == MOST_HEARD


def test_the_words_of_a_model_are_followed_and_the_output_is_whole(server: OpenAiServer) -> None:
    server.pause_s = 0.05
    server.answers.extend([("look", {"number": 7}), "it is well on its way"])

    def look(number: int) -> str:
        """Look it up."""
        return f"order {number}"

    clerk = agent("You answer", name="clerk", model=server.model, tools=[look], stream=True)
    with Orchestrator() as orch:
        task = orch.submit(clerk, "Where is my order?")
        pieces = list(task.stream())
        assert task.output == "it is well on its way "
        assert "".join(map(str, pieces)) == task.output
        assert {each.by for each in pieces} == {"clerk#1/model.2"}
        assert len(pieces) > 3
        assert task.usage.requests == 2
        assert task.usage.input_tokens == 14


def test_a_retry_says_what_was_not_said_before() -> None:
    begun: list[int] = []

    def broken_once(prompt: str) -> str:
        begun.append(1)
        if len(begun) == 1:
            raise OSError("cut")
        return "well after all"

    clerk = agent(
        "You answer", model=ScriptedModel(Calls(("count", {})), broken_once), tools=[scripts.count], stream=True
    )
    with Orchestrator() as orch:
        task = orch.submit(clerk, "x", retry=2)
        text = "".join(map(str, task.stream()))
        assert (task.status, task.output, text) == (TaskStatus.COMPLETED, "well after all", "well after all")


def listeners(cluster: Cluster) -> int:
    """Return how many connections to a Redis broker listen."""
    with cluster.redis() as client:
        listed: Any = client.client_list()
    return sum(each["psub"] != "0" for each in listed)


def heard_all(cluster: Cluster, followed: Iterable[Piece]) -> list[Piece]:
    """Return what was heard, and let who said it end when that is all."""
    pieces: list[Piece] = []
    for each in followed:
        pieces.append(each)
        if "".join(map(str, pieces)) == "one two three four ":
            cluster.release("told")
    return pieces


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_words_come_from_workers_over_the_broker(broker: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    rabbit = broker == "rabbitmq"
    url = request.getfixturevalue("rabbitmq_url") if rabbit else request.getfixturevalue("private_redis")().url
    with Cluster(tmp_path, url, queue=f"streams-{new_id()}") as cluster:
        orch = cluster.orchestrator()
        run, other = (orch.submit_workflow(scripts.told.bind()) for _ in range(2))
        followed = run.stream()
        assert rabbit or listeners(cluster) == 1
        for pool in ("threads",) if rabbit else ("prefork", "asyncio"):
            cluster.worker("--pool", pool, "--concurrency", "2")
        pieces = heard_all(cluster, followed)
        assert "".join(map(str, pieces)) == run.output == other.wait(30).output == "one two three four "
        assert {each.step_id for each in pieces} == {f"{run.id}.0"}
        assert list(run.stream()) == []  # nothing of it is kept


def test_the_command_line_shows_what_is_said(agents_cluster: Cluster) -> None:
    run = agents_cluster.orchestrator().submit_workflow(scripts.told.bind())
    watching, piped = (agents_cluster.run(["runs", "watch", run.id, *option]) for option in ((), ("--json",)))
    for each in (watching, piped):
        each.wait_for("workflow.started")
    followed = run.stream()
    wait_until(lambda: listeners(agents_cluster) == 3, 30, "all to listen")
    agents_cluster.worker("--pool", "threads")
    heard_all(agents_cluster, followed)
    watching.wait_for("tell: one two three four")
    piped.wait_for(json.dumps({"task_id": f"{run.id}.0", "text": "one two three four "}))
