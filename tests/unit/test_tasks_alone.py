"""Tasks that are submitted alone take shorter ways through the engine, which lead to the same."""

from typing import Any

import pytest

from orchestra import RetryPolicy, Task
from orchestra.engine import plan as planning
from orchestra.model.workflow import single
from orchestra.runtime.registry import Registry
from orchestra.store.contract import NewRun
from orchestra.store.redis.creation import creation, creation_of_any
from tests import bodies

TASKS: list[dict[str, Any]] = [
    {},
    {"input": {"a": ["b", {"$ref": 7}], "c": None}, "metadata": {"of": "it's"}},
    {"name": "ünï'\"", "kwargs": {"value": [1, 2]}, "priority": 1, "queue": "öther"},
    {"retry": RetryPolicy(3), "timeout": 5, "fallback": bodies.noop, "id": "mine"},
]


@pytest.mark.parametrize("options", TASKS)
def test_a_task_alone_is_planned_and_created_as_every_other_graph(options: dict[str, Any]) -> None:
    task = Task(agent=bodies.echo, **options)
    graph, bind = single(task), Registry(modules=["tests"], travels=True).bind
    plan = planning.plan(graph, bind, priority=4, queue="q")
    assert plan == planning.compiled(graph, bind, 4, "q")
    run = NewRun(task.id, task.name, task.id, plan, single=True, metadata=task.metadata, key="key", fingerprint="f")
    assert creation(run, 1234.5) == creation_of_any(run, 1234.5)
