"""The scripted model: says what a test wrote down, and calls no network.

    MODEL = ScriptedModel(Calls(("lookup", {"id": 7})), "It is shipped.")
    agent("You answer customers", model=MODEL, tools=[lookup])

An agent that travels to workers names it: ``model="script:tests.models:MODEL"``.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pydantic import BaseModel
from pydantic_ai.messages import ModelMessage, ModelResponse, ModelResponsePart, TextPart, ToolCallPart, UserPromptPart
from pydantic_ai.models import StreamedResponse
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel
from pydantic_ai.usage import RequestUsage


@dataclass(frozen=True)
class Calls:
    """An answer that calls tools: pairs of a name and its arguments."""

    calls: tuple[tuple[str, dict[str, Any]], ...]

    def __init__(self, *calls: tuple[str, dict[str, Any]]) -> None:
        object.__setattr__(self, "calls", calls)


class ScriptedModel(FunctionModel):
    """Gives its answers in order; which one is next is read from the conversation, so a run that goes on goes on.

    Args:
        answers: Text, ``Calls``, a value for a structured output, an exception to raise, or a function that makes one
            of these of the prompt.
        cost: Price of each request in US dollars.
        asked: Called at each request that is really made, with its number from 1.
    """

    def __init__(
        self, *answers: object, cost: str | None = None, asked: Callable[[int], object] = lambda _number: None
    ) -> None:
        self._answers, self._price, self._asked = answers, None if cost is None else Decimal(cost), asked
        super().__init__(self._answer, stream_function=self._words, model_name="scripted")

    async def _words(self, messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
        """Give the answer word by word."""
        answer = await self._answer(messages, info)
        for index, part in enumerate(answer.parts):
            if isinstance(part, TextPart):
                for word in re.findall(r"\s*\S+\s*$|\s*\S+", part.content):
                    yield word
            elif isinstance(part, ToolCallPart):
                yield {index: DeltaToolCall(part.tool_name, part.args_as_json_str())}

    @asynccontextmanager
    async def request_stream(self, *args: Any, **kwargs: Any) -> AsyncGenerator[StreamedResponse]:
        """Answer word by word, at the same price."""
        async with super().request_stream(*args, **kwargs) as streamed:
            streamed.usage.cost = self._price
            yield streamed

    async def _answer(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        given = sum(isinstance(each, ModelResponse) for each in messages)
        if given >= len(self._answers):
            raise AssertionError(f"the script has {len(self._answers)} answers, and this is request {given + 1}")
        self._asked(given + 1)
        answer = self._answers[given]
        if callable(answer):
            answer = answer(_prompt(messages))
        if isinstance(answer, Exception):
            raise answer
        usage = RequestUsage(input_tokens=10, output_tokens=5, cost=self._price)
        return ModelResponse(parts=_parts(answer, info), usage=usage)


def _prompt(messages: list[ModelMessage]) -> str:
    parts = [part for message in messages for part in message.parts if isinstance(part, UserPromptPart)]
    return str(parts[-1].content) if parts else ""


def _parts(answer: object, info: AgentInfo) -> list[ModelResponsePart]:
    match answer:
        case str():
            return [TextPart(answer)]
        case Calls(calls):
            return [ToolCallPart(name, args) for name, args in calls]
        case BaseModel():
            return [ToolCallPart(info.output_tools[0].name, answer.model_dump(mode="json"))]
        case _:
            return [ToolCallPart(info.output_tools[0].name, {"response": answer})]
