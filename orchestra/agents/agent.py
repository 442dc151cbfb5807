"""Agents: ``agent("You are …")`` is a function that a model answers, and data that travels."""

import functools
import importlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SerializerFunctionWrapHandler, model_serializer

from orchestra import settings
from orchestra.agents import offline
from orchestra.agents.journal import journal
from orchestra.errors import CannotTravel, InvalidOption, NoModelConfigured
from orchestra.model import options
from orchestra.model.current import current, in_step
from orchestra.model.graph import StepOptions, current_builder
from orchestra.runtime.loop import in_coroutine, wait
from orchestra.runtime.registry import AGENT, current_registry

_LONGEST_DEFAULT_NAME = 40
_local: dict[str, Any] = {}
"""What only this process can find, for agents that went on their way as data and come back within it."""
_TYPES = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict}


class McpServer(BaseModel):
    """A server whose tools an agent may use: ``url`` of one that runs, or ``command`` of one to start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str | None = None
    command: tuple[str, ...] = ()


class LlmAgent(BaseModel):
    """What ``agent(…)`` makes. Called, it answers; it can be a task, a step of an ``@workflow``, and another's tool.

    In a coroutine the call has to be awaited. Inside a step, each model request and tool call is kept as a checkpoint
    before it is used: a step that is run again after a crash goes on from the last one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    instructions: str
    name: str
    model: str | None = None
    tools: tuple["str | LlmAgent | McpServer", ...] = ()
    """Paths of functions (``module:name``), other agents, and MCP servers."""
    output: str = "str"
    """Path of the type of its answers."""
    retries: int = 1
    settings: Mapping[str, Any] = Field(default_factory=dict[str, Any])
    limits: Mapping[str, Any] = Field(default_factory=dict[str, Any])
    stream: bool = False
    """Whether its answers can be followed while the model writes them."""

    _objects: dict[str, Any] = PrivateAttr(default_factory=dict[str, Any])
    """What only this process can find, by its path."""

    def __call__(self, prompt: object) -> Any:
        """Return the answer to a prompt: text, or data, which is shown to the model as JSON.

        Raises:
            NoModelConfigured: No model is set, and this is a worker of its own.
            ModelBusy: The model asks to wait; a step is tried again then.
        """
        builder = current_builder()
        if builder is not None:
            return builder.call(self.name, self, [prompt], {}, StepOptions())
        return self.run(prompt) if in_coroutine() else wait(self.run(prompt))

    async def run(self, prompt: object) -> Any:
        """Return the answer to a prompt."""
        return await self.ask(prompt)

    async def ask(
        self, prompt: object, output_type: Any = None, offline_answer: Any = None, place: str | None = None
    ) -> Any:
        """Return the answer to a prompt.

        Args:
            output_type: Type of this answer, in the place of the agent's own.
            offline_answer: What the offline model says, where it should know better than to make something up.
            place: Where in the step's journal its calls stand; default the next run of the agent's name.
        """
        wanted = self.output_type if output_type is None else output_type
        text = prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False, default=str)
        name = self.model_name()
        if name == offline.OFFLINE:
            answer = offline.answer(self.name, text, wanted) if offline_answer is None else offline_answer
            if self.stream and isinstance(answer, str) and in_step():
                current().say(answer, self.name)
            return answer
        from orchestra.agents import llm  # pydantic-ai takes a second to import, and the offline model needs none

        kept = journal()
        return await llm.ask(self, name, text, wanted, kept, place or kept.place(self.name))

    @property
    def output_type(self) -> Any:
        """The type of its answers."""
        return _TYPES.get(self.output) or self.find(self.output)

    def model_name(self) -> str:
        """Return which model answers: its own, that of the settings, or embedded the offline one."""
        configured = settings.load()
        name = self.model or configured.model
        if name is None:
            registry = current_registry()
            if not configured.embedded if registry is None else registry.travels:
                raise NoModelConfigured(self.name)
        return name or offline.OFFLINE

    def find(self, path: str) -> Any:
        """Return the object of a path: in a step, only what the worker may call."""
        local = self._objects.get(path, _local.get(path))
        if local is not None:
            return local
        registry = current_registry()
        if registry is not None:
            return registry.find(path)
        module, _, qualname = path.partition(":")
        return functools.reduce(getattr, qualname.split("."), importlib.import_module(module))

    def with_objects(self, objects: Mapping[str, Any]) -> "LlmAgent":
        """Return it, and let it know what only this process can find."""
        self._objects.update(objects)
        return self

    @model_serializer(mode="wrap")
    def _as_data(self, handler: SerializerFunctionWrapHandler) -> Any:
        _local.update(self._objects)
        return handler(self)

    def as_path(self) -> tuple[str, str | None]:
        """Return how a worker finds it, and why it would not, if it would not."""
        local = [path for each in self.family() for path in each._objects]  # noqa: SLF001
        problem = f"its {local[0]!r} cannot be imported" if local else None
        return AGENT + self.model_dump_json(exclude_defaults=True), problem

    def __reduce__(self) -> tuple[object, ...]:
        path, problem = self.as_path()
        if problem is not None:
            raise CannotTravel(self.name, problem)
        return load, (path,)

    def __hash__(self) -> int:
        return hash(self.as_path()[0])

    def __repr__(self) -> str:
        return f"<agent {self.name!r}>"

    def family(self) -> list["LlmAgent"]:
        """Return it and the agents that it asks, and those that they ask."""
        return [self, *(inner for each in self.tools if isinstance(each, LlmAgent) for inner in each.family())]


