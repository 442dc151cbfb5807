"""Submission: from what people wrote to a stored run. Task or Workflow → Graph → Plan → NewRun."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestra.bus.tail import Tail
from orchestra.callbacks import Callbacks
from orchestra.engine.plan import Plan, plan
from orchestra.handles import Handles
from orchestra.lifetime import Lifetime
from orchestra.model import options
from orchestra.model.graph import Graph
from orchestra.model.ids import StepRef, new_id
from orchestra.model.options import DEFAULT_PRIORITY
from orchestra.model.task import Task, WorkflowRun
from orchestra.model.workflow import single
from orchestra.store.contract import NewRun
from orchestra.wiring import Parts


class Submission:
    """Plans what is submitted, stores it as a run, and binds the tasks to it."""

    def __init__(self, parts: Parts, lifetime: Lifetime, handles: Handles, tail: Tail) -> None:
        self._parts, self._lifetime, self._handles, self._tail = parts, lifetime, handles, tail

    def task(self, task: Task, key: str | None) -> Task:
        """Submit a task alone, and return it as the handle of its step."""
        compiled = self.plan(single(task))
        new = NewRun(
            id=task.id,
            name=task.name,
            workflow_id=task.id,
            plan=compiled,
            single=True,
            priority=compiled.steps[0].priority,
            metadata=task.metadata,
        )
        task.id = self._create(new, key, [(task, 0)])
        return task

    def workflow(
        self,
        graph: Graph,
        tasks: Sequence[Task],
        *,
        priority: int | None,
        metadata: Mapping[str, object] | None,
        key: str | None,
    ) -> WorkflowRun:
        """Submit a graph, and return its run. The tasks that it was made of, if any, become handles of their steps."""
        compiled = self.plan(graph, priority)
        new = NewRun(
            id=new_id(),
            name=graph.name,
            workflow_id=graph.id,
            plan=compiled,
            priority=DEFAULT_PRIORITY if priority is None else priority,
            metadata=options.metadata(metadata),
        )
        numbered = [(tasks[step.position], step.n) for step in compiled.steps] if tasks else []
        return WorkflowRun(self._create(new, key, numbered), self._handles)

    def plan(self, graph: Graph, priority: int | None = None) -> Plan:
        """Return the plan of a graph, with this orchestrator's functions, queue and priority."""
        default = DEFAULT_PRIORITY if priority is None else options.priority(priority)
        return plan(graph, self._parts.registry.bind, priority=default, queue=self._parts.settings.queue)

    def _create(self, new: NewRun, key: str | None, numbered: Sequence[tuple[Task, int]]) -> str:
        """Store a run, send what is ready and bind the tasks. Returns its id, or that of one with the same key."""
        if key is not None:
            new = replace(new, key=options.text("key", key), fingerprint=_fingerprint(new))
        self._lifetime.check()
        self._serve({step.queue for step in new.plan.steps})
        self._parts.cycle.publisher.check()
        callbacks = Callbacks(self._tail, self._handles, numbered, single=new.single)
        try:
            callbacks.expect(new.id)
            (created,) = self._lifetime.store.create_runs([new], self._parts.cycle.clock())
        except BaseException:
            callbacks.stop()
            raise
        if created.existing:
            callbacks.turn_to(created.run_id)
        self._parts.cycle.send(created.dispatches)
        for task, n in numbered:
            task.bind(self._handles, StepRef(created.run_id, n))
        return created.run_id

    def _serve(self, queues: set[str]) -> None:
        local = self._parts.local
        if local is not None:
            local.serve(queues)
            local.start()


def _fingerprint(new: NewRun) -> str:
    # The name of a task that is submitted alone is only a label; in a workflow others see it.
    what = [["" if new.single else each.name, each.target.path, each.input.to_json()] for each in new.plan.steps]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
