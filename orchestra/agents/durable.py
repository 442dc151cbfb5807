"""Durable: what makes the run of any pydantic-ai agent go on from its last call after a crash.

    Agent("openai:gpt-5", capabilities=[Durable()])

Inside a step of Orchestra each model request and each tool call is kept before it is used; elsewhere nothing changes.
"""

from collections.abc import Sequence
from typing import Any

from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.exceptions import ModelRetry, ToolRetryError
from pydantic_ai.messages import ModelMessagesTypeAdapter
from pydantic_core import to_jsonable_python

from orchestra.agents.journal import Journal, fingerprint, journal
from orchestra.model.usage import Usage


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
        self._said: list[tuple[Any, Any]] = []
        """The messages that were asked with before, and what they say: a conversation only grows at its end."""

    async def wrap_model_request(self, ctx: Any, *, request_context: Any, handler: Any) -> Any:
        """Ask the model, unless it was asked before."""
        self._requests += 1
        asked = {
            "messages": self._told(request_context.messages),
            "model": request_context.model.model_name,
        }

        async def make() -> Any:
            response = await handler(request_context)
            return ModelMessagesTypeAdapter.dump_python([response], mode="json")

        name = request_context.model.model_name
        place = f"{self._at}/model.{self._requests}"
        answer = await self._kept.once(place, name, asked, make, _used, counts=Usage(requests=1))
        return ModelMessagesTypeAdapter.validate_python(answer)[0]

    def _told(self, messages: Sequence[Any]) -> list[Any]:
        """Return what messages say. What was said before is not looked at again, except the last, which may grow."""
        known = self._said
        found: list[Any] = []
        for at, each in enumerate(messages):
            same = at < min(len(known), len(messages) - 1) and known[at][0] is each
            found.append(known[at][1] if same else fingerprint(_said(each)))
        self._said = list(zip(messages[:-1], found[:-1], strict=True))
        return found

    async def wrap_tool_execute(self, ctx: Any, *, call: Any, tool_def: Any, args: Any, handler: Any) -> Any:
        """Call the tool, unless it was called before."""

        async def make() -> Any:
            try:
                return {"value": to_jsonable_python(await handler(args))}
            except ToolRetryError as error:  # what the model is told instead
                return {"retry": to_jsonable_python(error.tool_retry.content)}

        asked = {"tool": call.tool_name, "args": to_jsonable_python(args)}
        place = f"{self._at}/tool.{self._requests}.{call.tool_call_id}"
        one = Usage(tool_calls=1)
        answer = await self._kept.once(place, call.tool_name, asked, make, lambda _answer: one, counts=one)
        if "retry" in answer:
            raise ModelRetry(answer["retry"])
        return answer["value"]


def _used(answer: Any) -> Usage:
    """Return what a response took, as JSON has it."""
    used: dict[str, Any] = answer[0]["usage"]
    return Usage(
        requests=1,
        input_tokens=used.get("input_tokens") or 0,
        output_tokens=used.get("output_tokens") or 0,
        cost=float(used.get("cost") or 0),
    )


_SAID = ("part_kind", "content", "tool_name", "args", "tool_call_id")


def _said(message: Any) -> Any:
    """Return what a message says. Asking a model leaves other marks on it, which a run that reads does not."""
    (dumped,) = ModelMessagesTypeAdapter.dump_python([message], mode="json")
    return [{key: part.get(key) for key in _SAID} for part in dumped["parts"]]
