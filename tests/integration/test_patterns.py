"""Patterns: what several agents do together, round by round; each round is a step."""

import asyncio
import random
from typing import Any

import pytest

from orchestra import (
    AgentPatterns,
    ExecutionPattern,
    Orchestrator,
    RetryPolicy,
    Task,
    TaskStatus,
    Workflow,
    agent,
    workflow,
)
from orchestra.agents.patterns.collaboration import CollaborationResult, Contribution
from orchestra.agents.patterns.consensus import Vote
from orchestra.agents.patterns.debate import DebateResult, Verdict
from orchestra.agents.patterns.supervisor import Delegation, SupervisorResult
from orchestra.errors import AgentsFailed, InvalidOption, TaskFailed
from orchestra.testing import Calls, ScriptedModel
from tests.cluster import Cluster
from tests.openai_server import OpenAiServer

pytestmark = pytest.mark.usefixtures("default_closed")


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
        steps=[
            "Identify current bottlenecks",
            "Propose scaling strategies",
            "Evaluate trade-offs",
            "Create implementation plan",
        ],
    )
    assert len(thought.reasoning_chain) == 4
    assert thought.final_answer
    assert ("[offline]" in thought.final_answer) == (any_model == "offline")


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
    for seconds in (4.0, 12.0, 36.0):  # of those that answer none takes so long, unless the machine stalls
        rejected = AgentPatterns.consensus("Ship it?", voters, threshold=0.6, timeout=seconds)
        assert rejected.decision == "rejected"
        if list(rejected.votes.values()).count(None) == 2:
            break
    assert rejected.votes == {"a": True, "b": None, "c": None, "d": False, "e": True}
    assert "broken" in rejected.reasoning
    # Two of five is decided before the one that hangs has run out of time.
    assert AgentPatterns.consensus("Ship it?", voters, threshold=0.4, timeout=30.0).decision == "approved"


def test_a_debate_ends_by_the_judge_and_fails_when_nobody_can_speak() -> None:
    con_wins = Verdict(winner="con", verdict="calmer")
    mute = agent("Mute", name="mute", model=ScriptedModel(ValueError("no voice")))
    speaker, judge = agent("Speak", model=ScriptedModel("a point")), agent("Judge", model=ScriptedModel(con_wins))
    result = AgentPatterns.debate("x", mute, speaker, judge, rounds=2)
    assert (result.winner, [each.error is not None for each in result.transcript]) == (
        "con", [True, False, True, False, False],
    )  # fmt: skip
    with Orchestrator() as orch:
        sides = {"pro_agent": mute, "con_agent": mute, "judge": judge}
        ended = orch.submit(lambda: AgentPatterns.debate("x", **sides, rounds=1)).wait(30)
        assert ended.error is not None
        assert ended.error.type == AgentsFailed.__name__


def a_debate(**more: Any) -> dict[str, Any]:
    point = ScriptedModel("a point", cost="0.01")
    judge = agent("Judge", model=ScriptedModel(Verdict(winner="con", verdict="calmer"), cost="0.02"))
    return {
        "topic": "x",
        "pro_agent": agent("A", model=point),
        "con_agent": agent("B", model=point),
        "judge": judge,
        **more,
    }


def test_rounds_are_steps_and_a_pattern_is_a_task_a_step_and_a_part_of_a_step() -> None:
    @workflow
    def discussed() -> Any:
        return AgentPatterns.debate(**a_debate(rounds=2))

    def within() -> float:
        return AgentPatterns.debate(**a_debate(rounds=2)).usage.cost

    with Orchestrator() as orch:
        alone = orch.submit(AgentPatterns.debate, kwargs=a_debate(rounds=2)).wait(30)
        assert DebateResult.model_validate(alone.output).final_verdict == "calmer"
        rounds = ["debate round 1", "debate round 2", "debate verdict", "debate result"]
        assert [each.name for each in orch.get_run(alone.id).tasks] == ["debate", *rounds]
        step = orch.submit_workflow(discussed).wait(30)
        assert DebateResult.model_validate(step.output).winner == "con"
        assert [each.usage.requests for each in step.tasks] == [5, 2, 2, 1, 0]
        assert step.usage.cost == pytest.approx(0.06)
        part = orch.submit(within).wait(30)
        assert part.output == pytest.approx(0.06)
        assert len(orch.get_run(part.id).tasks) == 1
        assert [each.agent for each in part.calls] == ["con", "con", "judge", "pro", "pro"]


def test_what_was_spent_ends_the_rounds() -> None:
    debated = AgentPatterns.debate(**a_debate(rounds=5), max_cost=0.03)
    assert [(each.round, each.speaker) for each in debated.transcript] == [
        (1, "pro"), (1, "con"), (2, "pro"), (6, "judge"),
    ]  # fmt: skip
    assert debated.usage.cost == pytest.approx(0.05)


def test_an_agent_that_failed_is_not_asked_again_by_a_step_that_runs_again() -> None:
    asked: list[int] = []
    broken = ScriptedModel(RuntimeError("broken"), asked=asked.append)
    voters = [
        agent("You vote", name="a", model=broken),
        agent("You vote", model=ScriptedModel(Vote(approve=True, reasoning=""))),
    ]

    def vote_and_fail_once() -> Any:
        voted = AgentPatterns.consensus("x", voters, threshold=1.0)
        if len(attempts) < 2:
            attempts.append(1)
            raise OSError("once")
        return voted.decision

    attempts: list[int] = []
    with Orchestrator() as orch:
        assert (
            orch.submit(vote_and_fail_once, retry=RetryPolicy(max_attempts=3, delay=0.01)).wait(30).output == "rejected"
        )
    assert asked == [1]


