"""Agents with a life of their own: a configuration that is checked, and prep → exec → post around what they do.

    class Triage(Agent):
        class Config(AgentConfig):
            threshold: float = 0.5

        def exec(self, prepared):
            return score(prepared)

        def post(self, context, prepared, result):
            return Next("escalate", result) if result > self.config.threshold else result

An instance is a task like any other: ``orch.submit(Triage(threshold=0.8), ticket)``.
"""

import inspect
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, NamedTuple, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestra.errors import InvalidConfig
from orchestra.model.current import Current, current, in_step
from orchestra.model.graph import StepOptions, current_builder
from orchestra.runtime.loop import in_coroutine, wait
from orchestra.runtime.registry import AGENT, importable

_CONVERSATION = "conversation"


class Severity(StrEnum):
    """How bad something about a configuration is."""

    ERROR = "ERROR"
    """The agent cannot be made."""
    WARNING = "WARNING"
    """It can, and is told so in its log."""
    INFO = "INFO"


class Problem(NamedTuple):
    """Something about a configuration that its author should know."""

    severity: Severity
    field: str
    text: str


class AgentConfig(BaseModel):
    """What an agent can be told. A subclass adds fields, whose defaults hold where nothing else is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    remember: int = 0
    """How many earlier exchanges of a conversation it knows."""

    def problems(self) -> Iterable[Problem]:
        """Return what types and bounds cannot say. A subclass overrides it."""
        return ()


class Exchange(NamedTuple):
    """What was said to an agent in a conversation, and what it came to. JSON values."""

    input: Any
    output: Any


@dataclass(slots=True)
class Context:
    """What belongs to one run of an agent: made for it, and gone with it."""

    input: Any
    step: Current | None
    """The step that runs it; None where it is called like a function."""
    history: tuple[Exchange, ...] = ()
    """The newest ``config.remember`` exchanges of the conversation before this one, oldest first."""
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    """For what ``prep``, ``exec`` and ``post`` want to tell each other."""


class Next(NamedTuple):
    """What ``post`` returns to name the edge to follow: one whose condition is ``output.edge == '…'``."""

    edge: str
    output: Any = None


class Agent:
    """The base class. Override ``exec``, and ``prep`` and ``post`` where needed; each may be ``async``.

    Args:
        config: The configuration.
        overrides: Fields in the place of the configuration's, or of the defaults.

    Raises:
        InvalidConfig: The configuration has errors; ``problems`` has all of them.
    """

    Config: ClassVar[type[AgentConfig]] = AgentConfig

    def __init__(self, config: AgentConfig | None = None, **overrides: Any) -> None:
        given = {} if config is None else config.model_dump(exclude_unset=True)
        self.config, self.problems = self._checked({**given, **overrides})

    @classmethod
    def validate(cls, **fields: Any) -> list[Problem]:
        """Return all problems of a configuration, the worst first, without making an agent."""
        try:
            return cls._checked(fields)[1]
        except InvalidConfig as error:
            return [Problem(Severity(severity), name, text) for severity, name, text in error.problems]

    @property
    def name(self) -> str:
        """What it is called in listings, and remembers conversations under."""
        return type(self).__name__

    def prep(self, context: Context) -> Any:
        """Return what ``exec`` is to work on; default the input."""
        return context.input

    def exec(self, prepared: Any) -> Any:
        """Do the work."""
        raise NotImplementedError(f"{type(self).__name__} has no exec()")

    def post(self, context: Context, prepared: Any, result: Any) -> Any:
        """Return the output, or ``Next(edge, output)``; default the result."""
        return result

    def __call__(self, input: Any = None) -> Any:
        """Run it; in a coroutine it has to be awaited. In an ``@workflow`` it is a step."""
        builder = current_builder()
        if builder is not None:
            return builder.call(self.name, self, [input], {}, StepOptions())
        return self.run(input) if in_coroutine() else wait(self.run(input))

    async def run(self, input: Any = None) -> Any:
        """Run it: prep, exec, post. What it came to is remembered where a conversation is named."""
        step = current() if in_step() else None
        for each in self.problems if step is not None else ():
            cast(Current, step).logger.warning("%s: %s: %s", self.name, each.field, each.text)
        context = Context(input, step, self._history(step))
        prepared = await _value(self.prep(context))
        result = await _value(self.exec(prepared))
        output = await _value(self.post(context, prepared, result))
        said = output.output if isinstance(output, Next) else output
        if step is not None and self.config.remember and _CONVERSATION in step.metadata:
            step.checkpoint.save([input, said], self._memory)
        return {"edge": output.edge, "output": output.output} if isinstance(output, Next) else output

    @property
    def _memory(self) -> str:
        return f"memory/{self.name}"

    def _history(self, step: Current | None) -> tuple[Exchange, ...]:
        if step is None or not self.config.remember or _CONVERSATION not in step.metadata:
            return ()
        where = {_CONVERSATION: step.metadata[_CONVERSATION]}
        found = cast(list[list[Any]], step.earlier(where, self._memory, self.config.remember))
        return tuple(Exchange(*each) for each in found)

    @classmethod
    def _checked(cls, fields: Mapping[str, Any]) -> tuple[AgentConfig, list[Problem]]:
        try:
            config = cls.Config(**fields)
        except ValidationError as error:
            found = [Problem(Severity.ERROR, ".".join(map(str, each["loc"])), each["msg"]) for each in error.errors()]
            raise InvalidConfig(cls.__name__, found) from None
        order = list(Severity)
        problems = sorted(config.problems(), key=lambda each: order.index(each.severity))
        if problems and problems[0].severity is Severity.ERROR:
            raise InvalidConfig(cls.__name__, problems)
        return config, problems

    def as_path(self) -> tuple[str, str | None]:
        """Return how a worker finds it, and why it would not, if it would not."""
        path, problem = importable(type(self))
        data = {"class": path, "config": self.config.model_dump(mode="json", exclude_unset=True)}
        return AGENT + json.dumps(data, sort_keys=True), problem

    def __repr__(self) -> str:
        return f"<agent {self.name!r}>"


async def _value(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
