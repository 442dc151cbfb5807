"""Every error that Orchestra raises, in one tree.

    OrchestraError
    ├── DefinitionError (ValueError)      what was written cannot be run; nothing has been stored
    │   ├── CyclicDependency
    │   ├── UnknownDependency
    │   ├── DuplicateName
    │   ├── ContradictoryOrder
    │   ├── InvalidOption
    │   ├── InvalidConfig
    │   ├── InvalidSchedule
    │   ├── CannotTravel
    │   ├── UntraceableInput
    │   └── UnserialisableInput
    ├── SettingsError (ValueError)        the orchestrator cannot be built from its settings
    ├── Unavailable (ConnectionError)     a server does not answer
    │   ├── BrokerUnavailable
    │   └── StoreUnavailable
    ├── UnknownId (LookupError)           the store holds no such run, task or job
    ├── KeyConflict (ValueError)          an idempotency key was used for something else, or an id twice
    ├── Closed (RuntimeError)             an orchestrator is used after it was closed
    ├── HandlerTimedOut (TimeoutError)    a handler of events runs longer than it may; only ever logged
    ├── NotDelivered                      raised by a named handler that wants an event again, such as a Webhook
    ├── WouldDeadlock (RuntimeError)      a step waits for another step while it holds a worker
    ├── NotInStep (RuntimeError)          ``current()`` was called where no step runs
    ├── MissingExtra (ImportError)        something needs packages that an extra installs
    ├── NoModelConfigured (ValueError)    an agent has no model, and this is no embedded orchestrator
    ├── ModelBusy                         a model asks to wait; a step is tried again then
    ├── UsageLimitReached                 the agents of a run have used what they may; the step has failed for good
    ├── AgentsFailed                      too many agents of a pattern failed for a result
    ├── TaskFailed                        raised by ``raise_for_status()`` only
    └── StepError                         how a step can end other than by its body's own exception
        ├── TaskNotFound                  the worker cannot find what the step is to call
        ├── UnserialisableOutput
        ├── UnserialisableElements        a ``.map`` was given something that is no list
        ├── TaskTimedOut
        ├── TooManyRounds                 steps returned sub-workflows that returned sub-workflows …
        ├── WorkerCrashed                 the step took its worker down too often
        ├── EndedWithoutOutcome           the body raised Celery's Ignore or Reject
        ├── Superseded                    the body goes on although its step was cancelled or given to another worker
        └── LeftEarly                     the body is left at a safe point, because its worker was told to stop

Each carries its facts as attributes, builds its text from them, and survives pickle, since it may cross a process.
Constructors take the facts positionally and hand all of them to ``Exception.args``: that is what pickle replays.
"""

from collections.abc import Sequence


class OrchestraError(Exception):
    """The root: ``except OrchestraError`` catches whatever this package raises on its own account."""


class DefinitionError(OrchestraError, ValueError):
    """What was written cannot be run. Nothing has been stored."""


class CyclicDependency(DefinitionError):
    """Tasks wait for each other in a circle."""

    def __init__(self, cycle: Sequence[str]) -> None:
        self.cycle = tuple(cycle)
        super().__init__(self.cycle)

    def __str__(self) -> str:
        return f"the dependencies form a cycle: {' → '.join([*self.cycle, self.cycle[0]])}; remove one of these edges"


class UnknownDependency(DefinitionError):
    """A dependency or an input names a task that the workflow does not have."""

    def __init__(self, name: str, wanted_by: str, known: Sequence[str]) -> None:
        self.name, self.wanted_by, self.known = name, wanted_by, tuple(known)
        super().__init__(name, wanted_by, self.known)

    def __str__(self) -> str:
        shown = ", ".join(repr(each) for each in self.known[:12]) + (", …" if len(self.known) > 12 else "")
        return f"{self.wanted_by!r} depends on {self.name!r}, which is not in the workflow; its tasks are {shown}"


class DuplicateName(DefinitionError):
    """Two tasks of one workflow answer to the same name or id."""

    def __init__(self, name: str, workflow: str) -> None:
        self.name, self.workflow = name, workflow
        super().__init__(name, workflow)

    def __str__(self) -> str:
        return f"two tasks of workflow {self.workflow!r} are called {self.name!r}; give each its own name or id"


