"""Team: the tasks of a ``Workflow`` whose agents are left to decide who does what."""

from typing import Any

from pydantic import BaseModel

from orchestra.agents.agent import LlmAgent
from orchestra.agents.patterns.collaboration import Collaboration
from orchestra.agents.patterns.supervisor import Supervision
from orchestra.errors import InvalidOption
from orchestra.model.function import task

MOST_ROUNDS = 10


class Member(BaseModel):
    """A task: its name, whose it is, and what it was given for itself."""

    name: str
    agent: LlmAgent
    input: str | None = None

    def told(self) -> LlmAgent:
        """Return the agent under the task's name, told what it was given."""
        about = self.agent.instructions if self.input is None else f"{self.agent.instructions}\n\n{self.input}"
        return self.agent.model_copy(update={"name": self.name, "instructions": about})


@task
def supervise(goal: str, members: list[Member]) -> Any:
    """Let the first one lead the others."""
    leader, *others = members
    if not others:
        raise InvalidOption("tasks", [leader.name], "a task whose agent leads, and at least one other")
    agents = tuple(each.told() for each in others)
    return Supervision(task=goal, agents=agents, leader=leader.told(), max_rounds=MOST_ROUNDS).workflow()


@task
def collaborate(goal: str, members: list[Member]) -> Any:
    """Let all take turns."""
    return Collaboration(task=goal, agents=tuple(each.told() for each in members), max_rounds=MOST_ROUNDS).workflow()
