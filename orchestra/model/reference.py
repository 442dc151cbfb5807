"""References: what stands for the output of a step while an input is being built, before any step has run.

A reference is text to Python's own formatting, so that f-strings, ``+``, ``%``, ``format`` and ``join`` accept it and
leave its token in what they make. Whatever would look at the text instead is refused, since the text is not the output.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NoReturn, TypeAlias

from orchestra.errors import UntraceableInput

Key: TypeAlias = int | str
"""What names a step in a template: its position in the workflow, or its name until names are resolved."""

KeyOf: TypeAlias = Callable[[object], Key | None]
"""Says which step an object stands for; None when it stands for none. It must accept any object."""


class TracedText(str):
    """Text that holds tokens of outputs: it can be placed into other text, and nothing else."""

    __slots__ = ("step",)
    step: str
    """Name of a step whose output is in the text."""

    def __new__(cls, text: str, step: str) -> "TracedText":
        self = super().__new__(cls, text)
        object.__setattr__(self, "step", step)
        return self

    def __str__(self) -> "TracedText":
        return TracedText(str.__str__(self), _own_step(self))

    def __format__(self, format_spec: str) -> "TracedText":
        return str(self) if not format_spec else _refuse(self, f"the format {format_spec!r} was applied to it")  # pyright: ignore[reportReturnType] — as __str__ does

    def __repr__(self) -> str:
        if current_trace() is not None:
            _refuse(self, "repr() or !r was applied to it")
        return f"<output of {self.step!r}>"

    def __add__(self, value: str, /) -> "TracedText":
        return _joined(self, self, value)

    def __radd__(self, value: str, /) -> "TracedText":
        return _joined(self, value, self)

    def __rmod__(self, value: str, /) -> "TracedText":
        if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance] — Python passes whatever stands there
            _refuse(self, "arithmetic (%) was applied to it")
        return TracedText(str.__mod__(value, str(self)), _own_step(self))

    def __getattribute__(self, name: str) -> object:
        # While a trace is on every name is refused, ours too: the real output may have an attribute called ``step``.
        # isinstance() asks for __class__, so conditions on the type are refused with it.
        if current_trace() is None and (name in _OWN or name.startswith("__")):
            return object.__getattribute__(self, name)
        return _refuse(self, f"its attribute .{name} was used")


class Reference(TracedText):
    """The whole output of one step. Alone it stands for the value with its type; within text, for ``str(value)``.

    Args:
        target: The step, or an opaque key of it.
        token: Text that no input holds by itself; what finds the reference again inside text.
    """

    __slots__ = ("target",)
    target: object

    def __new__(cls, target: object, token: str) -> "Reference":
        self = str.__new__(cls, token)
        object.__setattr__(self, "target", target)
        object.__setattr__(self, "step", step_name(target))
        return self

    @property
    def token(self) -> str:
        """The token, as plain text."""
        return str.__str__(self)


class Trace:
    """One building of an input: which outputs were read, and what was refused.

    Args:
        key_of: Says which objects are steps of the workflow.
        token: Makes the token of the n-th output that is read.
    """

    def __init__(self, key_of: KeyOf, token: Callable[[int], str]) -> None:
        self._key_of, self._token = key_of, token
        self.read: dict[Key, Reference] = {}
        """The outputs that were read, in order, by the keys of their steps."""
        self.refusals: list[UntraceableInput] = []
        """What was refused; kept because the code that built the input may have caught it."""

    def reference(self, target: object) -> Reference | None:
        """Return what stands for the output of ``target``, or None when it is no step of this workflow."""
        key = self._key_of(target)
        if key is None:
            return None
        if key not in self.read:
            self.read[key] = Reference(target, self._token(len(self.read)))
        return self.read[key]


_trace: ContextVar[Trace | None] = ContextVar("orchestra_trace", default=None)


def current_trace() -> Trace | None:
    """Return the trace that is on in this thread or coroutine, if one is."""
    return _trace.get()


def current(target: object) -> Reference | None:
    """Return the reference to the output of ``target`` if a trace is on and it is a step of the workflow traced."""
    trace = current_trace()
    return None if trace is None else trace.reference(target)


@contextmanager
def tracing(trace: Trace) -> Generator[Trace]:
    """Make ``Task.output`` give references, for as long as the block runs."""
    before = _trace.set(trace)
    try:
        yield trace
    finally:
        _trace.reset(before)


def step_name(target: object) -> str:
    """Return what to call a step in errors: its ``name`` if it has one."""
    name = getattr(target, "name", None)
    return name if isinstance(name, str) and name else str(target)


_OWN = frozenset({"step", "target", "token"})

_REFUSED = {
    "len() was applied to it": "__len__",
    "it was indexed or sliced": "__getitem__",
    "it was iterated or unpacked": "__iter__ __reversed__",
    "`in` was applied to it": "__contains__",
    "it was compared": "__eq__ __ne__ __lt__ __le__ __gt__ __ge__",
    "it was used as a condition": "__bool__",
    "it was used as a dict key or in a set": "__hash__",
    "it was changed": "__setattr__ __delattr__ __setitem__ __delitem__",
    "it was converted to a number": "__int__ __float__ __complex__ __index__",
    "it was converted to bytes": "__bytes__",
    "arithmetic was applied to it": (
        "__neg__ __pos__ __abs__ __invert__ __round__ __trunc__ __floor__ __ceil__ __mod__ __mul__ __rmul__"
        " __sub__ __rsub__ __truediv__ __rtruediv__ __floordiv__ __rfloordiv__ __divmod__ __rdivmod__ __pow__ __rpow__"
        " __matmul__ __rmatmul__ __lshift__ __rlshift__ __rshift__ __rrshift__"
        " __and__ __rand__ __or__ __ror__ __xor__ __rxor__"
    ),
}


def _own_step(text: TracedText) -> str:
    return object.__getattribute__(text, "step")


def _joined(text: TracedText, left: object, right: object) -> TracedText:
    if not isinstance(left, str) or not isinstance(right, str):
        _refuse(text, "arithmetic (+) was applied to it")
    return TracedText(str.__add__(left, right), _own_step(text))


def _refuse(text: TracedText, seen: str) -> NoReturn:
    error = UntraceableInput(_own_step(text), seen)
    trace = current_trace()
    if trace is not None:
        trace.refusals.append(error)
    raise error


def _install_refusals() -> None:
    def refusal(seen: str) -> Callable[..., NoReturn]:
        def refused(self: TracedText, *_args: object) -> NoReturn:
            _refuse(self, seen)

        return refused

    for seen, names in _REFUSED.items():
        for name in names.split():
            setattr(TracedText, name, refusal(seen))


_install_refusals()
