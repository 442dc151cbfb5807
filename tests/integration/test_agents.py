"""Agents as tasks, their durable runs, and patterns: offline, by scripts, and against a server like OpenAI's."""

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import orchestra
from orchestra import AgentPatterns, Orchestrator, TaskStatus, agent, workflow
from orchestra.agents.patterns import DebateResult, Delegation, Vote, debate
from orchestra.errors import AgentsFailed, NoModelConfigured
from orchestra.model.ids import StepRef
from orchestra.testing import Calls, ScriptedModel
from tests import agents as scripts
from tests.cluster import Cluster
from tests.openai_server import OpenAiServer
from tests.servers import PrivateRedis


@pytest.fixture(autouse=True)
def default_closed() -> Iterator[None]:
    yield
    orchestra.default().close()


@pytest.fixture
def server() -> Iterator[OpenAiServer]:
    with OpenAiServer() as made:
        yield made


@pytest.fixture(params=["offline", "server"])
def any_model(request: pytest.FixtureRequest, server: OpenAiServer, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "server":
        monkeypatch.setenv("ORCHESTRA_MODEL", server.model)
    return request.param


# What people write first


def test_patterns_run_as_they_stand(any_model: str) -> None:
    researcher, writer, editor = (
        agent("You are a research specialist"),
        agent("You are a content writer"),
        agent("You are an editor"),
    )
    led = AgentPatterns.supervisor(
        task="Write a research report on AI trends",
        agents=[researcher, writer, editor],
        supervisor_instructions="Coordinate the team to produce a report",
    )
    assert led.finished
    assert led.output
    voters = [agent(f"You are a {kind} expert") for kind in ("security", "performance", "UX")]
    voted = AgentPatterns.consensus(task="Should we approve this feature?", agents=voters, threshold=0.66)
    assert voted.decision == "approved"
    assert list(voted.votes) == ["security expert", "performance expert", "UX expert"]
    debated = AgentPatterns.debate(
        topic="Should AI systems be open-sourced?",
        pro_agent=agent("Argue FOR open-source AI"),
        con_agent=agent("Argue AGAINST open-source AI"),
        judge=agent("Judge the debate fairly"),
        rounds=3,
    )
    assert (debated.winner, len(debated.transcript)) == ("pro", 7)
    thought = AgentPatterns.chain_of_thought(
        problem="How should we scale our service to 10x users?",
        reasoner=agent("You are a systems architect"),
        steps=["Identify current bottlenecks", "Propose scaling strategies"],
    )
    assert len(thought.reasoning_chain) == 2
    assert thought.final_answer
    assert ("[offline]" in thought.final_answer) == (any_model == "offline")


def test_an_agent_is_a_function_a_task_a_step_and_a_job(any_model: str) -> None:
    classifier = agent("Classify support tickets by urgency and type")

    def handle_ticket(ticket: str) -> str:
        return "tech" if "technical" in classifier(ticket).lower() else "escalated"

    @workflow
    def twice(ticket: str) -> Any:
        return classifier(classifier(ticket))

    assert isinstance(classifier("A technical matter"), str)
    with Orchestrator() as orch:
        assert orch.submit(agent=handle_ticket, input="A technical matter").wait(20).status is TaskStatus.COMPLETED
        assert orch.submit(agent=classifier, input="A technical matter").wait(20).output
        assert orch.submit_workflow(twice, "A technical matter").wait(20).output
        job = orch.schedule(agent=agent("Generate daily summary"), input="Summarize", cron="0 9 * * *")
        assert job.trigger().wait(20).output


def test_the_same_prompt_gets_the_same_labelled_answer_offline() -> None:
    class Answer(BaseModel):
        urgent: bool
        kind: str

    assert agent("Sort")("mail") == agent("Sort")("mail") == "[offline] Sort answers: mail"
    assert agent("Sort", output_type=Answer)("mail").kind.startswith("[offline]")


def test_in_a_coroutine_an_agent_is_awaited() -> None:
    async def ask() -> str:
        return await agent("Sort")("mail")

    assert asyncio.run(ask()).startswith("[offline]")


# Scripts and tools


def test_tools_are_functions_and_other_agents() -> None:
    def price(item: str) -> float:
        """Return a price."""
        return {"pen": 2.5}[item]

    clerk = agent(
        "You know prices", name="clerk", model=ScriptedModel(Calls(("price", {"item": "pen"})), "2.50"), tools=[price]
    )
    seller = agent("You sell", model=ScriptedModel(Calls(("clerk", {"prompt": "pen?"})), "It is 2.50"), tools=[clerk])
    with Orchestrator() as orch:
        assert orch.submit(seller, "How much is a pen?").wait(20).output == "It is 2.50"


def test_a_supervisor_delegates_sees_the_results_asks_for_rework_and_ends() -> None:
    def lead(prompt: str) -> Delegation:
        if "second draft" in prompt:
            return Delegation(done=True, agent="", text="the second draft is good")
        if "there is nobody of that name" in prompt:
            return Delegation(done=False, agent="writer", text="write it better")
        if "first draft" in prompt:
            return Delegation(done=False, agent="nobody", text="review")
        return Delegation(done=False, agent="writer", text="write")

    def write(prompt: str) -> str:
        return "second draft" if "better" in prompt else "first draft"

    writer = agent("You write", name="writer", model=ScriptedModel(write))
    led = AgentPatterns.supervisor("a text", [writer], "Lead", model=ScriptedModel(lead))
    assert (led.output, led.rounds, led.finished) == ("the second draft is good", 4, True)
    assert [each.text for each in led.transcript if each.speaker == "writer"] == ["first draft", "second draft"]
    capped = AgentPatterns.supervisor("a text", [writer], "Lead", model=ScriptedModel(lead), max_rounds=1)
    assert (capped.output, capped.finished) == ("first draft", False)


def test_a_consensus_of_five_stands_one_that_fails_and_one_that_hangs() -> None:
    async def hang(prompt: str) -> str:
        await asyncio.sleep(60)
        return prompt

    def voter(name: str, model: Any, tools: Any = ()) -> Any:
        return agent("You vote", name=name, model=model, tools=tools)

    yes, no = Vote(approve=True, reasoning="good"), Vote(approve=False, reasoning="bad")
    voters = [
        voter("a", ScriptedModel(yes)),
        voter("b", ScriptedModel(RuntimeError("broken"))),
        voter("c", ScriptedModel(Calls(("hang", {"prompt": "x"}))), [hang]),
        voter("d", ScriptedModel(no)),
        voter("e", ScriptedModel(yes)),
    ]
    rejected = AgentPatterns.consensus("Ship it?", voters, threshold=0.6, timeout=1.0)
    assert rejected.decision == "rejected"
    assert rejected.votes == {"a": True, "b": None, "c": None, "d": False, "e": True}
    assert "broken" in rejected.reasoning
    # Two of five is decided before the one that hangs has run out of time.
    assert AgentPatterns.consensus("Ship it?", voters, threshold=0.4, timeout=30.0).decision == "approved"


def test_a_debate_ends_by_the_judge_and_fails_when_nobody_can_speak() -> None:
    con_wins = scripts.Verdict(winner="con", verdict="calmer")
    mute = agent("Mute", name="mute", model=ScriptedModel(ValueError("no voice")))
    speaker, judge = agent("Speak", model=ScriptedModel("a point")), agent("Judge", model=ScriptedModel(con_wins))
    result = AgentPatterns.debate("x", mute, speaker, judge, rounds=2)
    assert (result.winner, [each.error is not None for each in result.transcript]) == (
        "con", [True, False, True, False, False],
    )  # fmt: skip
    with Orchestrator() as orch:
        sides = {"pro_agent": mute, "con_agent": mute, "judge": judge}
        ended = orch.submit(lambda: AgentPatterns.debate("x", **sides, rounds=1)).wait(20)
        assert ended.error is not None
        assert ended.error.type == AgentsFailed.__name__


# A server that speaks HTTP


def test_tool_calls_go_over_http(server: OpenAiServer) -> None:
    def lookup(number: int) -> str:
        """Return a status."""
        return f"order {number} is shipped"

    server.answers.extend([("lookup", {"number": 7}), "It is shipped."])
    clerk = agent("You answer customers", model=server.model, tools=[lookup])
    assert clerk("Where is order 7?") == "It is shipped."
    assert server.requests[1]["messages"][-1]["content"] == "order 7 is shipped"


def test_a_busy_model_parks_the_step_for_as_long_as_it_asks(server: OpenAiServer) -> None:
    server.answers.extend([(429, {"retry-after": "1"}), "at last"])
    with Orchestrator(concurrency=1) as orch:
        busy = orch.submit(agent("Ask", model=server.model), "x")
        # The one thread is free meanwhile.
        assert orch.submit(str, "free").wait(20).output == "free"
        assert (busy.wait(20).output, busy.attempts) == ("at last", 2)
        (retrying,) = orch.history(run=busy.id, type="task.retrying")
        assert "asks to wait 1 s" in json.dumps(retrying.data)


@pytest.mark.parametrize("trouble", [(500, {}), "cut"])
def test_a_broken_answer_is_an_error_that_a_retry_gets_over(server: OpenAiServer, trouble: Any) -> None:
    server.answers.extend([trouble, "well"])
    with Orchestrator() as orch:
        task = orch.submit(agent("Ask", model=server.model), "x", retry=2).wait(20)
        assert (task.output, task.attempts) == ("well", 2)


# Durable runs


@pytest.fixture
def cluster(private_redis: Callable[..., PrivateRedis], tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path, private_redis().url) as made:
        yield made


def killed_at_random(cluster: Cluster, task: Any, kills: int, chance: random.Random) -> None:
    """Kill the worker after a random number of further calls, again and again, and let the last one finish."""
    for _ in range(kills):
        seen = len(cluster.notes())
        worker = cluster.worker("--pool", "asyncio", ready=False)
        cluster.wait_for_note("", seen + chance.randint(1, 4), timeout=40)
        worker.kill9()
    cluster.worker("--pool", "asyncio", ready=False)
    task.wait(60)


def kill_an_agent(cluster: Cluster, kills: int, seed: int) -> None:
    orch = cluster.orchestrator()
    task = orch.submit(scripts.ADDER, "add up")
    killed_at_random(cluster, task, kills, random.Random(seed))
    assert (task.status, task.output) == (TaskStatus.COMPLETED, "all added up")
    noted = cluster.noted()
    calls = {f"model {n + 1}" for n in range(11)} | {f"tool {n}" for n in range(10)}
    assert set(noted) == calls
    assert not any("agent.diverged" in each.read_text() for each in cluster.folder.glob("*.log"))
    # No call that was recorded is made again: each kill can double the one that was in flight, and no other.
    assert sum(noted.values()) <= len(calls) + kills
    kept = orch.parts.store.checkpoints(StepRef(task.id, 0))
    assert len(kept) == len(calls)
    costs = [json.loads(text)["answer"][0]["usage"]["cost"] for key, text in kept.items() if "/model." in key]
    assert costs == ["0.01"] * 11


def test_an_agent_killed_again_and_again_repeats_no_call_that_was_recorded(cluster: Cluster) -> None:
    kill_an_agent(cluster, 3, seed=7)


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(13))
def test_fifty_kills(cluster: Cluster, seed: int) -> None:
    kill_an_agent(cluster, 4, seed)


def test_a_debate_killed_three_times_ends_with_one_full_transcript(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    speaker = agent("Speak", model="script:tests.agents:SPEAKER")
    judge = agent("Judge", model="script:tests.agents:JUDGE")
    given = {"topic": "x", "pro_agent": speaker, "con_agent": speaker, "judge": judge, "rounds": 5}
    task = orch.submit(debate, kwargs=given)
    killed_at_random(cluster, task, 3, random.Random(3))
    result = DebateResult.model_validate(task.output)
    spoken = [(each.round, each.speaker) for each in result.transcript]
    assert spoken == [*((n, side) for n in range(1, 6) for side in ("pro", "con")), (6, "judge")]
    assert result.winner == "con"
    assert cluster.noted()["speech"] <= 10 + 3
    assert result.usage.cost == pytest.approx(0.1)  # what was read again is counted, once


def test_a_separate_worker_wants_a_model_unless_offline_is_named(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    cluster.worker("--pool", "asyncio")
    task = orch.submit(agent("You help"), "x").wait(30)
    assert task.error is not None
    assert task.error.type == NoModelConfigured.__name__
    assert orch.submit(agent("You help", model="offline"), "x").wait(30).output == "[offline] You help answers: x"