class ContradictoryOrder(DefinitionError):
    """A sequential workflow lists a task before one that it depends on."""

    def __init__(self, task: str, predecessor: str) -> None:
        self.task, self.predecessor = task, predecessor
        super().__init__(task, predecessor)

    def __str__(self) -> str:
        return (
            f"pattern SEQUENTIAL runs tasks in the given order, but {self.task!r} stands before {self.predecessor!r},"
            " which it depends on; reorder the tasks or use ExecutionPattern.PARALLEL"
        )


class InvalidOption(DefinitionError):
    """An option has a value that it cannot have."""

    def __init__(self, option: str, value: object, expected: str) -> None:
        self.option, self.value, self.expected = option, value, expected
        super().__init__(option, value, expected)

    def __str__(self) -> str:
        return f"{self.option}={self.value!r} is not possible: expected {self.expected}"


class InvalidConfig(DefinitionError):
    """An agent's configuration has errors. ``problems`` has all that was found: severity, field and text each."""

    def __init__(self, agent: str, problems: Sequence[tuple[str, str, str]]) -> None:
        self.agent, self.problems = agent, tuple(tuple(map(str, each)) for each in problems)
        super().__init__(agent, self.problems)

    def __str__(self) -> str:
        found = "; ".join(f"{name}: {text}" for severity, name, text in self.problems if severity == "ERROR")
        return f"the configuration of {self.agent!r} is not possible: {found}"


class InvalidSchedule(DefinitionError):
    """A schedule cannot be what it was given as. ``position`` counts characters from 1, where there is a place."""

    def __init__(self, option: str, value: object, position: int | None, reason: str, hint: str) -> None:
        self.option, self.value, self.position, self.reason, self.hint = option, value, position, reason, hint
        super().__init__(option, value, position, reason, hint)

    def __str__(self) -> str:
        place = "" if self.position is None else f" at character {self.position}"
        return f"{self.option}={self.value!r} is not possible{place}: {self.reason}; {self.hint}"


class CannotTravel(DefinitionError):
    """A function cannot be sent to separate workers, because they could not find it by its name."""

    def __init__(self, function: str, reason: str) -> None:
        self.function, self.reason = function, reason
        super().__init__(function, reason)

    def __str__(self) -> str:
        return (
            f"{self.function!r} cannot travel to a worker: {self.reason}. "
            "Define it at the top level of a module that the workers can import"
        )


class UntraceableInput(DefinitionError):
    """An input looks at an output that does not exist yet, in a way that a template cannot repeat later.

    ``step`` names the step whose output it is; None when several are concerned, or none.
    """

    def __init__(self, step: str | None, seen: str) -> None:
        self.step, self.seen = step, seen
        super().__init__(step, seen)

    def __str__(self) -> str:
        subject = "this input" if self.step is None else f"the output of {self.step!r}"
        return (
            f"{subject} cannot be traced: {self.seen}. Outputs are not known before the workflow runs; they may only be"
            " placed into text, lists and dicts. Make the computation a step of its own: a function marked @task that"
            " takes the output as its input"
        )


class UnserialisableInput(DefinitionError):
    """An input holds something that JSON cannot. ``path`` says where: ``input['a'][3]``."""

    def __init__(self, path: str, type_name: str, reason: str) -> None:
        self.path, self.type_name, self.reason = path, type_name, reason
        super().__init__(path, type_name, reason)

    def __str__(self) -> str:
        return (
            f"{self.path} is a {self.type_name} that cannot be sent as JSON: {self.reason}; give numbers, text, lists,"
            " dicts, dataclasses or pydantic models"
        )


class SettingsError(OrchestraError, ValueError):
    """The orchestrator cannot be built from what it was given."""


class Unavailable(OrchestraError, ConnectionError):
    """A server does not answer. The URL is shown without its password."""

    kind = "server"

    def __init__(self, url: str, reason: str) -> None:
        self.url, self.reason = url, reason
        super().__init__(url, reason)

    def __str__(self) -> str:
        return f"no {self.kind} at {self.url}: {self.reason}; start it, or correct the URL"


class BrokerUnavailable(Unavailable):
    """The broker does not answer."""

    kind = "broker"


class StoreUnavailable(Unavailable):
    """The store does not answer."""

    kind = "store"


