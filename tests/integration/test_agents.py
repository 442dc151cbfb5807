"""Agents as tasks and their durable runs: offline, by scripts, and against a server like OpenAI's."""

import asyncio
import json
import os
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from orchestra import Orchestrator, RetryPolicy, TaskStatus, agent, workflow
from orchestra.errors import NoModelConfigured
from orchestra.model.usage import Usage
from orchestra.testing import Calls, ScriptedModel
from tests import agents as scripts
from tests.bodies import HOLD_AT, TRACE, lines_of
from tests.cluster import ROOT, Cluster
from tests.commands import orchestra
from tests.openai_server import OpenAiServer
from tests.processes import Process, wait_until

# What people write first


def test_tickets_are_routed_and_jobs_watch_as_people_write_it(any_model: str, server: OpenAiServer) -> None:
    classifier = agent("Classify support tickets by urgency and type")
    tech_support, billing_support = agent("You are technical support"), agent("You answer questions on bills")

    def escalation(ticket: str) -> str:
        return f"escalated: {ticket}"

    def handle_ticket(ticket: str) -> Any:
        classification = classifier(ticket)
        if "technical" in classification.lower():
            return tech_support(ticket)
        if "billing" in classification.lower():
            return billing_support(ticket)
        return escalation(ticket)

    def read_metrics() -> dict[str, float]:
        return {"cpu": 0.4}

    incoming_tickets = ["technical: it does not start", "billing: charged twice", "hello"]
    if any_model == "server":
        server.answers.extend(["technical", "Restart it."])
    with Orchestrator(concurrency=1) as orch:
        tasks = [orch.submit(agent=handle_ticket, input=ticket) for ticket in incoming_tickets]
        answers = [each.wait(30).output for each in tasks]
        if any_model == "server":
            assert answers == ["Restart it.", "escalated: billing: charged twice", "escalated: hello"]
        else:
            assert [str(each).partition(":")[0] for each in answers] == [
                "[offline] technical support answers", "[offline] You answer questions on bills answers", "escalated",
            ]  # fmt: skip
        monitor = agent("You watch a system")
        health_job = orch.schedule(
            agent=monitor,
            input="Check system health: {metrics}",
            interval_seconds=300,
            context={"metrics": read_metrics},
        )
        summary_job = orch.schedule(
            agent=agent("Generate daily summary"), input="Summarize yesterday's events", cron="0 9 * * *"
        )
        health, summary = health_job.trigger().wait(30).output, summary_job.trigger().wait(30).output
        if any_model == "server":
            assert [each["messages"][-1]["content"] for each in server.requests[-2:]] == [
                "Check system health: {'cpu': 0.4}", "Summarize yesterday's events",
            ]  # fmt: skip
        else:
            assert health == "[offline] You watch a system answers: Check system health: {'cpu': 0.4}"
            assert "yesterday" in str(summary)


def test_an_agent_is_a_function_a_task_a_step_and_a_job(any_model: str) -> None:
    classifier = agent("Classify support tickets by urgency and type")

    def handle_ticket(ticket: str) -> str:
        return "tech" if "technical" in classifier(ticket).lower() else "escalated"

    @workflow
    def twice(ticket: str) -> Any:
        return classifier(classifier(ticket))

    assert isinstance(classifier("A technical matter"), str)
    with Orchestrator() as orch:
        assert orch.submit(agent=handle_ticket, input="A technical matter").wait(30).status is TaskStatus.COMPLETED
        assert orch.submit(agent=classifier, input="A technical matter").wait(30).output
        assert orch.submit_workflow(twice, "A technical matter").wait(30).output
        job = orch.schedule(agent=agent("Generate daily summary"), input="Summarize", cron="0 9 * * *")
        assert job.trigger().wait(30).output


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
        assert orch.submit(seller, "How much is a pen?").wait(30).output == "It is 2.50"


# A server that speaks HTTP


def test_tool_calls_go_over_http(server: OpenAiServer) -> None:
    def lookup(number: int) -> str:
        """Return a status."""
        return f"order {number} is shipped"

    server.answers.extend([("lookup", {"number": 7}), "It is shipped."])
    clerk = agent("You answer customers", model=server.model, tools=[lookup])
    assert clerk("Where is order 7?") == "It is shipped."
    assert server.requests[1]["messages"][-1]["content"] == "order 7 is shipped"


@pytest.mark.parametrize("stream", [False, True])
def test_a_busy_model_parks_the_step_for_as_long_as_it_asks(server: OpenAiServer, stream: bool) -> None:
    server.answers.extend([(429, {"retry-after": "1"}), "at last"])
    with Orchestrator(concurrency=1) as orch:
        busy = orch.submit(agent("Ask", model=server.model, stream=stream), "x")
        # The one thread is free meanwhile.
        assert orch.submit(str, "free").wait(30).output == "free"
        assert (str(busy.wait(30).output).strip(), busy.attempts) == ("at last", 2)
        (retrying,) = orch.history(run=busy.id, type="task.retrying")
        assert "asks to wait 1 s" in json.dumps(retrying.data)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("trouble", [(500, {}), "cut"])
def test_a_broken_answer_is_an_error_that_a_retry_gets_over(server: OpenAiServer, trouble: Any, stream: bool) -> None:
    server.answers.extend([trouble, "well"])
    with Orchestrator() as orch:
        again = RetryPolicy(max_attempts=2, delay=0.01)
        task = orch.submit(agent("Ask", model=server.model, stream=stream), "x", retry=again).wait(30)
        assert (str(task.output).strip(), task.attempts) == ("well", 2)


