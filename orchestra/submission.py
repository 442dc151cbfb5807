"""Submission: from what people wrote to a stored run. Task or Workflow → Graph → Plan → NewRun."""

import gc
import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from orchestra import callbacks
from orchestra.bus.tail import Tail
from orchestra.engine.plan import Plan, plan
from orchestra.errors import InvalidOption
from orchestra.handles import Handles
from orchestra.lifetime import Lifetime
from orchestra.model import options
from orchestra.model.graph import Graph
from orchestra.model.ids import StepRef, new_id
from orchestra.model.options import DEFAULT_PRIORITY
from orchestra.model.task import Task, WorkflowRun
from orchestra.model.usage import LIMITS, UsageLimits, limits_in
from orchestra.model.workflow import single
from orchestra.runtime.observing import carrying, submitting
from orchestra.store.contract import NewRun
from orchestra.store.values import Created
from orchestra.wiring import Parts

_LARGE = 1000
"""Steps from which on making the plan and the rows of a graph sets off collections of garbage that find none."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms something is submitted. Times are seconds since the epoch."""

    key: str | None = None
    deadline: float | None = None
    expires_at: float | None = None
    connection: Any = None
    """The caller's own transaction on the database of the store."""
    limits: UsageLimits | None = None
    """What the agents of the run may use together."""


class Submission:
    """Plans what is submitted, stores it as a run, and binds the tasks to it."""

    def __init__(self, parts: Parts, lifetime: Lifetime, handles: Handles, tail: Tail) -> None:
        self._parts, self._lifetime, self._handles, self._tail = parts, lifetime, handles, tail

    def task(self, task: Task, terms: Terms) -> Task:
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
        task.id = self._create(new, terms, [(task, 0)])
        return task

    def workflow(
        self,
        graph: Graph,
        tasks: Sequence[Task],
        *,
        priority: int | None,
        metadata: Mapping[str, object] | None,
        terms: Terms,
    ) -> WorkflowRun:
        """Submit a graph, and return its run. The tasks that it was made of, if any, become handles of their steps."""
        self._lifetime.check()
        with _uncollected(len(graph.steps)):
            compiled = self.plan(graph, priority, self._parts.cycle.learned(graph.name))
            new = NewRun(
                id=new_id(),
                name=graph.name,
                workflow_id=graph.id,
                plan=compiled,
                priority=DEFAULT_PRIORITY if priority is None else priority,
                metadata=options.metadata(metadata),
            )
            numbered = [(tasks[step.position], step.n) for step in compiled.steps] if tasks else []
            return WorkflowRun(self._create(new, terms, numbered), self._handles)

    def plan(self, graph: Graph, priority: int | None = None, durations: Mapping[str, float] | None = None) -> Plan:
        """Return the plan of a graph, with this orchestrator's functions, queue and priority."""
        default = DEFAULT_PRIORITY if priority is None else options.priority(priority)
        bind, queue = self._parts.registry.bind, self._parts.settings.queue
        return plan(graph, bind, priority=default, queue=queue, durations=durations)

    def _create(self, new: NewRun, terms: Terms, numbered: Sequence[tuple[Task, int]]) -> str:
        """Store a run, send what is ready and bind the tasks. Returns its id, or that of one with the same key."""
        metadata = _limited(new, terms.limits)
        if metadata is not new.metadata or terms.deadline is not None or terms.expires_at is not None:
            new = replace(new, deadline=terms.deadline, expires_at=terms.expires_at, metadata=metadata)
        if terms.key is not None:
            new = replace(new, key=options.text("key", terms.key), fingerprint=_fingerprint(new))
        self._lifetime.check()
        new = self._named(new, callbacks.by_name(numbered))
        if terms.connection is None:
            self._serve(new)
        self._parts.cycle.publisher.check()
        here = callbacks.Callbacks(self._tail, self._handles, numbered, single=new.single)
        try:
            here.expect(new.id)
            created = self._store(new, terms.connection)
        except BaseException:
            here.stop()
            raise
        if created.existing:
            here.turn_to(created.run_id)
        for task, n in numbered:
            task.bind(self._handles, StepRef(created.run_id, n))
        return created.run_id

    def _named(self, new: NewRun, named: dict[int, str]) -> NewRun:
        """Return a run whose steps hold the callbacks that were given by name."""
        if not named:
            return new
        if self._parts.local is not None or not self._parts.given.callbacks:
            raise InvalidOption(
                "callback", next(iter(named.values())), "a function; names need workers, and ORCHESTRA_CALLBACKS=1"
            )
        callbacks.begin(self._lifetime.store, self._parts.cycle.clock())
        return replace(new, plan=callbacks.written(new.plan, named))

    def _store(self, new: NewRun, connection: object) -> Created:
        """Store a run and send what is ready: at once, or when the caller's own transaction has been committed."""
        with submitting(self._parts.adapter.tracing, new.name, new.id) as carried:
            if carried:
                new = replace(new, plan=carrying(new.plan, carried))
            return self._store_and_send(new, connection)

    def _store_and_send(self, new: NewRun, connection: object) -> Created:
        store, cycle = self._lifetime.store, self._parts.cycle
        if connection is None:
            (created,) = store.create_runs([new], cycle.clock())
            cycle.send(created.dispatches)
            return created
        create_within = getattr(store, "create_within", None)
        if create_within is None:
            raise InvalidOption("connection", connection, f"a store in a SQL database; this one is {store.url}")

        def committed(created: Created) -> None:
            # Not before: a worker that starts writes to the store, which the caller's transaction may have locked.
            self._serve(new)
            cycle.send(created.dispatches)

        return create_within(connection, new, cycle.clock(), committed)

    def _serve(self, new: NewRun) -> None:
        local = self._parts.local
        if local is not None:
            local.serve({step.queue for step in new.plan.steps})
            local.start()


@contextmanager
def _uncollected(steps: int) -> Generator[None]:
    """Collect no garbage while the rows of a large graph are made: Python would look through all of them many times."""
    if steps < _LARGE or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _limited(new: NewRun, limits: UsageLimits | None) -> Mapping[str, object]:
    """Return the metadata of a run with its limits, which may be there already."""
    limits = limits or limits_in(new.metadata)
    return new.metadata if limits is None else {**new.metadata, LIMITS: limits.model_dump(exclude_none=True)}


def _fingerprint(new: NewRun) -> str:
    # The name of a task that is submitted alone is only a label; in a workflow others see it.
    what = [["" if new.single else each.name, each.target.path, each.input.to_json()] for each in new.plan.steps]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
