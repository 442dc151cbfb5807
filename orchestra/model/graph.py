"""Graphs: what a workflow lowers to, whichever of the ways it was written in, and the builder behind ``@workflow``."""

import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NoReturn

from orchestra.errors import DefinitionError, InvalidOption, UntraceableInput
from orchestra.model import options, template
from orchestra.model.condition import check
from orchestra.model.options import Duration
from orchestra.model.retry import RetryPolicy, policy


@dataclass(frozen=True, slots=True)
class StepOptions:
    """How a step is to run. None means: as the run says, or the orchestrator's default."""

    priority: int | None = None
    queue: str | None = None
    retry: RetryPolicy | None = None
    timeout_s: float | None = None
    fallback: object = None
    """What is called instead, with the same input, when the step has failed for good."""
    max_rounds: int | None = None
    """How deep sub-workflows that it returns may nest: the bound of a loop."""

    @classmethod
    def of(
        cls,
        priority: int | None = None,
        queue: str | None = None,
        retry: RetryPolicy | int | None = None,
        timeout: Duration | None = None,
        fallback: object = None,
        max_rounds: int | None = None,
    ) -> "StepOptions":
        """Check what a user gave."""
        return cls(
            None if priority is None else options.priority(priority),
            None if queue is None else options.queue(queue),
            None if retry is None else policy(retry),
            options.timeout(timeout),
            options.fallback(fallback),
            None if max_rounds is None else options.at_least_one("max_rounds", max_rounds),
        )

    def over(self, base: "StepOptions") -> "StepOptions":
        """Return these options, with ``base`` where nothing is said."""
        return StepOptions(
            base.priority if self.priority is None else self.priority,
            base.queue if self.queue is None else self.queue,
            base.retry if self.retry is None else self.retry,
            base.timeout_s if self.timeout_s is None else self.timeout_s,
            base.fallback if self.fallback is None else self.fallback,
            base.max_rounds if self.max_rounds is None else self.max_rounds,
        )


@dataclass(frozen=True, slots=True)
class Mapped:
    """What makes a step a map: it runs its agent once per element of a list known only at run time.

    Each element is the first positional argument of its part, before the step's own.
    """

    items: object
    """Template of the list."""
    max_parallel: int | None = None


@dataclass(frozen=True, slots=True)
class GraphStep:
    """One step as written. ``args`` and ``kwargs`` are templates whose keys are positions in the graph."""

    key: str
    name: str
    agent: object
    args: Sequence[object]
    kwargs: Mapping[str, object]
    after: frozenset[int]
    """Positions of all predecessors."""
    options: StepOptions = StepOptions()
    metadata: Mapping[str, object] = field(default_factory=dict[str, object])
    mapped: Mapped | None = None
    from_predecessors: bool = False
    """Whether the input is the output of the one predecessor, or a dict of outputs by name for several."""
    whens: Mapping[int, str] = field(default_factory=dict[int, str])
    """Conditions on edges, by the position of the predecessor whose output they are about."""
    any: bool = False
    """Whether it runs on the first way taken, rather than when every predecessor has ended."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A workflow, lowered: steps that name their predecessors by position, and the template of the run's output."""

    id: str
    name: str
    steps: Sequence[GraphStep]
    result: object = None
    """None: the output of the last step, or a dict by name when several are last."""
    on_failure: str = "fail"
    """``fail``: the first failure ends the run; ``continue``: what does not depend on it goes on."""


ON_FAILURE = ("fail", "continue")


def check_on_failure(value: str) -> str:
    """Return it, or raise InvalidOption."""
    if value not in ON_FAILURE:
        raise InvalidOption("on_failure", value, "'fail' or 'continue'")
    return value


def identity(value: object) -> object:
    """Return the value: the body of steps that only gather or pass on."""
    return value


class StepHandle:
    """What calling a task inside an ``@workflow`` function gives: stands for the output that the step will have.

    It may be passed to other tasks, alone or inside lists and dicts, and returned. Its value exists only when the
    workflow runs, so anything that would look at it is refused.
    """

    __slots__ = ("_builder", "name", "position")

    def __init__(self, builder: "Builder", position: int, name: str) -> None:
        self._builder, self.position, self.name = builder, position, name

    def after(self, *others: "StepHandle", when: str | None = None) -> "StepHandle":
        """Run this step only when the others are done, though it may take none of their outputs.

        ``when`` is a condition on the output of each: ``answer(ticket).after(kind, when="output == 'technical'")``.
        """
        self._builder.order(self, others, when)
        return self

    def on_any(self) -> "StepHandle":
        """Run this step on the first way taken into it, rather than when every predecessor has ended."""
        self._builder.change(self.position, any=True)
        return self

    def __repr__(self) -> str:
        return f"<step {self.name!r}>"

    def _refuse(self, *_args: object) -> NoReturn:
        raise UntraceableInput(self.name, "its value was looked at while the workflow was built")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)  # libraries ask for these, and take no for an answer
        self._refuse()

    def __eq__(self, other: object) -> bool:
        return self is other if isinstance(other, StepHandle) else self._refuse()

    __hash__ = object.__hash__
    __str__ = __bool__ = __len__ = __iter__ = __getitem__ = __contains__ = __add__ = __radd__ = _refuse  # type: ignore[assignment]
    __lt__ = __le__ = __gt__ = __ge__ = __int__ = __float__ = __call__ = _refuse
    __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __floordiv__ = __mod__ = __neg__ = _refuse

    def __format__(self, _spec: str) -> str:
        self._refuse()


