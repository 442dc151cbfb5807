"""Body: how a user's function is called with what the store holds for it."""

import asyncio
import inspect
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from types import MappingProxyType
from typing import Any, cast

from pydantic import ConfigDict, validate_call

from orchestra.engine.blueprint import CONTEXT
from orchestra.engine.plan import StepInput
from orchestra.errors import EndedWithoutOutcome, TaskTimedOut, UnserialisableElements
from orchestra.model import template
from orchestra.model.record import ErrorInfo
from orchestra.model.retry import error_names
from orchestra.runtime.codec import decode
from orchestra.runtime.loop import elsewhere, wait
from orchestra.store.contract import Claimed

_LONGEST_MESSAGE, _LONGEST_TRACEBACK = 8000, 8000
_NO_CONTEXT: Mapping[str, object] = MappingProxyType({})
Find = Callable[[str], Callable[..., Any]]
_running: ContextVar[Claimed | None] = ContextVar("orchestra_running", default=None)
_raised: ContextVar[Exception | None] = ContextVar("orchestra_raised", default=None)


def running_step() -> Claimed | None:
    """Return the step whose body runs here, if one does."""
    return _running.get()


@contextmanager
def inside(claimed: Claimed) -> Generator[None]:
    """Mark this thread or coroutine as running a step."""
    token = _running.set(claimed)
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as error:
        if _ends_process(error):
            raise
        raise EndedWithoutOutcome(claimed.name, repr(error)) from error
    except Exception as error:
        _raised.set(error)
        raise
    finally:
        _running.reset(token)


def _ends_process(error: BaseException) -> bool:
    """Whether the process was told to end while a body ran, rather than the body calling ``sys.exit()``."""
    if threading.current_thread() is not threading.main_thread():
        return False
    # Celery's own kinds, Ctrl-C, and the negative status with which a pool child answers a signal.
    by_signal = isinstance(error, SystemExit) and isinstance(error.code, int) and error.code < 0
    return type(error) is not SystemExit or by_signal


def arguments(claimed: Claimed, find: Find) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of a step: its templates, filled with the outputs they name.

    Args:
        find: Returns the function of a path, for the values of a job's context that are found out now.
    """
    given = StepInput.from_json(claimed.row.input)
    return fill(given, _outputs(claimed), claimed.predecessors, _context(given, find))


def _context(given: StepInput, find: Find) -> dict[str, object]:
    """Call the functions that the templates name, each once."""
    paths = template.markers([list(given.args), dict(given.kwargs), given.items], CONTEXT)
    return {name: call(find(str(path)), (), {}, None) for name, path in paths.items()}


def _outputs(claimed: Claimed) -> dict[int, Any]:
    """Return the outputs that a step's input is made of; those of steps that were not taken are None."""
    none: dict[int, Any] = dict.fromkeys(StepInput.from_json(claimed.row.input).needs())
    return {**none, **{n: decode(text) for n, text in claimed.outputs.items()}}


def fill(
    given: StepInput, outputs: Mapping[int, Any], names: Mapping[int, str], context: Mapping[str, object] = _NO_CONTEXT
) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments that templates come to. ``names`` are those of the predecessors, by number."""
    args: list[Any] = [template.fill(each, outputs, context) for each in given.args]
    kwargs = {key: template.fill(each, outputs, context) for key, each in given.kwargs.items()}
    if given.from_predecessors:
        several = {names[n]: outputs[n] for n in sorted(names)}
        args.insert(0, several if given.from_predecessors > 1 else next(iter(several.values()), None))
    return args, kwargs


def elements(claimed: Claimed, find: Find) -> list[StepInput]:
    """Return the inputs of a map's parts: each element, then what the map gives to all.

    Raises:
        UnserialisableElements: What it maps over is no list.
    """
    given = StepInput.from_json(claimed.row.input)
    outputs, context = _outputs(claimed), _context(given, find)
    items = template.fill(given.items, outputs, context)
    if not isinstance(items, list):
        raise UnserialisableElements(claimed.name, type(items).__name__)
    rest = [template.encode(template.fill(each, outputs, context), _nothing) for each in given.args]
    kwargs = {
        key: template.encode(template.fill(each, outputs, context), _nothing) for key, each in given.kwargs.items()
    }
    return [StepInput([template.encode(item, _nothing), *rest], kwargs) for item in cast(list[object], items)]


def _nothing(_value: object) -> None:
    return None


def call(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], timeout_s: float | None) -> Any:
    """Call a function, plain or async, with its arguments checked against its annotations.

    What a generator yields becomes a list. A coroutine is cancelled when it runs longer than ``timeout_s``; a plain
    function cannot be, from inside.
    """
    annotated = inspect.isfunction(function) and getattr(function, "__annotations__", None)
    called = _checked(function) if annotated else function
    is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    # A plain function may take its time; a coroutine function only makes a coroutine.
    result = called(*args, **kwargs) if is_async else elsewhere(lambda: _listed(called(*args, **kwargs)))
    if inspect.isawaitable(result):
        return wait(_awaited(result, timeout_s))
    return wait(_awaited(_collected(result), timeout_s)) if inspect.isasyncgen(result) else result


def _listed(result: Any) -> Any:
    return list(cast(Iterator[Any], result)) if inspect.isgenerator(result) else result


async def _awaited(result: Awaitable[Any], timeout_s: float | None) -> Any:
    limit = asyncio.timeout(timeout_s)
    try:
        async with limit:
            return await result
    except TimeoutError:
        # A body may raise one of its own, which says nothing about this limit.
        step = _running.get()
        if timeout_s is None or step is None or not limit.expired():
            raise
        raise TaskTimedOut(step.name, timeout_s) from None


async def _collected(results: AsyncIterator[Any]) -> list[Any]:
    return [each async for each in results]


@lru_cache(maxsize=1024)
def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with pydantic's checks, or itself where its annotations mean nothing to pydantic."""
    config = ConfigDict(arbitrary_types_allowed=True)
    generates = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    checks_result = "return" in function.__annotations__ and not generates
    try:
        return validate_call(config=config, validate_return=checks_result)(function)
    except Exception:  # whatever evaluating an annotation raises: the function is called as Python would
        return function


def error_info(error: BaseException) -> ErrorInfo:
    """Return what the store keeps of an exception: text that it can hold, whatever the exception is like."""
    error = _as_raised(error)
    lines = _utf8("".join(traceback.format_exception(error)))
    try:
        message = _utf8(str(error))
    except Exception as failure:
        message = f"<its text cannot be shown: {type(failure).__name__}>"
    return ErrorInfo(
        type(error).__name__,
        message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}…",
        lines if len(lines) <= _LONGEST_TRACEBACK else f"…{lines[-_LONGEST_TRACEBACK:]}",
        tuple(error_names(error)),
    )


def _as_raised(error: BaseException) -> BaseException:
    """Return what the body raised: Celery puts something else in the place of what pickle cannot carry."""
    raised = _raised.get()
    _raised.set(None)
    # The replacement is given the traceback of what it stands for.
    return raised if raised is not None and raised.__traceback__ is error.__traceback__ else error


def _utf8(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
