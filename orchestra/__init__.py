"""Orchestra: durable workflows and AI agents on the Celery you already run."""

from orchestra.client import Orchestrator, default
from orchestra.model.current import current
from orchestra.model.function import task, workflow
from orchestra.model.job import ScheduledJob
from orchestra.model.retry import RetryPolicy
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.model.task import Task, WorkflowRun
from orchestra.model.workflow import ExecutionPattern, Workflow

__all__ = [
    "ExecutionPattern",
    "Orchestrator",
    "RetryPolicy",
    "ScheduledJob",
    "Task",
    "TaskStatus",
    "Workflow",
    "WorkflowRun",
    "WorkflowStatus",
    "current",
    "default",
    "task",
    "workflow",
]
__version__ = "0.1.0"