class UnknownId(OrchestraError, LookupError):
    """The store holds nothing of that id."""

    def __init__(self, kind: str, id: str) -> None:
        self.kind, self.id = kind, id
        super().__init__(kind, id)

    def __str__(self) -> str:
        return f"the store holds no {self.kind} with id {self.id!r}"


class KeyConflict(OrchestraError, ValueError):
    """A key or id that must be unique already belongs to something else."""

    def __init__(self, key: str, run_id: str, reason: str) -> None:
        self.key, self.run_id, self.reason = key, run_id, reason
        super().__init__(key, run_id, reason)

    def __str__(self) -> str:
        return f"{self.key!r} already belongs to run {self.run_id!r}: {self.reason}"


class Closed(OrchestraError, RuntimeError):
    """An orchestrator is used after it was closed. ``store`` is the URL of its store, without the password."""

    def __init__(self, store: str) -> None:
        self.store = store
        super().__init__(store)

    def __str__(self) -> str:
        return f"the orchestrator of {self.store!r} was closed; make a new one"


class HandlerTimedOut(OrchestraError, TimeoutError):
    """A handler of events ran longer than it may. It runs on unheard; the next event is for another thread."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        super().__init__(limit_s)

    def __str__(self) -> str:
        return f"the handler has not returned after {self.limit_s} s; give on(…, timeout=…) more, or hand the work on"


class NotDelivered(OrchestraError):
    """An event did not reach whom it is for. Raised by a handler with a name, which gets it again a little later."""

    def __init__(self, to: str, reason: str, after_s: float | None = None) -> None:
        self.to, self.reason, self.after_s = to, reason, after_s
        super().__init__(to, reason, after_s)

    def __str__(self) -> str:
        return f"{self.to!r} did not take an event: {self.reason}"


class WouldDeadlock(OrchestraError, RuntimeError):
    """A step waits for another step while it occupies the slot that the other may need."""

    def __init__(self, waited_for: str) -> None:
        self.waited_for = waited_for
        super().__init__(waited_for)

    def __str__(self) -> str:
        return (
            f"waiting for {self.waited_for!r} inside a step would hold a worker while it waits;"
            " make it a dependency, or return the sub-workflow from the step"
        )


class NotInStep(OrchestraError, RuntimeError):
    """``current()`` was called where no step runs."""

    def __str__(self) -> str:
        return (
            "no step runs here: call current() in the function of a task, on the thread that runs it; hand what it"
            " returns to threads of your own"
        )


class MissingExtra(OrchestraError, ImportError):
    """Something needs packages that an extra installs."""

    def __init__(self, extra: str, wanted_by: str) -> None:
        self.extra, self.wanted_by = extra, wanted_by
        super().__init__(extra, wanted_by)

    def __str__(self) -> str:
        return f"the extra {self.extra!r} is needed for {self.wanted_by}: pip install 'orchestra-celery[{self.extra}]'"


class NoModelConfigured(OrchestraError, ValueError):
    """An agent has no model, and this is no embedded orchestrator."""

    def __init__(self, agent: str) -> None:
        self.agent = agent
        super().__init__(agent)

    def __str__(self) -> str:
        return (
            f"agent {self.agent!r} has no model: give model=…, set ORCHESTRA_MODEL or model in orchestra.toml (for"
            " example 'openai:gpt-5'), or name 'offline' for answers without a model"
        )


class ModelBusy(OrchestraError):
    """A model asks to wait. A step gives its worker back and is tried again after ``retry_after_s``, up to 20 times."""

    def __init__(self, agent: str, reason: str, retry_after_s: float) -> None:
        self.agent, self.reason, self.retry_after_s = agent, reason, retry_after_s
        super().__init__(agent, reason, retry_after_s)

    def __str__(self) -> str:
        return f"the model of {self.agent!r} asks to wait {self.retry_after_s:g} s: {self.reason}"


class UsageLimitReached(OrchestraError):
    """The agents of a run have used what they may use together. The step that asked for more has failed for good."""

    def __init__(self, limit: str, allowed: float, used: float) -> None:
        self.limit, self.allowed, self.used = limit, allowed, used
        super().__init__(limit, allowed, used)

    def __str__(self) -> str:
        return (
            f"the agents of this run have used {self.used:g} of {self.limit}={self.allowed:g}; submit it anew with a"
            " higher limit in usage_limits"
        )


class AgentsFailed(OrchestraError):
    """Too many agents of a pattern failed for a result. ``reasons`` has what each said."""

    def __init__(self, pattern: str, reasons: Sequence[str]) -> None:
        self.pattern, self.reasons = pattern, tuple(reasons)
        super().__init__(pattern, self.reasons)

    def __str__(self) -> str:
        return f"no result of {self.pattern!r}, since agents failed: {'; '.join(self.reasons)}"


class TaskFailed(OrchestraError):
    """``raise_for_status()`` was called on a task or run that did not complete."""

    def __init__(self, name: str, status: str, error: str) -> None:
        self.name, self.status, self.error = name, status, error
        super().__init__(name, status, error)

    def __str__(self) -> str:
        return f"{self.name!r} ended {self.status}: {self.error}"


class StepError(OrchestraError):
    """How a step can end other than by the exception of its own body."""


class TaskNotFound(StepError):
    """The worker cannot find what the step is to call. It counts as no attempt."""

    def __init__(self, target: str, reason: str) -> None:
        self.target, self.reason = target, reason
        super().__init__(target, reason)

    def __str__(self) -> str:
        return f"no task {self.target!r} on this worker: {self.reason}"


class UnserialisableOutput(StepError):
    """A body returned something that JSON cannot hold."""

    def __init__(self, task: str, type_name: str, reason: str) -> None:
        self.task, self.type_name, self.reason = task, type_name, reason
        super().__init__(task, type_name, reason)

    def __str__(self) -> str:
        return (
            f"{self.task!r} returned a {self.type_name} that cannot be stored as JSON ({self.reason});"
            " return numbers, text, lists, dicts, dataclasses or pydantic models"
        )


class UnserialisableElements(StepError):
    """A ``.map`` was given something that is no list."""

    def __init__(self, task: str, type_name: str) -> None:
        self.task, self.type_name = task, type_name
        super().__init__(task, type_name)

    def __str__(self) -> str:
        return f"{self.task!r} maps over a {self.type_name}; the step before it must return a list"


class TaskTimedOut(StepError):
    """A body ran longer than its ``timeout``."""

    def __init__(self, task: str, timeout_s: float) -> None:
        self.task, self.timeout_s = task, timeout_s
        super().__init__(task, timeout_s)

    def __str__(self) -> str:
        return f"{self.task!r} ran longer than its timeout of {self.timeout_s:g} s"


class TooManyRounds(StepError):
    """A step returned a sub-workflow once more than ``max_rounds`` allows."""

    def __init__(self, task: str, max_rounds: int) -> None:
        self.task, self.max_rounds = task, max_rounds
        super().__init__(task, max_rounds)

    def __str__(self) -> str:
        return f"{self.task!r} returned a workflow in round {self.max_rounds + 1}; max_rounds is {self.max_rounds}"


class WorkerCrashed(StepError):
    """Every worker that took the step died, until the limit was reached."""

    def __init__(self, task: str, crashes: int) -> None:
        self.task, self.crashes = task, crashes
        super().__init__(task, crashes)

    def __str__(self) -> str:
        return f"{self.task!r} was given up: {self.crashes} workers died while they ran it"


class EndedWithoutOutcome(StepError):
    """A body raised Celery's Ignore or Reject, which say nothing about how it ended."""

    def __init__(self, task: str, raised: str) -> None:
        self.task, self.raised = task, raised
        super().__init__(task, raised)

    def __str__(self) -> str:
        return f"{self.task!r} raised {self.raised}, which is no outcome; return a value or raise an error"


class Superseded(StepError):
    """A body wants to save something, but its step was cancelled, timed out or given to another worker."""

    def __init__(self, task: str) -> None:
        self.task = task
        super().__init__(task)

    def __str__(self) -> str:
        return (
            f"{self.task!r} was cancelled, ran out of time or was given to another worker; nothing that it does counts"
            " any more: let this error end it"
        )


class LeftEarly(StepError):
    """A body is left at a safe point: another worker begins it again at once. No attempt was made."""

    def __init__(self, task: str) -> None:
        self.task = task
        super().__init__(task)

    def __str__(self) -> str:
        return f"{self.task!r} was left at a safe point, because its worker was told to stop: let this error end it"