def agent(
    instructions: str,
    *,
    name: str | None = None,
    model: Any = None,
    tools: Sequence[Callable[..., Any] | LlmAgent | McpServer] = (),
    output_type: Any = str,
    retries: int = 1,
    settings: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
    stream: bool = False,
) -> LlmAgent:
    """Return an agent: something to call with a prompt, which a model answers by these instructions.

    Args:
        instructions: Who it is and what it is to do.
        name: Default the beginning of its instructions.
        model: ``openai:…``, ``anthropic:…`` as pydantic-ai has it, ``http://host/v1#model`` for a server that speaks
            as OpenAI's does, ``offline``, or a pydantic-ai model; default that of the settings,
            embedded else ``offline``.
        tools: Typed functions, other agents, MCP servers.
        output_type: Type of its answers: str, or one that pydantic knows, by its name in a module.
        retries: How often the model may correct an answer or a tool call that is not valid.
        settings: Of the model: ``temperature``, ``max_tokens`` …
        limits: Of one run: ``request_limit``, ``tool_calls_limit``, ``total_tokens_limit``, ``cost_limit`` …
        stream: Let the model stream, so that its answers in a step can be followed (``task.stream()``).

    Raises:
        InvalidOption: An option has a value that it cannot have.
    """
    if not isinstance(instructions, str) or not instructions.strip():  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidOption("instructions", instructions, "text that says what the agent is to do")
    objects: dict[str, Any] = {}
    if model is not None and not isinstance(model, str):
        model = f"script:{_path(model, objects)}"
    made = LlmAgent(
        instructions=instructions,
        name=_default_name(instructions) if name is None else options.text("name", name),
        model=model,
        tools=tuple(each if isinstance(each, LlmAgent | McpServer) else _path(each, objects) for each in tools),
        output=output_type.__name__ if output_type in _TYPES.values() else _path(output_type, objects),
        retries=retries,
        settings=dict(settings or {}),
        limits=dict(limits or {}),
        stream=stream,
    )
    return made.with_objects(objects)


def load(path: str, find: Callable[[str], Any] | None = None) -> Any:
    """Return the agent of a path that ``as_path`` made.

    Args:
        find: Returns the class of a path, for agents that have one of their own.
    """
    data = json.loads(path.removeprefix(AGENT))
    if find is not None and "class" in data:
        return find(data["class"])(**data["config"])
    return LlmAgent.model_validate(data)


def _default_name(instructions: str) -> str:
    words = re.sub(r"^you are (an? |the )?", "", " ".join(instructions.split()), flags=re.IGNORECASE)
    return words[:_LONGEST_DEFAULT_NAME].strip() or "agent"


def _path(thing: Any, objects: dict[str, Any]) -> str:
    module, qualname = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    path = f"{module}:{qualname or repr(thing)}"
    if module in (None, "__main__") or qualname is None or "<" in qualname:
        path = f"{path}@{id(thing):x}"
        objects[path] = thing
    return path
