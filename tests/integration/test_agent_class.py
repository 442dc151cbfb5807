"""Agents as classes: configuration, prep → exec → post, the edge to follow, and the memory of conversations."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from orchestra import Orchestrator, TaskStatus, workflow
from orchestra.agents.base import Agent, AgentConfig, Context, Next, Problem, Severity
from orchestra.errors import InvalidConfig
from tests import agents as scripts
from tests.cluster import Cluster


class Triage(Agent):
    class Config(AgentConfig):
        threshold: float = 0.5
        label: str = "ticket"

        def problems(self) -> Iterable[Problem]:
            if self.threshold > 1:
                yield Problem(Severity.ERROR, "threshold", "no score is above 1")
            if self.threshold > 0.9:
                yield Problem(Severity.WARNING, "threshold", "nearly nothing is escalated")
            if not self.label:
                yield Problem(Severity.INFO, "label", "it is empty")

    config: Config

    async def prep(self, context: Context) -> Any:
        context.values["asked"] = context.input
        return len(context.input) / 10

    def exec(self, prepared: Any) -> Any:
        return min(1.0, prepared)

    def post(self, context: Context, prepared: Any, result: Any) -> Any:
        edge = "escalate" if result > self.config.threshold else "answer"
        return Next(edge, {"of": context.values["asked"], "score": result})


class Echo(Agent):
    def exec(self, prepared: Any) -> Any:
        return prepared

    def prep(self, context: Context) -> Any:
        return [[each.input, each.output] for each in context.history]

    def post(self, context: Context, prepared: Any, result: Any) -> Any:
        return f"{context.input} after {[each for each, _output in result]}"


def test_defaults_hold_where_nothing_overrides_them() -> None:
    base = Triage.Config(threshold=0.7)
    assert (Triage().config.threshold, Triage(base).config.threshold) == (0.5, 0.7)
    assert Triage(base, threshold=0.8, label="x").config == Triage.Config(threshold=0.8, label="x")


def test_a_configuration_is_checked_with_severities() -> None:
    assert [each.severity for each in Triage.validate(threshold=0.95, label="")] == [Severity.WARNING, Severity.INFO]
    assert Triage.validate(threshold=2, label="")[0] == Problem(Severity.ERROR, "threshold", "no score is above 1")
    assert [each.field for each in Triage.validate(threshold="high", colour="red")] == ["threshold", "colour"]
    assert Triage.validate() == []
    with pytest.raises(InvalidConfig, match=r"'Triage'.*threshold: no score is above 1"):
        Triage(threshold=2)


def test_post_names_the_edge_to_follow() -> None:
    triage = Triage(threshold=0.5)

    @workflow
    def handle(ticket: str) -> Any:
        scored = triage(ticket)
        answered = scripts.shout(scored).after(scored, when="output.edge == 'answer'")
        escalated = scripts.whisper(scored).after(scored, when="output.edge == 'escalate'")
        return [answered, escalated]

    with Orchestrator() as orch:
        assert orch.submit_workflow(handle, "tiny").wait(30).output == ["TINY", None]
        assert orch.submit_workflow(handle, "quite long").wait(30).output == [None, "(quite long)"]
    assert triage("tiny") == {"edge": "answer", "output": {"of": "tiny", "score": 0.4}}


def test_warnings_are_in_the_log_of_the_run() -> None:
    with Orchestrator() as orch:
        task = orch.submit(Triage(threshold=0.95), "tiny").wait(30)
        assert [each.text for each in orch.logs(task.id)] == ["Triage: threshold: nearly nothing is escalated"]


def test_a_conversation_is_remembered_run_by_run_and_by_nobody_else(tmp_path: Path) -> None:
    def say(orch: Orchestrator, text: str, conversation: str, remember: int = 2) -> Any:
        return orch.submit(Echo(remember=remember), text, metadata={"conversation": conversation}).wait(30).output

    with Orchestrator(state_file=tmp_path / "state.db") as orch:
        assert say(orch, "one", "a") == "one after []"
        assert say(orch, "two", "a") == "two after ['one']"
        assert say(orch, "other", "b") == "other after []"
    with Orchestrator(state_file=tmp_path / "state.db") as orch:  # it outlives the process
        assert say(orch, "three", "a") == "three after ['one', 'two']"
        assert say(orch, "four", "a") == "four after ['two', 'three']"
        assert say(orch, "five", "a", remember=0) == "five after []"
        assert orch.submit(Echo(remember=2), "alone").wait(30).output == "alone after []"


def test_an_agent_travels_to_workers_with_its_configuration(agents_cluster: Cluster) -> None:
    orch = agents_cluster.orchestrator()
    about = {"conversation": "c"}
    tasks = [orch.submit(scripts.Greeter(greeting=each), "you", metadata=about) for each in ("Hi", "Ho")]
    agents_cluster.worker("--pool", "asyncio")
    assert [each.wait(60).output for each in tasks] == ["Hi, you", "Ho, you"]
    later = orch.submit(scripts.Greeter(remember=5), "again", metadata=about).wait(60)
    assert later.status is TaskStatus.COMPLETED
