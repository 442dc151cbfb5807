"""The ``@task`` and ``@workflow`` decorators, and what they make of a function."""

import functools
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from orchestra.errors import InvalidOption
from orchestra.model.graph import (
    Graph,
    StepHandle,
    StepOptions,
    building,
    check_on_failure,
    current_builder,
    display_name,
)
from orchestra.model.options import Duration, at_least_one, text
from orchestra.model.retry import RetryPolicy

P = ParamSpec("P")
R = TypeVar("R")


class TaskFunction(Generic[P, R]):
    """A function marked with ``@task``. Called, it runs like any function; inside ``@workflow``, it becomes a step."""

    def __init__(self, body: Callable[P, R], name: str | None, step_options: StepOptions) -> None:
        functools.update_wrapper(self, body)
        self.body = body
        self.name = display_name(body) if name is None else text("name", name)
        self.step_options = step_options

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        builder = current_builder()
        if builder is None:
            return self.body(*args, **kwargs)
        # The type says R, as it does outside: that is what makes workflows check like plain code.
        return cast(R, builder.call(self.name, self, args, kwargs, self.step_options))

    def map(self, items: object, *, max_parallel: int | None = None, **kwargs: object) -> Any:
        """Run once per element of ``items``, a list that may be known only when the workflow runs.

        Each element is passed as the first argument, ``kwargs`` to every call. The output is the list of outputs in
        the order of the elements. ``max_parallel`` limits how many run at once. Outside ``@workflow`` it is a loop.
        """
        limit = None if max_parallel is None else at_least_one("max_parallel", max_parallel)
        builder = current_builder()
        if builder is None:
            call = cast(Callable[..., R], self.body)
            return [call(item, **kwargs) for item in cast(list[object], items)]
        return builder.call(self.name, self, [], kwargs, self.step_options, (items, limit))

    def options(
        self,
        *,
        name: str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        retry: RetryPolicy | int | None = None,
        timeout: Duration | None = None,
        fallback: object = None,
        max_rounds: int | None = None,
    ) -> "TaskFunction[P, R]":
        """Return the same task with other options: ``gather.options(priority=1)(topic)``."""
        changed = StepOptions.of(priority, queue, retry, timeout, fallback, max_rounds).over(self.step_options)
        return TaskFunction(self.body, name or self.name, changed)

    def __repr__(self) -> str:
        return f"<task {self.name!r}>"

    def __reduce__(self) -> tuple[object, ...]:
        return _by_path, (self.body.__module__, self.body.__qualname__)


def _by_path(module: str, qualname: str) -> object:
    import importlib

    return functools.reduce(getattr, qualname.split("."), importlib.import_module(module))


@overload
def task(body: Callable[P, R], /) -> TaskFunction[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    retry: RetryPolicy | int | None = None,
    timeout: Duration | None = None,
    fallback: object = None,
    max_rounds: int | None = None,
) -> Callable[[Callable[P, R]], TaskFunction[P, R]]: ...
def task(
    body: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    retry: RetryPolicy | int | None = None,
    timeout: Duration | None = None,
    fallback: object = None,
    max_rounds: int | None = None,
) -> Any:
    """Mark a function, plain or ``async``, as a task: ``@task`` or ``@task(name=…, queue=…, priority=…, …)``.

    Args:
        name: What it is called in Flower, events and listings; default the function's name.
        queue: Which queue its steps go to; default the orchestrator's.
        priority: 1 (highest) to 10; default that of the run.
        retry: A number of attempts or a RetryPolicy; default one attempt.
        timeout: Time limit of one attempt, seconds or a timedelta; default none.
        fallback: What is called instead, with the same input, when the task has failed for good.
        max_rounds: How deep sub-workflows that it returns may nest, which bounds a loop; default 100.

    Raises:
        InvalidOption: An option has a value that it cannot have.
    """
    step_options = StepOptions.of(priority, queue, retry, timeout, fallback, max_rounds)

    def mark(function: Callable[..., Any]) -> TaskFunction[..., Any]:
        if not callable(function):
            raise InvalidOption("@task", function, "a function")
        return TaskFunction(function, name, step_options)

    return mark if body is None else mark(body)


class WorkflowFunction(Generic[P]):
    """A function marked with ``@workflow``: its calls of tasks build a graph."""

    def __init__(self, body: Callable[P, object], name: str | None, on_failure: str) -> None:
        functools.update_wrapper(self, body)
        self.body = body
        self.name = display_name(body) if name is None else text("name", name)
        self.on_failure = check_on_failure(on_failure)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Run it here, like a plain function: each task is called at once. In a workflow its steps become part of that.

        A body that says ``.after(…)`` or ``.on_any()`` says something about steps, and can only be submitted.
        """
        return self.body(*args, **kwargs)

    def graph(self, *args: P.args, **kwargs: P.kwargs) -> Graph:
        """Build the graph for these arguments."""
        with building() as builder:
            returned = self.body(*args, **kwargs)
        return builder.graph(self.name, self.name, returned, self.on_failure)

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> "BoundWorkflow":
        """Return the workflow with its arguments, for a step to return: it then runs in the place of the step."""
        return BoundWorkflow(self.graph(*args, **kwargs))

    def map(self, items: object, *, max_parallel: int | None = None, **kwargs: object) -> Any:
        """Run the whole workflow once per element; as ``map`` of a task."""
        limit = None if max_parallel is None else at_least_one("max_parallel", max_parallel)
        builder = current_builder()
        if builder is None:
            call = cast(Callable[..., object], self.body)
            return [call(item, **kwargs) for item in cast(list[object], items)]
        return builder.call(self.name, self, [], kwargs, StepOptions(), (items, limit))

    def __repr__(self) -> str:
        return f"<workflow {self.name!r}>"


class BoundWorkflow:
    """A workflow and its arguments, to be returned from a step."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph


@overload
def workflow(body: Callable[P, object], /) -> WorkflowFunction[P]: ...
@overload
def workflow(
    *, name: str | None = None, on_failure: str = "fail"
) -> Callable[[Callable[P, object]], WorkflowFunction[P]]: ...
def workflow(body: Callable[..., object] | None = None, /, *, name: str | None = None, on_failure: str = "fail") -> Any:
    """Mark a function as a workflow: calls of tasks made inside build the graph, arguments that are steps are edges.

    Args:
        name: What it is called; default the function's name.
        on_failure: ``fail`` ends the run at the first failure; ``continue`` goes on with what does not depend on it.
    """

    def mark(function: Callable[..., object]) -> WorkflowFunction[...]:
        return WorkflowFunction(function, name, on_failure)

    return mark if body is None else mark(body)


__all__ = ["BoundWorkflow", "StepHandle", "TaskFunction", "WorkflowFunction", "task", "workflow"]
