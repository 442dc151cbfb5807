"""Orchestra: durable workflows and AI agents on the Celery you already run."""

from typing import TYPE_CHECKING, Any

from orchestra.bus.webhook import Webhook
from orchestra.client import Orchestrator, default
from orchestra.model.current import current
from orchestra.model.function import task, workflow
from orchestra.model.job import ScheduledJob
from orchestra.model.retry import RetryPolicy
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.model.task import Task, WorkflowRun
from orchestra.model.workflow import ExecutionPattern, Workflow

if TYPE_CHECKING:
    from orchestra.agents.agent import agent
    from orchestra.patterns import AgentPatterns

__all__ = [
    "AgentPatterns",
    "ExecutionPattern",
    "Orchestrator",
    "RetryPolicy",
    "ScheduledJob",
    "Task",
    "TaskStatus",
    "Webhook",
    "Workflow",
    "WorkflowRun",
    "WorkflowStatus",
    "agent",
    "current",
    "default",
    "task",
    "workflow",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Who uses no agents does not wait for them to be imported.
    match name:
        case "agent":
            from orchestra.agents import agent as module
        case "AgentPatterns":
            from orchestra import patterns as module
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(module, name)
    return found
