"""Workflow: tasks and what depends on what, as data."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import partial
from types import FunctionType, MethodType
from typing import cast

from orchestra.errors import ContradictoryOrder, CyclicDependency, DuplicateName, InvalidOption, UnknownDependency
from orchestra.model import options, template
from orchestra.model.condition import check
from orchestra.model.function import BoundWorkflow, WorkflowFunction
from orchestra.model.graph import Graph, GraphStep, check_on_failure, takes_input
from orchestra.model.ids import new_id
from orchestra.model.task import NOTHING, Task
from orchestra.model.tracing import trace_template


class ExecutionPattern(StrEnum):
    """How the tasks of a workflow follow each other."""

    SEQUENTIAL = "SEQUENTIAL"
    """In the given order; each without an input of its own gets the output of the one before."""
    PARALLEL = "PARALLEL"
    """As early as the dependencies allow."""
    SUPERVISOR = "SUPERVISOR"
    """The agent of the first task hands work to those of the others, sees what came of it, and ends."""
    COLLABORATIVE = "COLLABORATIVE"
    """The agents of the tasks take turns on one shared text, until all of them are content with it."""


TEAMS = {
    ExecutionPattern.SUPERVISOR: "orchestra.agents.patterns.team:supervise",
    ExecutionPattern.COLLABORATIVE: "orchestra.agents.patterns.team:collaborate",
}
"""By pattern, what the workflow's tasks are given to."""


class Workflow:
    """Tasks, and what depends on what.

    Args:
        name: What it is called; default its id.
        tasks: The tasks. Their names and ids must be unique among each other.
        dependencies: For a task, by name or id, the tasks that it waits for. Inputs that read another task's output
            add that dependency by themselves.
        id: What it is known by; default a new one. It may be submitted any number of times.
        conditions: For an edge, ``(from, to)``, an expression over the output of the first that says whether the way
            is taken: ``{("Classify", "Escalate"): "output.score > 0.8"}``. An edge that is not there yet is added.
            A task that no way leads into is SKIPPED; one that some ways lead into gets the outputs of those.
        any_of: Tasks that run on the first way taken, rather than when everything that they depend on has ended.
        on_failure: ``fail`` ends the run at the first failure; ``continue`` goes on with what does not depend on it,
            and the run is FAILED at the end.

    Raises:
        DuplicateName, UnknownDependency, InvalidOption: What is wrong, and where. A cycle is found at submit.
    """

    def __init__(
        self,
        name: str | None = None,
        tasks: Sequence[Task] = (),
        dependencies: Mapping[str, Iterable[str]] | None = None,
        *,
        id: str | None = None,
        conditions: Mapping[tuple[str, str], str] | None = None,
        any_of: Iterable[str] = (),
        on_failure: str = "fail",
    ) -> None:
        self.id = new_id() if id is None else options.text("id", id)
        self.name = self.id if name is None else options.text("name", name)
        self.tasks = list(tasks)
        if not self.tasks:
            raise InvalidOption("tasks", [], "at least one Task")
        self._positions = _positions(self.name, self.tasks)
        self.dependencies = {
            after: list(_one_or_several(after, before)) for after, before in (dependencies or {}).items()
        }
        self._after = [frozenset[int]()] * len(self.tasks)
        for after, names in self.dependencies.items():
            position = self._position(after, after)
            self._after[position] |= {self._position(name, after) for name in names}
            if position in self._after[position]:
                raise CyclicDependency([self.tasks[position].name])
        self.on_failure = check_on_failure(on_failure)
        self._whens: list[dict[int, str]] = [{} for _ in self.tasks]
        for (before, after), when in (conditions or {}).items():
            position, predecessor = self._position(after, after), self._position(before, after)
            self._after[position] |= {predecessor}
            self._whens[position][predecessor] = check(when)
        self._any = {self._position(name, name) for name in any_of}

    def graph(self, pattern: ExecutionPattern = ExecutionPattern.PARALLEL, given: object = NOTHING) -> Graph:
        """Lower it. ``given`` is the input of the run: it goes to the tasks that have neither input nor predecessors.

        Raises:
            ContradictoryOrder: The pattern is SEQUENTIAL, and a task stands before one that it depends on.
            UntraceableInput, UnserialisableInput: An input cannot become a template.
        """
        if pattern in TEAMS:
            return self._team(pattern, given)
        sequential = pattern is ExecutionPattern.SEQUENTIAL
        # In a sequence only the first task has no predecessor.
        steps = [
            self._step(position, NOTHING if sequential and position else given) for position in range(len(self.tasks))
        ]
        return Graph(self.id, self.name, _in_order(steps) if sequential else steps, None, self.on_failure)

    def _team(self, pattern: ExecutionPattern, given: object) -> Graph:
        """Lower it to one step, which becomes the rounds of its agents."""
        for each in self.tasks:
            if not hasattr(each.agent, "instructions"):
                raise InvalidOption("agent", each.agent, f"an agent(…) for each task of a {pattern} workflow")
        if any(self._after):
            raise InvalidOption("dependencies", self.dependencies, f"none: the agents of a {pattern} workflow decide")
        goal = self.tasks[0].input if given is NOTHING else given
        if goal is NOTHING:
            raise InvalidOption("input", None, "what the agents are to do, with the workflow or its first task")
        members = [{"name": each.name, "agent": each.agent, "input": _own_input(each, goal)} for each in self.tasks]
        args = [_template(goal, _no_step), template.encode(members, _no_step)]
        return Graph(self.id, self.name, [GraphStep(self.id, self.name, TEAMS[pattern], args, {}, frozenset())])

    def _step(self, position: int, given: object) -> GraphStep:
        task = self.tasks[position]
        value = task.input
        if value is NOTHING and not self._after[position] and not task.kwargs and takes_input(task.agent):
            value = given
        key_of = self._key_of(task)
        args = [] if value is NOTHING else [_template(value, key_of)]
        kwargs = {key: template.encode(each, key_of, path=f"kwargs[{key!r}]") for key, each in task.kwargs.items()}
        references = frozenset(template.references([args, kwargs]))
        if position in references:
            raise CyclicDependency([task.name])
        return GraphStep(
            key=task.id,
            name=task.name,
            agent=task.agent,
            args=args,
            kwargs=kwargs,
            after=self._after[position] | references,
            options=task.options,
            metadata=task.metadata,
            from_predecessors=not args and not kwargs,
            whens=self._whens[position],
            any=position in self._any,
        )

    def _key_of(self, reader: Task) -> Callable[[object], int | None]:
        def key_of(value: object) -> int | None:
            if not isinstance(value, Task):
                return None
            position = self._positions.get(value.id)
            if position is None or self.tasks[position] is not value:
                raise UnknownDependency(value.name, reader.name, [each.name for each in self.tasks])
            return position

        return key_of

    def _position(self, name: str, wanted_by: str) -> int:
        if name not in self._positions:
            raise UnknownDependency(name, wanted_by, [each.name for each in self.tasks])
        return self._positions[name]

    def to_mermaid(self) -> str:
        """Return the graph as a Mermaid flowchart."""
        graph = self.graph()
        lines = ["flowchart LR"]
        lines += [f'    s{n}["{step.name.replace(chr(34), "&quot;")}"]' for n, step in enumerate(graph.steps)]
        lines += [f"    s{before} --> s{n}" for n, step in enumerate(graph.steps) for before in sorted(step.after)]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Workflow {self.name!r} of {len(self.tasks)} tasks>"


