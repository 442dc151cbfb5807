"""Lowering: whichever way a workflow was written in, the graph of it for an input."""

from collections.abc import Mapping

from orchestra.errors import InvalidOption
from orchestra.model.function import WorkflowFunction
from orchestra.model.graph import Graph
from orchestra.model.task import NOTHING
from orchestra.model.workflow import ExecutionPattern, Workflow


def graph_of(
    workflow: Workflow | WorkflowFunction[...], given: object, kwargs: Mapping[str, object], pattern: ExecutionPattern
) -> Graph:
    """Return the graph of a workflow for an input.

    Raises:
        DefinitionError: It cannot be run as given.
    """
    pattern = _pattern(pattern)
    match workflow:
        case Workflow():
            if kwargs:
                raise InvalidOption("kwargs", dict(kwargs), "none: a Workflow takes input=…, an @workflow takes both")
            return workflow.graph(pattern, given)
        case WorkflowFunction():
            if pattern is not ExecutionPattern.PARALLEL:
                raise InvalidOption("pattern", pattern, "PARALLEL: the calls of an @workflow function say the order")
            return workflow.graph(*(() if given is NOTHING else (given,)), **kwargs)
        case _:  # pyright: ignore[reportUnnecessaryComparison]
            raise InvalidOption("workflow", workflow, "a Workflow or a function decorated with @workflow")


def _pattern(value: object) -> ExecutionPattern:
    try:
        return ExecutionPattern(value)
    except ValueError:
        raise InvalidOption("pattern", value, f"one of {', '.join(ExecutionPattern)}") from None
