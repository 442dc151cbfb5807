"""What the agents of one run may use together: counted over its steps, kept over retries, and a hard end."""

from typing import Any

import pytest

from orchestra import AgentPatterns, Orchestrator, RetryPolicy, TaskStatus, WorkflowStatus, agent, workflow
from orchestra.agents.patterns.consensus import Vote
from orchestra.errors import InvalidOption, UsageLimitReached
from orchestra.testing import Calls, ScriptedModel

AGAIN = RetryPolicy(max_attempts=3, delay=0.01)


def reached(task: Any) -> str:
    """Return what a task says that failed at a limit."""
    assert (task.status, task.error.type) == (TaskStatus.FAILED, UsageLimitReached.__name__)
    return str(task.error)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"request_limit": 2}, "used 2 of request_limit=2"),
        ({"total_tokens_limit": 30}, "used 30 of total_tokens_limit=30"),
        ({"cost_limit": 0.015, "request_limit": 100}, "used 0.02 of cost_limit=0.015"),
    ],
)
def test_what_all_steps_used_ends_a_run(limits: dict[str, float], said: str) -> None:
    asked: list[int] = []
    clerk = agent("You answer", model=ScriptedModel("an answer", cost="0.01", asked=asked.append))

    @workflow
    def three(text: str) -> Any:
        return clerk(clerk(clerk(text)))

    with Orchestrator() as orch:
        run = orch.submit_workflow(three, "hello", usage_limits=limits).wait(30)
        assert (run.status, run.usage.requests, len(asked)) == (WorkflowStatus.FAILED, 2, 2)
        assert said in reached(run.tasks[2])
        assert run.metadata["usage_limits"] == limits
        assert orch.submit_workflow(three, "hello").wait(30).status is WorkflowStatus.COMPLETED


def test_a_limit_counts_what_was_used_before_a_retry_once_and_is_no_reason_for_another() -> None:
    asked: list[int] = []
    clerk = agent("You answer", name="clerk", model=ScriptedModel("an answer", asked=asked.append))
    attempts: list[int] = []

    def body() -> None:
        attempts.append(1)
        for number in range(2):
            clerk(f"question {number}")
        if len(attempts) == 1:
            raise OSError("once")
        clerk("one more")
        clerk("too many")

    with Orchestrator() as orch:
        task = orch.submit(body, retry=AGAIN, usage_limits={"request_limit": 3}).wait(30)
        assert "used 3 of request_limit=3" in reached(task)
        assert (task.attempts, len(attempts), len(asked), task.usage.requests) == (2, 2, 3, 3)
        assert orch.retry(task.id)  # by hand: what was used stays used
        assert reached(orch.get_task(task.id).wait(30))
        assert (len(attempts), len(asked)) == (3, 3)


def test_tool_calls_have_a_limit_of_their_own() -> None:
    called: list[int] = []

    def tool(number: int) -> int:
        """A tool."""
        called.append(number)
        return number

    script = ScriptedModel(*(Calls(("tool", {"number": number})) for number in range(3)), "done")
    with Orchestrator() as orch:
        task = orch.submit(agent("You call", model=script, tools=[tool]), "x", usage_limits={"tool_calls_limit": 2})
        assert "used 2 of tool_calls_limit=2" in reached(task.wait(30))
        assert called == [0, 1]


def test_requests_that_are_under_way_in_a_step_count() -> None:
    asked: list[int] = []
    model = ScriptedModel(Vote(approve=True, reasoning="good"), asked=asked.append)
    voters = [agent("You vote", name=name, model=model) for name in "abcde"]

    def vote() -> str:
        return AgentPatterns.consensus("Ship it?", voters).decision

    with Orchestrator() as orch:
        assert "request_limit=3" in reached(orch.submit(vote, usage_limits={"request_limit": 3}).wait(30))
        assert len(asked) == 3
        assert orch.submit(vote, usage_limits={"request_limit": 5}).wait(30).output == "approved"


def test_a_pattern_ends_at_the_limit_of_its_run_whichever_round_it_is_in() -> None:
    speaker = agent("Speak", model=ScriptedModel("a point", cost="0.01"))
    sides = {"topic": "x", "pro_agent": speaker, "con_agent": speaker, "judge": speaker, "rounds": 5}
    with Orchestrator() as orch:
        task = orch.submit(AgentPatterns.debate, kwargs=sides, usage_limits={"cost_limit": 0.03}).wait(30)
        assert task.status is TaskStatus.FAILED
        assert task.usage.cost == pytest.approx(0.03)
        assert reached(next(each for each in orch.get_run(task.id).tasks if each.name == "debate round 2"))


def test_jobs_have_limits_in_their_metadata() -> None:
    clerk = agent("You answer", model=ScriptedModel("an answer"))
    with Orchestrator() as orch:
        about = {"usage_limits": {"request_limit": 0}}
        job = orch.schedule(agent=clerk, input="x", cron="0 9 * * *", metadata=about)
        (task,) = job.trigger().wait(30).tasks
        assert "used 0 of request_limit=0" in reached(task)


@pytest.mark.parametrize("limits", [{"requests": 1}, {"cost_limit": -1}, {"cost_limit": "much"}, 5])
def test_limits_that_mean_nothing_are_refused(limits: Any) -> None:
    with Orchestrator() as orch:
        for given in ({"usage_limits": limits}, {"metadata": {"usage_limits": limits}}):
            with pytest.raises(InvalidOption, match="cost_limit"):
                orch.submit(len, "x", **given)
