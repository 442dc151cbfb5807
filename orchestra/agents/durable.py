"""Durable: what makes the run of any pydantic-ai agent go on from its last call after a crash.

    Agent("openai:gpt-5", capabilities=[Durable()])

Inside a step of Orchestra each model request and each tool call is kept before it is used; elsewhere nothing changes.
"""

from typing import Any

from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import ModelMessagesTypeAdapter
from pydantic_core import to_jsonable_python

from orchestra.agents.journal import Journal, journal


class Durable(AbstractCapability[Any]):
    """Keeps the calls of one agent's runs as checkpoints of the step that they happen in.

    Args:
        place: Names the run in its step; default the agent's name and the run's number there.
    """

    def __init__(self, of: Journal | None = None, place: str | None = None) -> None:
        self._journal, self._place = of, place

    async def for_run(self, ctx: Any) -> "Durable":
        """Return the one of a run: its calls are counted from its beginning."""
        its = self._journal or journal()
        return _DurableRun(its, self._place or its.place(getattr(ctx.agent, "name", None) or "agent"))


class _DurableRun(Durable):
    """Of one run."""

    def __init__(self, of: Journal, place: str) -> None:
        super().__init__(of, place)
        self._kept, self._at, self._requests = of, place, 0

    async def wrap_model_request(self, ctx: Any, *, request_context: Any, handler: Any) -> Any:
        """Ask the model, unless it was asked before."""
        self._requests += 1
        asked = {
            "messages": [_said(each) for each in request_context.messages],
            "model": request_context.model.model_name,
        }

        async def make() -> Any:
            response = await handler(request_context)
            return ModelMessagesTypeAdapter.dump_python([response], mode="json")

        answer = await self._kept.once(f"{self._at}/model.{self._requests}", asked, make)
        return ModelMessagesTypeAdapter.validate_python(answer)[0]

    async def wrap_tool_execute(self, ctx: Any, *, call: Any, tool_def: Any, args: Any, handler: Any) -> Any:
        """Call the tool, unless it was called before."""

        async def make() -> Any:
            return to_jsonable_python(await handler(args))

        asked = {"tool": call.tool_name, "args": to_jsonable_python(args)}
        return await self._kept.once(f"{self._at}/tool.{self._requests}.{call.tool_call_id}", asked, make)


_SAID = ("part_kind", "content", "tool_name", "args", "tool_call_id")


def _said(message: Any) -> Any:
    """Return what a message says. Asking a model leaves other marks on it, which a run that reads does not."""
    (dumped,) = ModelMessagesTypeAdapter.dump_python([message], mode="json")
    return [{key: part.get(key) for key in _SAID} for part in dumped["parts"]]
