"""Task: a unit of work as its author wrote it and, once submitted, the handle to what became of it."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Protocol

from orchestra.errors import Closed, InvalidOption, TaskFailed
from orchestra.model import options, reference
from orchestra.model.graph import StepOptions, display_name
from orchestra.model.ids import StepRef, new_id
from orchestra.model.options import DEFAULT_PRIORITY, Duration
from orchestra.model.piece import Piece
from orchestra.model.record import ErrorInfo, Progress, RunRecord, StepRecord, moment
from orchestra.model.retry import ONCE, RetryPolicy
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.model.usage import Call, Usage, total


class _Nothing:
    def __repr__(self) -> str:
        return "<no input>"


NOTHING: object = _Nothing()
"""The input of a task that was given none: it gets the output of what it depends on."""


_NO_OPTIONS = StepOptions()


class Owner(Protocol):
    """What a handle needs of the orchestrator that it was submitted to."""

    def read_step(self, ref: StepRef) -> StepRecord: ...
    def read_run(self, run_id: str) -> RunRecord: ...
    def read_output(self, run: RunRecord) -> object: ...
    def read_steps(self, run_id: str) -> list[StepRecord]: ...
    def read_progress(self, run_id: str) -> Mapping[int, Progress]: ...
    def read_calls(self, run_id: str) -> list[Call]: ...
    def follow(self, run_id: str, ended: Callable[[], bool], step_id: str | None = None) -> Iterator[Piece]: ...
    def decode(self, text: str) -> object: ...
    def wait_step(self, ref: StepRef, timeout_s: float | None) -> StepRecord: ...
    def wait_run(self, run_id: str, timeout_s: float | None) -> RunRecord: ...


class Task:
    """A unit of work: something to call and its input. Submitted, it is also the handle to the run of it.

    Until it is submitted a task is PENDING and has no output. After that its ``status``, ``output``, ``error``,
    ``attempts`` and times are read from the store until it has ended; a task of a submitted workflow reads that
    workflow's last run.

    Args:
        name: What it is called; default the agent's name. Unique in its workflow.
        agent: What to call: a function, an ``@task``, an existing Celery task, or the name of one.
        input: The one argument. Without it the task gets the output of what it depends on: the value for one
            predecessor, a dict by name for several. A function without arguments (``lambda: f"…{other.output}"``) is
            traced when the workflow is submitted.
        kwargs: Keyword arguments, for several.
        id: A key inside its workflow; default a new one. A task submitted alone has it as the id of its run.
        priority: 1 (highest) to 10; default that of the run, which is 5.
        metadata: Data of your own, kept with the task and searchable.
        retry: A number of attempts or a RetryPolicy; default one attempt.
        timeout: Time limit of one attempt, seconds or a timedelta; default none.
        queue: Which queue it goes to; default the orchestrator's.
        fallback: What is called instead, with the same input, when the task has failed for good; its output is taken.
        callback: Called once with the ended task, whatever the end: a function, in the process that submitted it; or
            the name of one, ``module:function``, which becomes a task of its own on the workers.

    Raises:
        InvalidOption: An option has a value that it cannot have.
    """

    def __init__(
        self,
        name: str | None = None,
        agent: object = None,
        input: object = NOTHING,
        *,
        kwargs: Mapping[str, object] | None = None,
        id: str | None = None,
        priority: int | None = None,
        metadata: Mapping[str, object] | None = None,
        retry: RetryPolicy | int | None = None,
        timeout: Duration | None = None,
        queue: str | None = None,
        fallback: object = None,
        callback: Callable[["Task"], object] | str | None = None,
    ) -> None:
        if agent is None or not (callable(agent) or isinstance(agent, str)):
            raise InvalidOption("agent", agent, "something to call: a function, a @task, a Celery task or its name")
        if callback is not None and not callable(callback) and not (isinstance(callback, str) and ":" in callback):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidOption("callback", callback, "a function of one argument, the ended task, or module:function")
        own: StepOptions = getattr(agent, "step_options", _NO_OPTIONS)
        given = (priority, queue, retry, timeout, fallback)
        self.options = own if all(each is None for each in given) else StepOptions.of(*given).over(own)
        self.id = new_id() if id is None else options.text("id", id)
        self.name = display_name(agent) if name is None else options.text("name", name)
        self.agent = agent
        self.input = input
        self.kwargs: dict[str, object] = dict(kwargs or {})
        self.metadata = options.metadata(metadata)
        self.callback = callback
        self._owner: Owner | None = None
        self._ref: StepRef | None = None
        self._record: StepRecord | None = None

    @classmethod
    def of_record(cls, record: StepRecord, owner: Owner, *, single: bool) -> "Task":
        """Return the handle of a step that the store holds."""
        task = cls.__new__(cls)
        task.options = StepOptions(record.priority, record.queue)
        task.id = record.ref.run_id if single else record.key
        task.name, task.agent, task.input, task.kwargs = record.name, record.target, NOTHING, {}
        task.metadata, task.callback = dict(record.metadata), None
        task.bind(owner, record.ref)
        task._record = record  # noqa: SLF001
        return task

    def bind(self, owner: Owner, ref: StepRef) -> None:
        """Make this the handle of a step. Called by the orchestrator at submit."""
        self._owner, self._ref, self._record = owner, ref, None

    @property
    def run_id(self) -> str | None:
        """The run that this task is a step of; None before it is submitted."""
        return self._ref.run_id if self._ref else None

    @property
    def ref(self) -> StepRef | None:
        """The step that this task is the handle of; None before it is submitted."""
        return self._ref

    @property
    def status(self) -> TaskStatus:
        """Where the task stands now."""
        record = self._current()
        return record.status if record else TaskStatus.PENDING

    @property
    def priority(self) -> int:
        """1 (highest) to 10."""
        record = self._record
        return record.priority if record else self.options.priority or DEFAULT_PRIORITY

    @property
    def queue(self) -> str | None:
        """The queue; None for the orchestrator's default."""
        return self._record.queue if self._record else self.options.queue

    @property
    def retry(self) -> RetryPolicy:
        """How often it is tried."""
        return self.options.retry or ONCE

    @property
    def output(self) -> object:
        """What the body returned, decoded from JSON; None until it has completed.

        While an input lambda is traced it is a reference to the output that this task will have.
        """
        traced = reference.current(self)
        if traced is not None:
            return traced
        record = self._current()
        if record is None or self._owner is None or record.status is not TaskStatus.COMPLETED:
            return None
        if record.output is None:
            record = self._record = self._owner.read_step(record.ref)  # listings leave outputs out
        return None if record.output is None else self._owner.decode(record.output)

    @property
    def error(self) -> ErrorInfo | None:
        """Why it failed, was skipped or will be retried: type, message, traceback. Its ``str`` is the message."""
        record = self._current()
        return record.error if record else None

    @property
    def attempts(self) -> int:
        """How many attempts ended with an outcome of the body."""
        record = self._current()
        return record.attempts if record else 0

    @property
    def claims(self) -> int:
        """How often a worker took it; more than ``attempts`` when workers crashed."""
        record = self._current()
        return record.claims if record else 0

    @property
    def crashes(self) -> int:
        """How many claims ended because the worker was gone."""
        record = self._current()
        return record.crashes if record else 0

    @property
    def worker(self) -> str | None:
        """The worker that took it last."""
        record = self._current()
        return record.worker if record else None

    @property
    def created_at(self) -> datetime | None:
        """When it was submitted, in UTC."""
        record = self._current()
        return moment(record.created_at) if record else None

    @property
    def started_at(self) -> datetime | None:
        """When the last attempt began, in UTC."""
        record = self._current()
        return moment(record.started_at) if record else None

    @property
    def completed_at(self) -> datetime | None:
        """When it ended, whatever the end, in UTC."""
        record = self._current()
        return moment(record.completed_at) if record else None

    @property
    def progress(self) -> Progress | None:
        """How far its body last said that it is (``current().progress``): ``share`` from 0 to 1, ``text``, ``at``."""
        if self._owner is None or self._ref is None:
            return None
        return self._owner.read_progress(self._ref.run_id).get(self._ref.n)

    def stream(self) -> Iterator[Piece]:
        """Return what its body writes from now on (``current().say``, agents with ``stream=True``), until it has ended.

        Nothing of it is kept: what was written before, or comes while the broker is away, is not heard, and ``offset``
        tells. The whole is in the ``output``.
        """
        if self._owner is None or self._ref is None:
            raise InvalidOption("stream", self.name, "a task that was submitted")
        return self._owner.follow(self._ref.run_id, lambda: self.status.ended, str(self._ref))

    @property
    def calls(self) -> list[Call]:
        """The calls of models and tools that agents made in it and that are recorded: in order, agent by agent.

        With those of the steps that it became, if it became a workflow.
        """
        if self._owner is None or self._ref is None:
            return []
        its = {self._ref}
        for each in self._owner.read_steps(self._ref.run_id):  # what a step became comes after it
            if each.parent is not None and StepRef(each.ref.run_id, each.parent) in its:
                its.add(each.ref)
        ids = set(map(str, its))
        return [each for each in self._owner.read_calls(self._ref.run_id) if each.step_id in ids]

    @property
    def usage(self) -> Usage:
        """What these calls took together: requests, tool calls, tokens, and their price in US dollars."""
        return total(self.calls)

    def wait(self, timeout: Duration | None = None) -> "Task":
        """Wait until the task has ended, however it ended, and return it.

        Args:
            timeout: Seconds or a timedelta; default for ever.

        Raises:
            TimeoutError: It has not ended in time; it goes on.
            WouldDeadlock: Called inside a step.
            InvalidOption: It has not been submitted.
        """
        if self._owner is None or self._ref is None:
            raise InvalidOption("wait", self.name, "a task that was submitted")
        limit = None if timeout is None else options.seconds("timeout", timeout)
        self._record = self._owner.wait_step(self._ref, limit)
        return self

    async def await_done(self, timeout: Duration | None = None) -> "Task":  # noqa: ASYNC109
        """Like ``wait``, without holding the event loop."""
        return await asyncio.to_thread(self.wait, timeout)

    def raise_for_status(self) -> "Task":
        """Return the task if it completed, else raise TaskFailed with its error."""
        if self.status is not TaskStatus.COMPLETED:
            raise TaskFailed(self.name, self.status, str(self.error or "it has not ended"))
        return self

    def __repr__(self) -> str:
        return f"<Task {self.name!r} {self.id}{'' if self._ref is None else f' {self.status}'}>"

    def _current(self) -> StepRecord | None:
        if self._owner is None or self._ref is None:
            return self._record
        # What failed may run again: only what has completed stays so.
        if self._record is None or self._record.status is not TaskStatus.COMPLETED:
            try:
                self._record = self._owner.read_step(self._ref)
            except Closed:
                if self._record is None or not self._record.status.ended:
                    raise
        return self._record


