"""Orchestrator: the door for producers."""

import hashlib
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache, partial
from pathlib import Path
from types import NoneType, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, cast, overload
from urllib.parse import quote

from orchestra.bus.tail import Handler, Tail
from orchestra.engine.plan import Plan, plan
from orchestra.errors import InvalidOption, SettingsError, UnknownId, WouldDeadlock
from orchestra.model import event as events
from orchestra.model import options, template
from orchestra.model.event import Event
from orchestra.model.function import WorkflowFunction
from orchestra.model.graph import Graph
from orchestra.model.ids import StepRef, new_id
from orchestra.model.job import JobOptions, ScheduledJob
from orchestra.model.lower import graph_of
from orchestra.model.options import DEFAULT_PRIORITY, Duration
from orchestra.model.record import JobRecord, RunRecord, StepRecord
from orchestra.model.retry import RetryPolicy
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.model.task import NOTHING, Task, WorkflowRun
from orchestra.model.workflow import ExecutionPattern, Workflow, single
from orchestra.store.contract import Created, NewRun, RunFilter, Store

if TYPE_CHECKING:
    from orchestra.runtime.jobs import Jobs
    from orchestra.wiring import Parts

logger = logging.getLogger(__name__)

T = TypeVar("T", bound=Handler)
E = TypeVar("E", bound=StrEnum)
Waitable = TypeVar("Waitable", Task, WorkflowRun)

HINT_AFTER_S = 3.0
_FIRST_POLL_S, _LAST_POLL_S = 0.002, 0.1