# Durable runs


CALLS = {f"model {n + 1}" for n in range(11)} | {f"tool {n}" for n in range(10)}


def kill_an_agent(cluster: Cluster, kills: int, seed: int) -> None:
    orch = cluster.orchestrator()
    # As much as it needs: a call that were counted twice after a crash would end it.
    task = orch.submit(scripts.ADDER, "add up", usage_limits={"request_limit": 11, "tool_calls_limit": 10})
    cluster.kill_at_random(task, kills, random.Random(seed), "--pool", "asyncio")
    assert (task.status, task.output) == (TaskStatus.COMPLETED, "all added up")
    noted = cluster.noted()
    assert set(noted) == CALLS
    assert not orch.history(run=task.id, type="agent.diverged")
    # No call that was recorded is made again: each kill can double the one that was in flight, and no other.
    assert sum(noted.values()) <= len(CALLS) + kills
    assert len(task.calls) == len(CALLS)
    assert [each.usage.cost for each in task.calls if each.kind == "model"] == [0.01] * 11
    assert task.usage == Usage(requests=11, tool_calls=10, input_tokens=110, output_tokens=55, cost=task.usage.cost)


@pytest.mark.slow
def test_an_agent_killed_again_and_again_repeats_no_call_that_was_recorded(agents_cluster: Cluster) -> None:
    kill_an_agent(agents_cluster, 2, seed=7)


OPEN_AND_ASK = """
import sys
from orchestra import Orchestrator
from tests import agents
with Orchestrator(state_file=sys.argv[1]) as orch:
    orch.submit(agents.ask_plain, "add up", key="the one").wait()
"""


def test_a_plain_agent_of_pydantic_ai_in_a_task_goes_on_from_its_last_call_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, trace = tmp_path / "state.db", tmp_path / "trace.tsv"
    monkeypatch.setenv(TRACE, str(trace))
    command, env = [sys.executable, "-c", OPEN_AND_ASK, str(state)], {HOLD_AT: "7"}
    with Process(command, log=tmp_path / "log", cwd=ROOT, env=env) as program:
        wait_until(lambda: len(lines_of(trace)) >= 7, 60, "some calls")
        program.kill9()
    with Orchestrator(state_file=state) as orch:
        task = orch.submit(scripts.ask_plain, "add up", key="the one").wait(30)
        assert (task.output, task.claims) == ("all added up", 2)
        assert not orch.history(run=task.id, type="agent.diverged")
        noted = Counter(line.split("\t")[2] for line in lines_of(trace))
        assert noted == Counter(CALLS) + Counter({"model 4": 1})  # the one that was in flight
        assert task.usage == Usage(requests=11, tool_calls=10, input_tokens=110, output_tokens=55, cost=0.11)
        assert {each.agent for each in task.calls} == {"plain"}


def test_a_request_that_differs_on_replay_goes_on_live_and_says_so() -> None:
    asked: list[int] = []
    model = ScriptedModel("an answer", cost="0.01", asked=asked.append)
    clerk = agent("You answer", name="clerk", model=model)
    tried: list[str] = []

    def body() -> str:
        tried.append(clerk(f"question {len(tried)}"))
        if len(tried) == 1:
            raise OSError("once")
        return tried[-1]

    with Orchestrator() as orch:
        task = orch.submit(body, retry=RetryPolicy(max_attempts=2, delay=0.01)).wait(30)
        assert (task.output, asked) == ("an answer", [1, 1])
        (diverged,) = orch.history(run=task.id, type="agent.diverged")
        assert (diverged.task_id, diverged.data) == (task.id, {"place": "clerk#1/model.1"})
        (call,) = task.calls
        assert (call.agent, call.kind, call.name, call.usage.requests) == ("clerk", "model", "scripted", 2)
        assert task.usage.cost == orch.get_run(task.id).usage.cost == pytest.approx(0.02)  # both were paid for


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(13))
def test_fifty_kills(agents_cluster: Cluster, seed: int) -> None:
    kill_an_agent(agents_cluster, 4, seed)


def test_a_separate_worker_wants_a_model_unless_offline_is_named(agents_cluster: Cluster) -> None:
    orch = agents_cluster.orchestrator()
    agents_cluster.worker("--pool", "asyncio")
    task = orch.submit(agent("You help"), "x").wait(30)
    assert task.error is not None
    assert task.error.type == NoModelConfigured.__name__
    assert orch.submit(agent("You help", model="offline"), "x").wait(30).output == "[offline] You help answers: x"


def test_the_command_line_shows_what_a_run_took(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'state.db'}"
    clerk = agent("You answer", name="clerk", model=ScriptedModel("an answer", cost="0.0125"))
    with Orchestrator(state_file=tmp_path / "state.db") as orch:
        run = orch.submit(clerk, "hello").wait(30).run_id
        env = {**os.environ, "ORCHESTRA_STORE": store}
        shown = orchestra("runs", "show", str(run), env=env).stdout
        told = json.loads(orchestra("runs", "show", str(run), "--json", env=env).stdout)
    assert "1 requests, 0 tool calls, 10 tokens in, 5 out, $0.0125" in shown
    assert told["usage"]["cost"] == 0.0125
    assert [(each["agent"], each["name"], each["usage"]["output_tokens"]) for each in told["calls"]] == [
        ("clerk", "scripted", 5)
    ]