class WorkflowRun:
    """One execution of a workflow. What it shows is read from the store until the run has ended."""

    def __init__(self, run_id: str, owner: Owner, record: RunRecord | None = None) -> None:
        self.id = run_id
        self._owner = owner
        self._record = record

    @property
    def record(self) -> RunRecord:
        """What the store holds now."""
        if self._record is None or self._record.status is not WorkflowStatus.COMPLETED:
            try:
                self._record = self._owner.read_run(self.id)
            except Closed:
                if self._record is None or not self._record.status.ended:
                    raise
        return self._record

    @property
    def name(self) -> str:
        """The workflow's name."""
        return self.record.name

    @property
    def status(self) -> WorkflowStatus:
        """Where the run stands now."""
        return self.record.status

    @property
    def tasks(self) -> list[Task]:
        """All steps, in the order of the plan; the parts of a map come last."""
        single = self.record.single
        return [Task.of_record(each, self._owner, single=single) for each in self._owner.read_steps(self.id)]

    @property
    def output(self) -> object:
        """The output of the last step, or a dict by name when several are last; None until the run has completed."""
        record = self.record
        return self._owner.read_output(record) if record.status is WorkflowStatus.COMPLETED else None

    def stream(self) -> Iterator[Piece]:
        """Return what its steps write from now on, until the run has ended; as ``stream`` of a task."""
        return self._owner.follow(self.id, lambda: self.status.ended)

    @property
    def calls(self) -> list[Call]:
        """The calls of models and tools that its agents made and that are recorded: step by step, agent by agent."""
        return self._owner.read_calls(self.id)

    @property
    def usage(self) -> Usage:
        """What these calls took together: requests, tool calls, tokens, and their price in US dollars."""
        return total(self.calls)

    @property
    def error(self) -> ErrorInfo | None:
        """Why the run failed: the first error, naming its step."""
        return self.record.error

    @property
    def metadata(self) -> Mapping[str, object]:
        """The data given at submit."""
        return self.record.metadata

    @property
    def job_id(self) -> str | None:
        """The scheduled job that started it, if one did."""
        return self.record.job_id

    @property
    def scheduled_for(self) -> datetime | None:
        """The time that it stands for, if a job started it."""
        return moment(self.record.scheduled_for)

    @property
    def created_at(self) -> datetime | None:
        """When it was submitted, in UTC."""
        return moment(self.record.created_at)

    @property
    def started_at(self) -> datetime | None:
        """When its first step began, in UTC."""
        return moment(self.record.started_at)

    @property
    def completed_at(self) -> datetime | None:
        """When it ended, in UTC."""
        return moment(self.record.completed_at)

    def wait(self, timeout: Duration | None = None) -> "WorkflowRun":
        """Wait until the run has ended, however it ended, and return it.

        Raises:
            TimeoutError: It has not ended in time; it goes on.
            WouldDeadlock: Called inside a step.
        """
        limit = None if timeout is None else options.seconds("timeout", timeout)
        self._record = self._owner.wait_run(self.id, limit)
        return self

    async def await_done(self, timeout: Duration | None = None) -> "WorkflowRun":  # noqa: ASYNC109
        """Like ``wait``, without holding the event loop."""
        return await asyncio.to_thread(self.wait, timeout)

    def raise_for_status(self) -> "WorkflowRun":
        """Return the run if it completed, else raise TaskFailed with its error."""
        if self.status is not WorkflowStatus.COMPLETED:
            raise TaskFailed(self.name, self.status, str(self.error or "it has not ended"))
        return self

    def __repr__(self) -> str:
        return f"<WorkflowRun {self.name!r} {self.id} {self.status}>"


def as_json(value: object) -> str:
    """Return compact JSON text of something that is JSON already."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
