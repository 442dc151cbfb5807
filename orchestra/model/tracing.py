"""Tracing: the template of an input that is written as a function, such as ``lambda: f"Analyze: {gather.output}"``.

The function runs twice, with tokens in the place of outputs. The first tokens are short and have no letters. The second
are long and hostile: white space at both ends, every printable character, both cases, and the texts that the function
mentions. Whatever handles text by its content or length (``strip``, ``replace``, ``ljust``, ``in``, ``json.dumps``)
mangles one of them or tells them apart, and is refused. What remains places outputs into text; a template repeats that.

One thing goes unnoticed: a condition on text composed around an output that is the same for both tokens, such as
``f"a {x.output}" == "a b"``. On the output itself every condition is refused.
"""

import inspect
import json
import re
import secrets
import string
from collections.abc import Callable, Iterator
from types import CodeType

from orchestra.errors import DefinitionError, UntraceableInput
from orchestra.model.reference import KeyOf, Trace, tracing
from orchestra.model.template import Json, encode, fill, references

_CASED = "ÄäİıǅßΣς\u0301\u2028"
_LONGEST_CONSTANT = 64
_MOST_CONSTANTS = 100
_SHOWN = 160


def trace_template(function: Callable[[], object], key_of: KeyOf) -> Json:
    """Return the template of what a function of no arguments returns. The function is called twice.

    Args:
        function: Builds the input; reads outputs through ``current_trace()``.
        key_of: Says which objects are steps of the workflow, as for ``encode``.

    Raises:
        UntraceableInput: The function needs arguments, raised, looked at an output, read one that is not in what it
            returned, or returned different things in its two runs.
        UnserialisableInput: JSON cannot hold what it returned.
    """
    _check_signature(function)
    constants = "".join(_constants(getattr(function, "__code__", None)))
    terse, hostile = Trace(key_of, _terse_tokens()), Trace(key_of, _hostile_tokens(constants))
    template, again = _traced(function, terse, key_of), _traced(function, hostile, key_of)
    if json.dumps(template, sort_keys=True) != json.dumps(again, sort_keys=True):
        seen = f"two runs of the function gave different results, {_show(template, terse)} and {_show(again, hostile)}"
        raise UntraceableInput(_only_step(terse), seen)
    return template


def _traced(function: Callable[[], object], trace: Trace, key_of: KeyOf) -> Json:
    try:
        with tracing(trace):
            value = function()
    except DefinitionError:
        raise
    except Exception as error:
        if trace.refusals:
            raise trace.refusals[0] from error
        seen = f"the function raised {type(error).__name__}: {_shortened(_readable(str(error), trace))}"
        raise UntraceableInput(_only_step(trace), seen) from error
    if trace.refusals:
        raise trace.refusals[0]
    template = encode(value, key_of, read_text=lambda text: _read_text(text, trace))
    used = set(references(template))
    for key, reference in trace.read.items():
        if key not in used:
            seen = f"the function read it, but it is missing or changed in the result, {_show(template, trace)}"
            raise UntraceableInput(reference.step, seen)
    return template


def _read_text(text: str, trace: Trace) -> Json:
    """Return the template of a text in which tokens stand for outputs."""
    keys = {reference.token: key for key, reference in trace.read.items()}
    if not keys:
        return text
    pieces = re.split("(" + "|".join(re.escape(token) for token in keys) + ")", text)
    if len(pieces) == 1:
        return text
    return {"$text": [{"$ref": keys[piece]} if piece in keys else piece for piece in pieces if piece]}


def _check_signature(function: Callable[[], object]) -> None:
    if inspect.iscoroutinefunction(function):
        raise UntraceableInput(None, "the function is async; it must be a plain function, such as a lambda")
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise UntraceableInput(None, f"the function must need no arguments ({error})") from None
    except ValueError:
        return  # a built-in that does not tell; calling it will


def _terse_tokens() -> Callable[[int], str]:
    # Private-use characters of planes 15 and 16, with a random part: no text holds them by itself.
    before, after = _private(), _private()
    return lambda n: f"{before}{chr(0xF0000 + n)}{after}"


def _hostile_tokens(constants: str) -> Callable[[int], str]:
    inner = _terse_tokens()
    return lambda n: f" \n{inner(n)}{string.printable}{_CASED}{constants}{inner(n)}\n "


def _private() -> str:
    return chr(0x100000 + secrets.randbelow(0xFFFE))


def _constants(code: object) -> Iterator[str]:
    """Yield the short texts that the function mentions: what it may look for, or replace, in an output."""
    if not isinstance(code, CodeType):
        return
    for constant in code.co_consts[:_MOST_CONSTANTS]:
        if isinstance(constant, str) and len(constant) <= _LONGEST_CONSTANT:
            yield constant
        yield from _constants(constant)


def _only_step(trace: Trace) -> str | None:
    steps = [reference.step for reference in trace.read.values()]
    return steps[0] if len(steps) == 1 else None


def _show(template: Json, trace: Trace) -> str:
    # Keys are names until they are resolved; ``fill`` does not mind.
    outputs = {key: f"{{{reference.step}.output}}" for key, reference in trace.read.items()}
    return _shortened(repr(fill(template, outputs)))  # pyright: ignore[reportArgumentType]


def _readable(text: str, trace: Trace) -> str:
    for reference in trace.read.values():
        for written in (reference.token, repr(reference.token)[1:-1]):
            text = text.replace(written, f"{{{reference.step}.output}}")
    return text


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
