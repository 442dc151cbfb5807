"""Orchestrator: the door for producers."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from types import NoneType, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, cast, overload
from urllib.parse import quote

from orchestra import history
from orchestra.bus.tail import Handler
from orchestra.control import Control
from orchestra.errors import InvalidOption, SettingsError
from orchestra.model import event as events
from orchestra.model import options, template
from orchestra.model.event import Event
from orchestra.model.function import BoundWorkflow, WorkflowFunction
from orchestra.model.job import JobOptions, ScheduledJob
from orchestra.model.options import Duration, When
from orchestra.model.retry import RetryPolicy
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.model.task import NOTHING, Task, WorkflowRun
from orchestra.model.usage import usage_limits as usage_limits_of
from orchestra.model.workflow import TEAMS, ExecutionPattern, Workflow, graph_of
from orchestra.store.contract import Store

if TYPE_CHECKING:
    from orchestra.submission import Terms
    from orchestra.wiring import Parts

T = TypeVar("T", bound=Handler)
Waitable = TypeVar("Waitable", Task, WorkflowRun)


class Orchestrator(Control):
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
        # Imported here, so that ``import orchestra`` stays quick.
        from orchestra import (
            handles,
            lifetime,
            schedules,
            settings,
            steering,
            submission,
            subscriptions,
            waiting,
            wiring,
        )

        if state_file is not None:
            if broker not in (None, settings.MEMORY) or store is not None or app is not None:
                raise SettingsError("state_file=… is for an embedded orchestrator; give store=… with a broker")
            broker, store = settings.MEMORY, f"sqlite:///{quote(str(Path(state_file).expanduser().absolute()))}"
        named = None if modules is None else tuple(modules)
        given = settings.load(broker=broker, store=store, queue=queue, concurrency=concurrency, modules=named)
        self._parts: Parts = wiring.build(given, app)
        self._clock = self._parts.cycle.clock
        self._lifetime = lifetime.Lifetime(self._parts.store)
        self._waiting = waiting.Waiting(self._lifetime, self._parts.local, self._clock)
        self._handles = handles.Handles(self._lifetime, self._waiting, self._parts.streams)
        self._schedules = schedules.Schedules(self._parts, self._lifetime, self._handles)
        self._steering = steering.Steering(self._parts, self._lifetime, self._handles)
        self._subscriptions = subscriptions.Subscriptions(self._parts, self._lifetime, self._schedules.subject)
        self._submission = submission.Submission(self._parts, self._lifetime, self._handles, self._subscriptions.tail)
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
        callback: Callable[[Task], object] | str | None = None,
        retry: RetryPolicy | int | None = None,
        timeout: Duration | None = None,
        queue: str | None = None,
        key: str | None = None,
        deadline: When | None = None,
        expires: When | None = None,
        usage_limits: Mapping[str, float] | None = None,
        connection: Any = None,
    ) -> Task:
        """Submit one task. It returns as soon as the task is stored.

        Args:
            agent: What to call: a function, an ``@task``, a Celery task or its name; or a ready ``Task``, and then
                only ``key``, ``deadline``, ``expires``, ``usage_limits`` and ``connection`` may be given beside it.
            input: The one argument; ``kwargs`` for several.
            priority: 1 (highest) to 10; default 5.
            callback: Called once with the ended task, whatever the end: a function, while this process lives; or its
                name, ``module:function``, to be a task of its own on the workers.
            key: Makes it idempotent for as long as the run is kept: the same key and input give the same task.
            deadline: When it has failed if it has not ended, retries included: seconds from now, a timedelta or an
                aware datetime. ``timeout`` is the limit of one attempt.
            expires: When it has failed if no worker has taken it.
            usage_limits: What agents may use in it, all of them together: ``request_limit``, ``total_tokens_limit``,
                ``cost_limit`` in US dollars …; a call beyond it fails its step with ``UsageLimitReached``.
            connection: A SQLAlchemy connection in a transaction on the store's own database: the task exists if and
                only if that commits, and is sent after it has.

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
        return self._submission.task(task, self._terms(key, deadline, expires, usage_limits, connection))

    def submit_workflow(
        self,
        workflow: Workflow | WorkflowFunction[...] | BoundWorkflow,
        input: object = NOTHING,
        *,
        kwargs: Mapping[str, object] | None = None,
        pattern: ExecutionPattern = ExecutionPattern.PARALLEL,
        priority: int | None = None,
        metadata: Mapping[str, object] | None = None,
        key: str | None = None,
        deadline: When | None = None,
        expires: When | None = None,
        usage_limits: Mapping[str, float] | None = None,
        connection: Any = None,
    ) -> WorkflowRun:
        """Submit a workflow. It returns as soon as the run is stored.

        Args:
            workflow: A ``Workflow``, an ``@workflow`` function, or one with its arguments (``.bind(…)``).
            input: The argument of the function, or the input of the tasks that have neither input nor predecessors.
            kwargs: Keyword arguments of the function.
            pattern: How the tasks of a ``Workflow`` follow each other.
            priority: 1 (highest) to 10, for tasks that have none of their own; default 5.
            metadata: Data of your own, kept with the run and searchable.
            key: Makes it idempotent: the same key and workflow give the same run.
            deadline: When the run has failed if it has not ended: seconds from now, a timedelta or an aware datetime.
            expires: When the run has failed if no worker has taken a step of it.
            usage_limits, connection: As for ``submit``.

        Raises:
            DefinitionError: It cannot be run as given; nothing has been stored.
            KeyConflict: The key belongs to another run.
        """
        graph = graph_of(workflow, input, kwargs, pattern)
        # The steps of a team are its rounds, not its tasks.
        tasks = workflow.tasks if isinstance(workflow, Workflow) and pattern not in TEAMS else []
        terms = self._terms(key, deadline, expires, usage_limits, connection)
        return self._submission.workflow(graph, tasks, priority=priority, metadata=metadata, terms=terms)

    async def asubmit(self, agent: object, input: object = NOTHING, **options: Any) -> Task:
        """Like ``submit``, without holding the event loop; ``await task.await_done()`` waits for its end."""
        return await asyncio.to_thread(partial(self.submit, agent, input, **options))

    async def asubmit_workflow(
        self, workflow: Workflow | WorkflowFunction[...] | BoundWorkflow, input: object = NOTHING, **options: Any
    ) -> WorkflowRun:
        """Like ``submit_workflow``, without holding the event loop."""
        return await asyncio.to_thread(partial(self.submit_workflow, workflow, input, **options))

    def compile(
        self,
        workflow: Workflow | WorkflowFunction[...] | BoundWorkflow,
        input: object = NOTHING,
        *,
        kwargs: Mapping[str, object] | None = None,
        pattern: ExecutionPattern = ExecutionPattern.PARALLEL,
    ) -> Any:
        """Return the plan of a workflow as Celery signatures: ``chain``, ``group``, ``chord``. Nothing is submitted."""
        from orchestra.runtime.canvas import lower

        return lower(self._submission.plan(graph_of(workflow, input, kwargs, pattern)), self._parts.app)

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

        ``orch.schedule(agent=report, input="Of {scheduled_for}", cron="0 9 * * mon-fri", timezone="Asia/Seoul")``

        Scheduling an id again replaces that job; where its times stay as they were, it goes on where it was.

        Raises:
            DefinitionError: It cannot be run as given, or its times make no sense; nothing has been stored.
        """
        if job is None:
            job = ScheduledJob(agent, workflow, input=input, **given)
        elif agent is not None or workflow is not None or input is not NOTHING or given:
            raise InvalidOption("schedule", job, "a ready ScheduledJob alone; put the options on it")
        return self._schedules.add(job)

    def jobs(self) -> list[ScheduledJob]:
        """Return all scheduled jobs, oldest first."""
        return self._schedules.all()

    def get_job(self, id: str) -> ScheduledJob:
        """Return a scheduled job.

        Raises:
            UnknownId: There is none.
        """
        return self._schedules.get(id)

    # --- what the store holds -----------------------------------------------------------------------------------

    def status(self, id: str) -> TaskStatus | WorkflowStatus:
        """Return the status of a task (by its id, or as ``run.n``) or of a run.

        Raises:
            UnknownId: There is neither.
        """
        run = self._store.run(id)
        if run is None or run.single:
            return self._handles.find_step(id).status
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
        find = self._handles.find_step
        return self._handles.task(find(run_id) if id is None else find(id, run_id))

    def get_run(self, id: str) -> WorkflowRun:
        """Return a run; a task that was submitted alone is a run with one task.

        Raises:
            UnknownId: There is none.
        """
        return WorkflowRun(id, self._handles, self._handles.read_run(id))

    def counts(self, run_id: str) -> dict[TaskStatus, int]:
        """Return how many steps of a run have each status; cheap, for progress."""
        return self._store.counts(run_id)

    def running(self, run_id: str) -> list[Task]:
        """Return the tasks of a run that are running now."""
        return [self._handles.task(each) for each in self._store.steps(run_id, TaskStatus.RUNNING)]

    # --- waiting ------------------------------------------------------------------------------------------------

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
    def on(
        self, event: str, handler: None = None, *, name: str | None = None, timeout: Duration | None = None
    ) -> Callable[[T], T]: ...
    @overload
    def on(self, event: str, handler: T, *, name: str | None = None, timeout: Duration | None = None) -> T: ...
    def on(
        self, event: str, handler: Handler | None = None, *, name: str | None = None, timeout: Duration | None = None
    ) -> Any:
        """Call a function for each event of a type, whichever worker it happens on.

        As a decorator, ``@orch.on("task.completed")``, or ``orch.on("task.*", handler)``. A handler of one argument
        gets the task, run, job or, for a custom event, the event; one whose argument is called ``event`` gets the
        event, and one with both gets both. Handlers, plain or ``async``, run on threads of this process, one call at a
        time; one that raises, or takes too long, is logged.

        Args:
            name: Without one the handler hears what happens from now on. Under a name it misses nothing: the store
                keeps how far it has heard, it goes on there in the next process, and each event comes at least once.
                Of several processes that use a name, one at a time delivers.
            timeout: How long one call may take, seconds or a timedelta; default 30 s.

        Raises:
            InvalidOption: There is no event of that type, the handler takes other arguments, or the name is in use.
        """
        self._lifetime.check()
        pattern = events.check_pattern(event)
        if handler is None:
            return partial(self.on, pattern, name=name, timeout=timeout)
        self._subscriptions.add(pattern, handler, name, timeout)
        return handler

    def forget(self, name: str) -> bool:
        """Forget how far a named handler has heard; False when there was none of that name."""
        return self._store.drop_cursor(name)

    def emit(self, event: str, data: Mapping[str, object] | None = None) -> None:
        """Write a custom event to the log: handlers of every process hear it."""
        if not isinstance(data, (Mapping, NoneType)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidOption("data", data, "a mapping with text keys, or None")
        payload = cast(dict[str, object], template.plain(dict(data or {}), path="data"))
        self._store.emit(events.check_custom(event), payload, self._clock())

    def history(
        self,
        *,
        run: str | None = None,
        type: str | None = None,
        after: str | None = None,
        limit: int = 1000,
        data_limit: int = 10_000,
    ) -> list[Event]:
        """Return events of the log in the order of their commits: the newest ones, or those after an event id.

        Args:
            run: Only of this run.
            type: Only of this type; a pattern such as ``task.*`` is possible.
            limit: How many at most.
            data_limit: Characters of JSON that the data of one event may have. Of more, the longest values are cut;
                handlers get all of it.
        """
        return history.read(self._store, run=run, type=type, after=after, limit=limit, most=data_limit)

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

    @property
    def closed(self) -> bool:
        """Whether it was closed, or is being closed."""
        return self._lifetime.closing

    def close(self) -> None:
        """Stop what it started; a second time does nothing. Takes less than half a second."""
        if self._lifetime.closing:
            return
        self._lifetime.closing = True
        if self._parts.local is not None:
            self._parts.local.stop()
        self._subscriptions.close()
        self._stop_watching()
        self._parts.cycle.publisher.close()
        self._lifetime.end()
        self._on_commit()

    def __repr__(self) -> str:
        where = "embedded" if self._parts.settings.embedded else "distributed"
        return f"<Orchestrator {where} {self._parts.store.url}{' closed' if self.closed else ''}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- inside -------------------------------------------------------------------------------------------------

    def _terms(
        self, key: str | None, deadline: When | None, expires: When | None, limits: object, connection: Any
    ) -> "Terms":
        from orchestra.submission import Terms

        now = self._clock()
        ends = None if deadline is None else options.moment("deadline", deadline, now)
        expiry = None if expires is None else options.moment("expires", expires, now)
        return Terms(key, ends, expiry, connection, usage_limits_of(limits))

    @property
    def _store(self) -> Store:
        return self._lifetime.store

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
        self._subscriptions.ring()
        self._waiting.ring()


_one_for_all = lru_cache(maxsize=1)(Orchestrator)
_choosing = threading.Lock()


def default() -> Orchestrator:
    """Return the orchestrator of this process that is made from the settings, at first use.

    When that one has been closed, the next call makes a new one.
    """
    with _choosing:
        if _one_for_all().closed:
            _one_for_all.cache_clear()
        return _one_for_all()
