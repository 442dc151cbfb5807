"""Following: gives what a model answers, while it answers, to those who follow the step."""

from collections.abc import AsyncIterable
from typing import Any

from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta

from orchestra.model.current import Current


class Following(AbstractCapability[Any]):
    """Makes the model stream. A request that is read from the journal says nothing again.

    Args:
        step: What hears the text.
        place: Names the run in its step.
    """

    def __init__(self, step: Current, place: str) -> None:
        self._step, self._place = step, place

    async def wrap_run_event_stream(self, ctx: Any, *, stream: AsyncIterable[Any]) -> AsyncIterable[Any]:
        """Pass events on, and say the text in them."""
        async for event in stream:
            if text := _text(event):
                self._step.say(text, f"{self._place}/model.{ctx.run_step}")
            yield event


def _text(event: Any) -> str:
    match event:
        case PartStartEvent(part=TextPart(content=text)):
            return text
        case PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
            return text
        case _:
            return ""