def test_a_vote_of_nobody_is_no_decision() -> None:
    mute = agent("Mute", model=ScriptedModel(ValueError("no voice")))
    with pytest.raises(TaskFailed, match="no voice"):
        AgentPatterns.consensus("x", [mute, mute])


# Workflows whose agents decide


def a_team(*agents: Any) -> Workflow:
    return Workflow(
        "A report", [Task(name, each) for name, each in zip(("Lead", "Research", "Write"), agents, strict=False)]
    )


def test_the_first_agent_of_a_supervised_workflow_hands_work_to_the_others() -> None:
    def lead(prompt: str) -> Delegation:
        if "Write: the report" in prompt:
            return Delegation(done=True, text="well done")
        name = "Write" if "Research: the notes" in prompt else "Research"
        return Delegation(done=False, agent=name, text="go on")

    boss = agent("You lead", model=ScriptedModel(lead))
    others = [agent("You work", model=ScriptedModel(text)) for text in ("the notes", "the report")]
    with Orchestrator() as orch:
        run = orch.submit_workflow(a_team(boss, *others), "On tides", pattern=ExecutionPattern.SUPERVISOR).wait(30)
        result = SupervisorResult.model_validate(run.output)
        assert (result.output, result.rounds, result.finished) == ("well done", 3, True)
        statuses = {each.name: each.status for each in run.tasks}
        assert statuses["supervisor round 3"] is TaskStatus.COMPLETED
        assert statuses["supervisor round 4"] is TaskStatus.SKIPPED


def test_the_agents_of_a_collaborative_workflow_take_turns_until_all_are_content() -> None:
    def writes(line: str) -> Any:
        def turn(prompt: str) -> Contribution:
            text = prompt.partition("The text so far:\n")[2].partition("\n\n")[0]
            known = "" if text == "(nothing yet)" else text
            return Contribution(content=True) if line in known else Contribution(content=False, text=f"{known}{line};")

        return agent("You write", model=ScriptedModel(turn))

    with Orchestrator() as orch:
        flow = a_team(writes("one"), writes("two"), writes("three"))
        run = orch.submit_workflow(flow, "On tides", pattern=ExecutionPattern.COLLABORATIVE).wait(30)
        result = CollaborationResult.model_validate(run.output)
        assert (result.output, result.rounds, result.finished) == ("one;two;three;", 2, True)
        assert [each.speaker for each in result.transcript] == ["Lead", "Research", "Write"] * 2


def test_teams_want_agents_and_a_goal() -> None:
    flow, patterns = a_team(agent("You lead"), agent("You work")), ExecutionPattern
    with Orchestrator() as orch:
        with pytest.raises(InvalidOption, match="what the agents are to do"):
            orch.submit_workflow(flow, pattern=patterns.SUPERVISOR)
        with pytest.raises(InvalidOption, match="an agent"):
            orch.submit_workflow(a_team(len), "x", pattern=patterns.COLLABORATIVE)
        ordered = Workflow("Ordered", flow.tasks, {"Research": ["Lead"]})
        with pytest.raises(InvalidOption, match="decide"):
            orch.submit_workflow(ordered, "x", pattern=patterns.SUPERVISOR)
        run = orch.submit_workflow(flow, "A report on tides", pattern=patterns.SUPERVISOR).wait(30)
        assert "[offline]" in SupervisorResult.model_validate(run.output).output


# Killed workers


def test_a_debate_killed_three_times_goes_on_in_its_round_and_ends_with_one_full_transcript(
    agents_cluster: Cluster,
) -> None:
    orch = agents_cluster.orchestrator()
    speaker = agent("Speak", model="script:tests.agents:SPEAKER")
    judge = agent("Judge", model="script:tests.agents:JUDGE")
    given = {"topic": "x", "pro_agent": speaker, "con_agent": speaker, "judge": judge, "rounds": 5}
    task = orch.submit(AgentPatterns.debate, kwargs=given)
    agents_cluster.kill_at_random(task, 3, random.Random(3), "--pool", "asyncio")
    result = DebateResult.model_validate(task.output)
    spoken = [(each.round, each.speaker) for each in result.transcript]
    assert spoken == [*((n, side) for n in range(1, 6) for side in ("pro", "con")), (6, "judge")]
    assert result.winner == "con"
    assert agents_cluster.noted()["speech"] <= 10 + 3
    assert result.usage.cost == pytest.approx(0.1)  # what was read again is counted, once
    assert task.usage == result.usage
    rounds = [each for each in orch.get_run(task.id).tasks if each.name.startswith("debate round")]
    assert len(rounds) == 5
    assert all(each.claims == 1 + each.crashes for each in rounds)  # what had ended did not begin again


def test_patterns_wait_for_a_model_that_is_busy(server: OpenAiServer) -> None:
    server.answers.extend(["a point", (429, {"retry-after": "1"}), "another"])
    sides = {side: agent(side, model=server.model) for side in ("pro_agent", "con_agent", "judge")}
    with Orchestrator() as orch:
        run = orch.submit_workflow(AgentPatterns.debate.make("x", **sides, rounds=1).workflow()).wait(30)
        said = [each.text for each in DebateResult.model_validate(run.output).transcript]
        assert said == ["a point", "another", "pro was clear"]
        assert [each.attempts for each in run.tasks] == [2, 1, 1]
        assert len(server.requests) == 4  # what pro had said was read
