"""Body: how a user's function is called with what the store holds for it."""

import asyncio
import inspect
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from pydantic import ConfigDict, PydanticUserError, validate_call
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

from orchestra.engine.plan import StepInput
from orchestra.errors import UnserialisableElements
from orchestra.model import template
from orchestra.model.record import ErrorInfo
from orchestra.model.retry import error_names
from orchestra.runtime.codec import decode
from orchestra.store.contract import Claimed

_LONGEST_TRACEBACK = 8000
_running: ContextVar[Claimed | None] = ContextVar("orchestra_running", default=None)


def running_step() -> Claimed | None:
    """Return the step whose body runs here, if one does."""
    return _running.get()


@contextmanager
def inside(claimed: Claimed) -> Generator[None]:
    """Mark this thread or coroutine as running a step."""
    token = _running.set(claimed)
    try:
        yield
    finally:
        _running.reset(token)


def arguments(claimed: Claimed) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of a step: its templates, filled with the outputs they name."""
    return fill(StepInput.from_json(claimed.row.input), _outputs(claimed), claimed.predecessors)


def _outputs(claimed: Claimed) -> dict[int, Any]:
    """Return the outputs that a step's input is made of; those of steps that were not taken are None."""
    none: dict[int, Any] = dict.fromkeys(StepInput.from_json(claimed.row.input).needs())
    return {**none, **{n: decode(text) for n, text in claimed.outputs.items()}}


def fill(given: StepInput, outputs: Mapping[int, Any], names: Mapping[int, str]) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments that templates come to. ``names`` are those of the predecessors, by number."""
    args: list[Any] = [template.fill(each, outputs) for each in given.args]
    kwargs = {key: template.fill(each, outputs) for key, each in given.kwargs.items()}
    if given.from_predecessors:
        several = {names[n]: outputs[n] for n in sorted(names)}
        args.insert(0, several if given.from_predecessors > 1 else next(iter(several.values()), None))
    return args, kwargs


def elements(claimed: Claimed) -> list[StepInput]:
    """Return the inputs of a map's parts: each element, then what the map gives to all.

    Raises:
        UnserialisableElements: What it maps over is no list.
    """
    given = StepInput.from_json(claimed.row.input)
    outputs = _outputs(claimed)
    items = template.fill(given.items, outputs)
    if not isinstance(items, list):
        raise UnserialisableElements(claimed.name, type(items).__name__)
    rest = [template.encode(template.fill(each, outputs), _nothing) for each in given.args]
    kwargs = {key: template.encode(template.fill(each, outputs), _nothing) for key, each in given.kwargs.items()}
    each_item: Sequence[Any] = items  # pyright: ignore[reportUnknownVariableType]
    return [StepInput([template.encode(item, _nothing), *rest], kwargs) for item in each_item]


def _nothing(_value: object) -> None:
    return None


def call(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], timeout_s: float | None) -> Any:
    """Call a function, plain or async, with its arguments checked against its annotations.

    A coroutine is cancelled when it runs longer than ``timeout_s``; a plain function cannot be, from inside.
    """
    result = _checked(function)(*args, **kwargs)
    return asyncio.run(asyncio.wait_for(result, timeout_s)) if inspect.isawaitable(result) else result


@lru_cache(maxsize=1024)
def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with pydantic's checks, or itself where it has no annotations that pydantic understands."""
    annotations = getattr(function, "__annotations__", {})
    if not annotations or not inspect.isfunction(function):
        return function
    config = ConfigDict(arbitrary_types_allowed=True)
    try:
        return validate_call(config=config, validate_return="return" in annotations)(function)
    except (PydanticUserError, PydanticSchemaGenerationError, PydanticUndefinedAnnotation, NameError, TypeError):
        return function


def error_info(error: BaseException) -> ErrorInfo:
    """Return what the store keeps of an exception."""
    lines = "".join(traceback.format_exception(error))
    text = lines if len(lines) <= _LONGEST_TRACEBACK else f"…{lines[-_LONGEST_TRACEBACK:]}"
    return ErrorInfo(type(error).__name__, str(error), text, tuple(error_names(error)))