class Orchestrator:
    """Submits tasks and workflows, and shows what became of them.

    >>> orch = Orchestrator()  # embedded: everything in this process, nothing kept
    >>> orch = Orchestrator(state_file="./state.db")  # embedded, kept on disk; opening it again resumes
    >>> orch = Orchestrator(broker="redis://…", store="sqlite:////shared/state.db")
    >>> orch = Orchestrator(app=celery_app, store="sqlite:////shared/state.db")

    What is not given here comes from ``ORCHESTRA_*`` variables, then ``orchestra.toml``, then the embedded default.
    Constructing it starts nothing, unless a state file holds work that was pending.

    Args:
        app: An existing Celery application: its tasks can be steps from then on, and stay what they were.
        broker: URL of the broker; ``memory://`` (the default) is embedded.
        store: URL of the store.
        state_file: Path of a SQLite file; the store of an embedded orchestrator that is kept.
        queue: Queue of tasks that name none; default ``orchestra``.
        concurrency: Threads of the embedded worker; default 8.
        modules: Packages that workers may import to find functions, beside the application's own.

    Raises:
        SettingsError: The settings contradict each other, or a value is not possible.
        StoreUnavailable: The store cannot be opened.
    """

    def __init__(
        self,
        *,
        app: Any = None,
        broker: str | None = None,
        store: str | None = None,
        state_file: str | Path | None = None,
        queue: str | None = None,
        concurrency: int | None = None,
        modules: Iterable[str] | None = None,
    ) -> None:
        self._closing = self._closed = False
        from orchestra import settings, wiring  # here, so that ``import orchestra`` stays quick

        if state_file is not None:
            if broker not in (None, settings.MEMORY) or store is not None or app is not None:
                raise SettingsError("state_file=… is for an embedded orchestrator; give store=… with a broker")
            broker, store = settings.MEMORY, f"sqlite:///{quote(str(Path(state_file).expanduser().absolute()))}"
        self._parts: Parts = wiring.build(
            settings.load(
                broker=broker,
                store=store,
                queue=queue,
                concurrency=concurrency,
                modules=None if modules is None else tuple(modules),
            ),
            app,
        )
        self._clock = self._parts.cycle.clock
        self._changed = threading.Condition()
        self._tail = Tail(lambda cursor: self._store.events(cursor), self._store.last_event, self._subject)
        self._stop_watching = self._store.watch(self._on_commit)
        self._resume()

    # --- submitting ---------------------------------------------------------------------------------------------

    def submit(
        self,
        agent: object,
        input: object = NOTHING,
        *,
        kwargs: Mapping[str, object] | None = None,
        name: str | None = None,
        priority: int | None = None,
        metadata: Mapping[str, object] | None = None,
        callback: Callable[[Task], object] | None = None,
        retry: RetryPolicy | int | None = None,
        timeout: Duration | None = None,
        queue: str | None = None,
        key: str | None = None,
    ) -> Task:
        """Submit one task. It returns as soon as the task is stored.

        Args:
            agent: What to call: a function, an ``@task``, a Celery task or its name; or a ready ``Task``, and then
                only ``key`` may be given beside it.
            input: The one argument; ``kwargs`` for several.
            priority: 1 (highest) to 10; default 5.
            callback: Called once with the ended task, whatever the end, while this process lives.
            key: Makes it idempotent for as long as the run is kept: the same key and input give the same task.

        Raises:
            DefinitionError: It cannot be run as given; nothing has been stored.
            KeyConflict: The key, or the id of a ready task, belongs to another run.
            BrokerUnavailable: No broker answers, and none has before. One that is away for a while is no error: what
                is stored runs when it is back.
        """
        given = (kwargs, name, priority, metadata, callback, retry, timeout, queue)
        if isinstance(agent, Task):
            if input is not NOTHING or any(each is not None for each in given):
                raise InvalidOption("submit", agent, "a ready Task alone; put the options on the Task")
            task = agent
        else:
            task = Task(
                name, agent, input, kwargs=kwargs, priority=priority, metadata=metadata, callback=callback,
                retry=retry, timeout=timeout, queue=queue,
            )  # fmt: skip
        compiled = self._plan(single(task), None)
        new = NewRun(
            id=task.id,
            name=task.name,
            workflow_id=task.id,
            plan=compiled,
            single=True,
            priority=compiled.steps[0].priority,
            metadata=task.metadata,
            key=None if key is None else options.text("key", key),
            fingerprint=None if key is None else _fingerprint(compiled, single=True),
        )
        created = self._create(new, [(task, 0)])
        task.bind(self, StepRef(created.run_id, 0))
        task.id = created.run_id
        return task

    def submit_workflow(
        self,
        workflow: Workflow | WorkflowFunction[...],
        input: object = NOTHING,
        *,
        kwargs: Mapping[str, object] | None = None,
        pattern: ExecutionPattern = ExecutionPattern.PARALLEL,
        priority: int | None = None,
        metadata: Mapping[str, object] | None = None,
        key: str | None = None,
    ) -> WorkflowRun:
        """Submit a workflow. It returns as soon as the run is stored.

        Args:
            workflow: A ``Workflow`` or an ``@workflow`` function.
            input: The argument of the function, or the input of the tasks that have neither input nor predecessors.
            kwargs: Keyword arguments of the function.
            pattern: How the tasks of a ``Workflow`` follow each other.
            priority: 1 (highest) to 10, for tasks that have none of their own; default 5.
            metadata: Data of your own, kept with the run and searchable.
            key: Makes it idempotent: the same key and workflow give the same run.

        Raises:
            DefinitionError: It cannot be run as given; nothing has been stored.
            KeyConflict: The key belongs to another run.
        """
        graph = graph_of(workflow, input, kwargs or {}, pattern)
        compiled = self._plan(graph, priority)
        run_id = new_id()
        tasks = workflow.tasks if isinstance(workflow, Workflow) else []
        numbered = [(tasks[step.position], step.n) for step in compiled.steps] if tasks else []
        new = NewRun(
            id=run_id,
            name=graph.name,
            workflow_id=graph.id,
            plan=compiled,
            priority=DEFAULT_PRIORITY if priority is None else priority,
            metadata=options.metadata(metadata),
            key=None if key is None else options.text("key", key),
            fingerprint=None if key is None else _fingerprint(compiled),
        )
        created = self._create(new, numbered)
        for task, n in numbered:
            task.bind(self, StepRef(created.run_id, n))
        return WorkflowRun(created.run_id, self)

    def compile(
        self,
        workflow: Workflow | WorkflowFunction[...],
        input: object = NOTHING,
        *,
        kwargs: Mapping[str, object] | None = None,
        pattern: ExecutionPattern = ExecutionPattern.PARALLEL,
    ) -> Any:
        """Return the plan of a workflow as Celery signatures: ``chain``, ``group`` and ``chord``. Nothing is submitted."""
        from orchestra.runtime.canvas import lower

        return lower(self._plan(graph_of(workflow, input, kwargs or {}, pattern), None), self._parts.app)

    # --- scheduling ---------------------------------------------------------------------------------------------

    def schedule(
        self,
        job: ScheduledJob | None = None,
        *,
        agent: object = None,
        workflow: Workflow | WorkflowFunction[...] | None = None,
        input: object = NOTHING,
        **given: Unpack[JobOptions],
    ) -> ScheduledJob:
        """Schedule a job: a ready ``ScheduledJob``, or what one is made of.

        ``orch.schedule(agent=report, input="Report of {scheduled_for}", cron="0 9 * * mon-fri", timezone="Asia/Tokyo")``

        Scheduling an id again replaces that job; where its times stay as they were, it goes on where it was.

        Raises:
            DefinitionError: It cannot be run as given, or its times make no sense; nothing has been stored.
        """
        if job is None:
            job = ScheduledJob(agent, workflow, input=input, **given)
        elif agent is not None or workflow is not None or input is not NOTHING or given:
            raise InvalidOption("schedule", job, "a ready ScheduledJob alone; put the options on it")
        self._check_open()
        job.bind(self, self._jobs.add(job))
        self._beat()
        return job

    def jobs(self) -> list[ScheduledJob]:
        """Return all scheduled jobs, oldest first."""
        return [ScheduledJob.of_record(each, self) for each in self._jobs.all()]

    def get_job(self, id: str) -> ScheduledJob:
        """Return a scheduled job.

        Raises:
            UnknownId: There is none.
        """
        return ScheduledJob.of_record(self.read_job(id), self)

    # --- what the store holds -----------------------------------------------------------------------------------

    def status(self, id: str) -> TaskStatus | WorkflowStatus:
        """Return the status of a task (by its id, or as ``run.n``) or of a run.

        Raises:
            UnknownId: There is neither.
        """
        run = self._store.run(id)
        if run is None or run.single:
            return self._find(id).status
        return run.status

    @overload
    def get_task(self, id: str, /) -> Task: ...
    @overload
    def get_task(self, run_id: str, id: str, /) -> Task: ...
    def get_task(self, run_id: str, id: str | None = None, /) -> Task:
        """Return a task: ``get_task(id)`` of the newest run that has one of that id, ``get_task(run_id, id)`` of a run.

        A task's id is the one it was given; a step of an ``@workflow`` is known by its name; ``run.n`` always works.

        Raises:
            UnknownId: There is none.
        """
        if id is None:
            record = self._find(run_id)
        else:
            found = [each for each in self.read_steps(run_id) if id in (each.key, each.name, str(each.ref))]
            if not found:
                raise UnknownId("task", id)
            record = found[0]
        return Task.of_record(record, self, single=record.key == record.ref.run_id)

    def get_run(self, id: str) -> WorkflowRun:
        """Return a run; a task that was submitted alone is a run with one task.

        Raises:
            UnknownId: There is none.
        """
        return WorkflowRun(id, self, self.read_run(id))

    def runs(
        self,
        *,
        status: WorkflowStatus | str | None = None,
        name: str | None = None,
        metadata: Mapping[str, object] | None = None,
        since: datetime | timedelta | None = None,
        limit: int = 100,
    ) -> list[WorkflowRun]:
        """Return runs, newest first; all given conditions must hold.

        Args:
            metadata: Entries that the run's metadata must have.
            since: Created at or after this time; a timedelta counts back from now.
        """
        where = RunFilter(
            None if status is None else _member(WorkflowStatus, "status", status),
            name,
            options.metadata(metadata),
            _since(since, self._clock()),
            _limit(limit),
        )
        return [WorkflowRun(record.id, self, record) for record in self._store.runs(where)]

    def counts(self, run_id: str) -> dict[TaskStatus, int]:
        """Return how many steps of a run have each status; cheap, for progress."""
        return self._store.counts(run_id)

    def running(self, run_id: str) -> list[Task]:
        """Return the tasks of a run that are running now."""
        found = self._store.steps(run_id, TaskStatus.RUNNING)
        return [Task.of_record(each, self, single=each.key == run_id) for each in found]

    # --- control ------------------------------------------------------------------------------------------------

    def cancel(self, id: str) -> bool:
        """Cancel a run or a task; False when it had ended before.

        What has not started will not. The result of what is running is discarded; a body that cannot be stopped runs
        to its end unheard.

        Raises:
            UnknownId: There is neither.
        """
        if self._store.run(id) is not None:
            recorded = self._store.cancel(id, None, self._clock())
        else:
            ref = self._find(id).ref
            recorded = self._store.cancel(ref.run_id, ref.n, self._clock())
        if recorded is None:
            return False
        self._parts.cycle.send(recorded.dispatches)
        return True

    def wait_all(self, *waitables: Waitable | Iterable[Waitable], timeout: Duration | None = None) -> list[Waitable]:
        """Wait until all tasks or runs have ended, and return them in the given order.

        Raises:
            TimeoutError: Not all have ended in time; they go on.
        """
        every: list[Any] = []
        for each in waitables:
            every += [each] if isinstance(each, (Task, WorkflowRun)) else list(each)
        limit = None if timeout is None else options.seconds("timeout", timeout)
        end = None if limit is None else time.monotonic() + limit
        for at, each in enumerate(every):
            try:
                each.wait(None if end is None else max(0.0, end - time.monotonic()))
            except TimeoutError:
                raise TimeoutError(
                    f"{each!r}, number {at + 1} of {len(every)}, had not ended after {limit:g} s; all of them go on"
                ) from None
        return every

    # --- events -------------------------------------------------------------------------------------------------

    @overload
    def on(self, event: str) -> Callable[[T], T]: ...
    @overload
    def on(self, event: str, handler: T) -> T: ...
    def on(self, event: str, handler: Handler | None = None) -> Any:
        """Call a function for each event of a type from now on, whichever worker it happens on.

        As a decorator, ``@orch.on("task.completed")``, or ``orch.on("task.*", handler)``. A handler of one argument
        gets the task, run or, for a custom event, the event; one whose argument is called ``event`` gets the event,
        and one with both gets both. Handlers, plain or ``async``, run on a thread of this process, one after the other;
        one that raises is logged.

        Raises:
            InvalidOption: There is no event of that type, or the handler takes other arguments.
        """
        self._check_open()
        pattern = events.check_pattern(event)
        if handler is None:
            return partial(self.on, pattern)
        self._tail.subscribe(pattern, handler)
        return handler

    def emit(self, event: str, data: Mapping[str, object] | None = None) -> None:
        """Write a custom event to the log: handlers of every process hear it."""
        if not isinstance(data, (Mapping, NoneType)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidOption("data", data, "a mapping with text keys, or None")
        payload = cast(dict[str, object], template.plain(dict(data or {}), path="data"))
        self._store.emit(events.check_custom(event), payload, self._clock())

    def history(
        self, *, run: str | None = None, type: str | None = None, after: str | None = None, limit: int = 1000
    ) -> list[Event]:
        """Return events of the log in the order of their commits: the newest ones, or those after an event id.

        Args:
            run: Only of this run.
            type: Only of this type; a pattern such as ``task.*`` is possible.
        """
        pattern = "*" if type is None else events.check_pattern(type)
        behind = (0, -1) if after is None else events.position(after)
        found: deque[Event] = deque(maxlen=_limit(limit) if after is None else None)
        # The newest ones may be far apart when only some are wanted; then the log is read from its beginning.
        newest = after is None and run is None and type is None
        cursor = behind[0] if after is None else behind[0] - 1
        while True:
            page, last = self._store.events(cursor, limit if newest else 1000, run_id=run, newest=newest)
            found += [each for each in page if events.matches(pattern, each.type) and events.position(each.id) > behind]
            if newest or last == cursor or (after is not None and len(found) >= limit):
                return list(found)[:limit]
            cursor = last

    # --- life ---------------------------------------------------------------------------------------------------

    @property
    def app(self) -> Any:
        """The Celery application behind it: give it a name in your module (``app = orch.app``) for ``celery -A module``
        and Flower."""
        return self._parts.app

    @property
    def parts(self) -> "Parts":
        """What it is made of; for the command line and for tests."""
        return self._parts

    def close(self) -> None:
        """Stop what it started; a second time does nothing. Takes less than half a second."""
        if self._closing:
            return
        self._closing = True
        if self._parts.local is not None:
            self._parts.local.stop()
        self._tail.close()
        self._stop_watching()
        self._closed = True
        self._parts.store.close()
        self._on_commit()

    def __repr__(self) -> str:
        where = "embedded" if self._parts.settings.embedded else "distributed"
        return f"<Orchestrator {where} {self._parts.store.url}{' closed' if self._closing else ''}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- what handles need (orchestra.model.task.Owner) -----------------------------------------------------------

    def read_step(self, ref: StepRef) -> StepRecord:
        """Return the record of a step."""
        record = self._store.step(ref)
        if record is None:
            raise UnknownId("task", str(ref))
        return record

    def read_run(self, run_id: str) -> RunRecord:
        """Return the record of a run."""
        record = self._store.run(run_id)
        if record is None:
            raise UnknownId("run", run_id)
        return record

    def read_steps(self, run_id: str) -> list[StepRecord]:
        """Return the records of all steps of a run."""
        return self._store.steps(run_id)

    def read_output(self, run: RunRecord) -> object:
        """Return the output of a run that has completed."""
        shape = self._store.result_template(run.id)
        needs = template.references(shape)
        texts = self._store.outputs(run.id, needs)
        # What was not taken has no output.
        return template.fill(shape, {n: self.decode(texts[n]) if n in texts else None for n in needs})

    def decode(self, text: str) -> object:
        """Return the value of stored JSON."""
        from orchestra.runtime.codec import decode

        return decode(text)

    def wait_step(self, ref: StepRef, timeout_s: float | None) -> StepRecord:
        """Wait until a step has ended."""

        def look() -> StepRecord | None:
            record = self.read_step(ref)
            return record if record.status.ended else None

        return self._wait(look, str(ref), timeout_s)

    def wait_run(self, run_id: str, timeout_s: float | None) -> RunRecord:
        """Wait until a run has ended."""

        def look() -> RunRecord | None:
            record = self.read_run(run_id)
            return record if record.status.ended else None

        return self._wait(look, run_id, timeout_s)

    # --- what handles of jobs need (orchestra.model.job.JobOwner) -------------------------------------------------

    def read_job(self, job_id: str) -> JobRecord:
        """Return the record of a job."""
        return self._jobs.read(job_id)

    def pause_job(self, job_id: str) -> JobRecord:
        """Fire no more."""
        return self._jobs.pause(job_id)

    def resume_job(self, job_id: str) -> JobRecord:
        """Fire again."""
        record = self._jobs.resume(job_id)
        self._beat()
        return record

    def trigger_job(self, job_id: str) -> WorkflowRun:
        """Run a job now."""
        self._beat()
        return WorkflowRun(self._jobs.trigger(job_id), self)

    def delete_job(self, job_id: str) -> bool:
        """Delete a job."""
        return self._jobs.delete(job_id)

    def backfill_job(self, job_id: str, start: datetime, end: datetime, max_parallel: int) -> JobRecord:
        """Create the runs that a job has missed."""
        record = self._jobs.backfill(job_id, start, end, max_parallel)
        self._beat()
        return record

    def job_times(self, record: JobRecord, count: int) -> Sequence[float]:
        """Return the next times of a job."""
        return self._jobs.times(record, count)

    def job_runs(self, job_id: str, limit: int) -> list[WorkflowRun]:
        """Return the runs of a job, newest first."""
        found = self._store.runs(RunFilter(job_id=job_id, limit=limit))
        return [WorkflowRun(each.id, self, each) for each in found]

    # --- inside -------------------------------------------------------------------------------------------------

    @property
    def _store(self) -> Store:
        if self._closed:
            self._check_open()
        return self._parts.store

    def _check_open(self) -> None:
        if self._closing:
            raise InvalidOption("orchestrator", self, "one that is open; this one was closed")

    @property
    def _jobs(self) -> "Jobs":
        from orchestra.runtime.jobs import Jobs

        parts = self._parts
        return Jobs(parts.cycle, parts.registry, lambda: parts.queue)

    def _beat(self) -> None:
        """An embedded orchestrator fires its jobs itself."""
        local = self._parts.local
        if local is not None:
            local.serve(self._jobs.queues())
            local.start()
            local.wake_beat()

    def _plan(self, graph: Graph, priority: int | None) -> Plan:
        default = DEFAULT_PRIORITY if priority is None else options.priority(priority)
        return plan(graph, self._parts.registry.bind, priority=default, queue=self._parts.settings.queue)

    def _create(self, new: NewRun, numbered: Sequence[tuple[Task, int]]) -> Created:
        self._check_open()
        local = self._parts.local
        if local is not None:
            local.serve({step.queue for step in new.plan.steps})
            local.start()
        self._parts.cycle.publisher.check()
        stops: list[Callable[[], bool]] = []
        try:
            # Before the tasks exist: they may have ended before ``submit`` returns.
            stops += [self._call_back(task, StepRef(new.id, n), new.single) for task, n in numbered if task.callback]
            (created,) = self._store.create_runs([new], self._clock())
        except BaseException:
            for stop in stops:
                stop()
            raise
        if created.existing:
            for stop in stops:
                stop()
            self._call_back_of_existing(created.run_id, [each for each in numbered if each[0].callback], new.single)
        self._parts.cycle.send(created.dispatches)
        return created

    def _call_back(self, task: Task, ref: StepRef, single: bool) -> Callable[[], bool]:
        assert task.callback is not None
        return self._tail.subscribe_once(events.TASK_ENDS, task.callback, ref.run_id if single else str(ref))

    def _call_back_of_existing(self, run_id: str, numbered: Sequence[tuple[Task, int]], single: bool) -> None:
        """The run was there before: its tasks may have ended long ago, or may be ending now."""
        for task, n in numbered:
            ref = StepRef(run_id, n)
            stop = self._call_back(task, ref, single)
            record = self.read_step(ref)
            if record.status.ended and stop() and task.callback is not None:
                self._tail.call(task.callback, Task.of_record(record, self, single=single))

    def _subject(self, event: Event) -> object:
        if event.type.startswith("task.") and event.task_id is not None and event.run_id is not None:
            n = 0 if event.task_id == event.run_id else int(event.task_id.rpartition(".")[2])
            record = self.read_step(StepRef(event.run_id, n))
            return Task.of_record(record, self, single=event.task_id == event.run_id)
        if event.type.startswith("workflow.") and event.run_id is not None:
            return WorkflowRun(event.run_id, self)
        if event.type.startswith("job.") and event.job_id is not None:
            job = self._store.job(event.job_id)
            return event if job is None else ScheduledJob.of_record(job, self)  # it may have been deleted since
        return event

    def _find(self, id: str) -> StepRecord:
        run_id, dot, n = id.rpartition(".")
        record = self._store.step(StepRef(run_id, int(n))) if dot and n.isdigit() else None
        record = record or self._store.step(StepRef(id, 0)) or self._store.find_step(id)
        if record is None:
            raise UnknownId("task or run", id)
        return record

    def _resume(self) -> None:
        """Open work in a state file goes on by itself."""
        local = self._parts.local
        if local is None:
            return
        queues = self._store.open_queues()
        if queues or self._store.due_jobs(0.0, 1)[1] is not None:
            local.serve(queues)
            local.start(resuming=True)

    def _on_commit(self) -> None:
        self._tail.ring()
        with self._changed:
            self._changed.notify_all()

    def _wait(self, look: Callable[[], Any], what: str, timeout_s: float | None) -> Any:
        from orchestra.runtime.body import running_step

        if running_step() is not None:
            raise WouldDeadlock(what)
        end = None if timeout_s is None else time.monotonic() + timeout_s
        hint_at = time.monotonic() + HINT_AFTER_S
        poll = _FIRST_POLL_S
        while (found := look()) is None:
            now = time.monotonic()
            if end is not None and now >= end:
                raise TimeoutError(f"{what!r} had not ended after {timeout_s:g} s; it goes on")
            if now >= hint_at:
                hint_at = float("inf")
                self._hint()
            self._pause(poll if end is None else min(poll, end - now))
            poll = min(_LAST_POLL_S, poll * 1.5)
        return found

    def _pause(self, longest_s: float) -> None:
        """Wait for a commit of this process, or for a poll to be due: other processes' commits are not heard."""
        with self._changed:
            self._changed.wait(longest_s)

    def _hint(self) -> None:
        """Somebody waits: say so if no worker serves a queue that has steps ready."""
        served = {queue for lease in self._store.leases() if lease.expires_at > self._clock() for queue in lease.queues}
        served |= self._parts.local.queues if self._parts.local is not None else set()
        for queue, depth in self._store.depth().items():
            if queue not in served:
                logger.warning(
                    "%d tasks are ready on queue %r and no worker serves it; start one with: "
                    "orchestra worker --app MODULE:ATTRIBUTE --queues %s",
                    depth,
                    queue,
                    queue,
                )


@lru_cache(maxsize=1)
def default() -> Orchestrator:
    """Return the orchestrator of this process that is made from the settings, at first use."""
    return Orchestrator()


def _member(kind: type[E], option: str, value: object) -> E:
    try:
        return kind(value)
    except ValueError:
        raise InvalidOption(option, value, f"one of {', '.join(kind)}") from None


def _limit(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidOption("limit", value, "a whole number of at least 1")
    return value


def _fingerprint(compiled: Plan, *, single: bool = False) -> str:
    # The name of a task that is submitted alone is only a label; in a workflow others see it.
    what = [["" if single else step.name, step.target.path, step.input.to_json()] for step in compiled.steps]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _since(since: datetime | timedelta | None, now: float) -> float | None:
    match since:
        case None:
            return None
        case timedelta():
            return now - since.total_seconds()
        case datetime():
            if since.tzinfo is None:
                raise InvalidOption("since", since, "a datetime with a time zone, or a timedelta")
            return since.timestamp() - 1e-6  # a datetime is rounded: a run's own created_at has to find it