class Builder:
    """Collects the steps of one ``@workflow`` function while it runs."""

    def __init__(self) -> None:
        self._steps: list[GraphStep] = []
        self._used: dict[str, int] = {}

    def call(
        self,
        name: str,
        agent: object,
        args: Sequence[object],
        kwargs: Mapping[str, object],
        step_options: StepOptions,
        mapped: tuple[object, int | None] | None = None,
    ) -> StepHandle:
        """Add a step and return its handle. ``mapped`` is the list to map over and how many parts may run at once."""
        filled_args = [template.encode(each, self._position) for each in args]
        filled_kwargs = {key: template.encode(value, self._position) for key, value in kwargs.items()}
        over = None if mapped is None else self._mapped(*mapped)
        refs = template.references([filled_args, filled_kwargs, over.items if over else None])
        unique = self._unique(name)
        position = len(self._steps)
        step = GraphStep(unique, unique, agent, filled_args, filled_kwargs, frozenset(refs), step_options, {}, over)
        self._steps.append(step)
        return StepHandle(self, position, unique)

    def _mapped(self, items: object, max_parallel: int | None) -> Mapped:
        encoded = template.encode(items, self._position)
        if not isinstance(encoded, list) and not isinstance(items, StepHandle):
            raise InvalidOption("map", items, "a list, or a step whose output is one")
        return Mapped(encoded, max_parallel)

    def order(self, step: StepHandle, others: Sequence[StepHandle], when: str | None) -> None:
        """Add predecessors, or a condition on the edges from them."""
        before = self._steps[step.position]
        positions = {other.position for other in others}
        if any(position >= step.position for position in positions):
            raise InvalidOption("after", [each.name for each in others], f"steps called before {step.name!r}")
        whens = {} if when is None else dict.fromkeys(positions, check(when))
        self.change(step.position, after=before.after | positions, whens={**before.whens, **whens})

    def change(self, position: int, **fields: Any) -> None:
        """Change a step that was added before."""
        self._steps[position] = replace(self._steps[position], **fields)

    def graph(self, id: str, name: str, returned: object, on_failure: str) -> Graph:
        """Finish: what the function returned says what the run's output is."""
        if not self._steps:
            raise DefinitionError(f"workflow {name!r} has no steps: it must call at least one @task")
        result = None if returned is None else template.encode(returned, self._position)
        return Graph(id, name, tuple(self._steps), result, on_failure)

    def _position(self, value: object) -> int | None:
        if not isinstance(value, StepHandle):
            return None
        if value._builder is not self:  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            raise InvalidOption("argument", value, "a step of the workflow that is being built")
        return value.position

    def _unique(self, name: str) -> str:
        count = self._used.get(name, 0) + 1
        self._used[name] = count
        return name if count == 1 else self._unique(f"{name}-{count}")


_building: ContextVar[Builder | None] = ContextVar("orchestra_building", default=None)


def current_builder() -> Builder | None:
    """Return the builder of the ``@workflow`` function that is running now, if one is."""
    return _building.get()


@contextmanager
def building() -> Generator[Builder]:
    """Make calls of tasks add steps instead of running."""
    builder = Builder()
    token = _building.set(builder)
    try:
        yield builder
    finally:
        _building.reset(token)


def takes_input(agent: object) -> bool:
    """Whether an agent has parameters: one without gets neither the run's input nor its predecessors' outputs."""
    if not callable(agent):
        return True
    try:
        return _has_parameters(agent)
    except TypeError:
        return _has_parameters.__wrapped__(agent)  # it has no hash


@lru_cache(maxsize=1024)
def _has_parameters(function: Callable[..., object]) -> bool:
    try:
        return bool(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return True  # a built-in that does not tell


def display_name(agent: object) -> str:
    """Return what to call an agent when no name was given."""
    name = agent if isinstance(agent, str) else getattr(agent, "name", None) or getattr(agent, "__name__", None)
    return (name if isinstance(name, str) and name else type(agent).__name__)[: options.LONGEST_NAME]