def single(task: Task) -> Graph:
    """Return the graph of one task that is submitted alone."""
    value = task.input
    args = [] if value is NOTHING else [_template(value, _no_step)]
    kwargs = {key: template.encode(each, _no_step, path=f"kwargs[{key!r}]") for key, each in task.kwargs.items()}
    step = GraphStep(task.id, task.name, task.agent, args, kwargs, frozenset(), task.options, task.metadata)
    return Graph(task.id, task.name, [step])


def graph_of(
    workflow: Workflow | WorkflowFunction[...] | BoundWorkflow,
    given: object,
    kwargs: Mapping[str, object] | None,
    pattern: ExecutionPattern,
) -> Graph:
    """Return the graph of what was given as a workflow.

    Raises:
        DefinitionError: It is none, or cannot be run with what it was given.
    """
    pattern = options.member(ExecutionPattern, "pattern", pattern)
    match workflow:
        case Workflow():
            if kwargs:
                raise InvalidOption("kwargs", dict(kwargs), "none: a Workflow takes input=…, an @workflow takes both")
            return workflow.graph(pattern, given)
        case WorkflowFunction():
            if pattern is not ExecutionPattern.PARALLEL:
                raise InvalidOption("pattern", pattern, "PARALLEL: the calls of an @workflow function say the order")
            return workflow.graph(*(() if given is NOTHING else (given,)), **(kwargs or {}))
        case BoundWorkflow():
            if given is not NOTHING or kwargs or pattern is not ExecutionPattern.PARALLEL:
                raise InvalidOption("input", given, "no input, kwargs or pattern beside a workflow that has them")
            return workflow.graph
        case _:  # pyright: ignore[reportUnnecessaryComparison]
            raise InvalidOption("workflow", workflow, "a Workflow or a function decorated with @workflow")


def _own_input(task: Task, goal: object) -> str | None:
    """Return what a member of a team was given for itself."""
    return task.input if isinstance(task.input, str) and task.input is not goal else None


def _no_step(_value: object) -> None:
    return None


def _template(value: object, key_of: Callable[[object], int | None]) -> object:
    if isinstance(value, (FunctionType, MethodType, partial)):
        return trace_template(cast(Callable[[], object], value), key_of)
    return template.encode(value, key_of)


def _in_order(steps: Sequence[GraphStep]) -> list[GraphStep]:
    ordered: list[GraphStep] = []
    for position, step in enumerate(steps):
        late = [before for before in step.after if before > position]
        if late:
            raise ContradictoryOrder(step.name, steps[min(late)].name)
        named = frozenset(template.references([list(step.args), dict(step.kwargs)]))
        previous = frozenset({position - 1} if position else ())
        ordered.append(replace(step, after=previous | named))
    return ordered


def _positions(workflow: str, tasks: Sequence[Task]) -> dict[str, int]:
    positions: dict[str, int] = {}
    for position, task in enumerate(tasks):
        if not isinstance(task, Task):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidOption("tasks", task, "Task objects")
        for name in {task.id, task.name}:
            if positions.setdefault(name, position) != position:
                raise DuplicateName(name, workflow)
    return positions


def _one_or_several(after: str, before: object) -> list[str]:
    if isinstance(before, str) or not isinstance(before, Iterable):
        raise InvalidOption(f"dependencies[{after!r}]", before, "a list of names or ids")
    return [str(each) for each in before]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
