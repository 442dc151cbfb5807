"""Answers of real models, by pydantic-ai; the extra ``agents``."""

import asyncio
import sys
from typing import Any
from weakref import WeakKeyDictionary

from orchestra.agents.agent import LlmAgent, McpServer
from orchestra.agents.journal import Journal
from orchestra.errors import MissingExtra, ModelBusy
from orchestra.model.current import current, in_step

try:
    from pydantic_ai import Agent, Tool, UsageLimits
    from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError, ModelRateLimitError
    from pydantic_ai.models import Model, infer_model
    from pydantic_ai.settings import ModelSettings

    from orchestra.agents.durable import Durable
    from orchestra.agents.following import Following
except ImportError as error:
    raise MissingExtra("agents", f"a model ({error})") from error

_BUSY = (429, 503, 529)
_RETRY_AFTER_S = 5.0
_LONGEST_WAIT_S = 3600.0
_models: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Model]] = WeakKeyDictionary()
"""Clients belong to the loop that they were first used on."""


async def ask(agent: LlmAgent, model: str, prompt: str, output_type: Any, journal: Journal, place: str) -> Any:
    """Return the answer to a prompt. Its calls are kept in the journal, from a place there on.

    Raises:
        ModelBusy: The model asks to wait.
    """
    inner: Agent[Any, Any] = Agent(
        _model(agent, model),
        name=agent.name,
        instructions=agent.instructions,
        output_type=output_type,
        retries=agent.retries,
        model_settings=ModelSettings(**agent.settings),  # type: ignore[typeddict-item]
        tools=[_tool(agent, each) for each in agent.tools if not isinstance(each, McpServer)],
        toolsets=[_server(each) for each in agent.tools if isinstance(each, McpServer)],
        capabilities=[Durable(journal, place), *_followed(agent, place)],
    )
    try:
        result = await inner.run(prompt, usage_limits=UsageLimits(**agent.limits) if agent.limits else None)
    except ModelAPIError as error:
        wait_s = _wait_s(error)
        if wait_s is None:
            raise
        raise ModelBusy(agent.name, str(error), wait_s) from error
    return result.output


def _followed(agent: LlmAgent, place: str) -> list[Following]:
    return [Following(current(), place)] if agent.stream and in_step() else []


def _wait_s(error: ModelAPIError) -> float | None:
    """Return for how long to leave the model alone; None when waiting would not help."""
    busy = isinstance(error, ModelRateLimitError) or (isinstance(error, ModelHTTPError) and error.status_code in _BUSY)
    asked: Any = getattr(error, "retry_after", None)
    seconds = asked.total_seconds() if hasattr(asked, "total_seconds") else asked
    return min(float(seconds or _RETRY_AFTER_S), _LONGEST_WAIT_S) if busy else None


def _tool(agent: LlmAgent, tool: str | LlmAgent) -> Any:
    if isinstance(tool, str):
        found = agent.find(tool)
        return getattr(found, "body", found)

    async def ask_agent(prompt: str) -> Any:
        return await tool.run(prompt)

    name = "".join(each if each.isalnum() else "_" for each in tool.name)
    return Tool(ask_agent, name=name[:64], description=f"Ask {tool.name}: {tool.instructions[:500]}")


def _server(server: McpServer) -> Any:
    from pydantic_ai import mcp  # it takes long to import, and few need it

    if server.url is not None:
        return mcp.MCPToolset(server.url)
    command, *args = server.command
    # Not sys.stderr: Celery puts a proxy in its place, which no process can write to.
    transport = mcp.StdioTransport(command=command, args=args, log_file=sys.__stderr__, keep_alive=False)  # type: ignore[attr-defined]
    return mcp.MCPToolset(transport)


def _model(agent: LlmAgent, name: str) -> Model:
    if name.startswith("script:"):
        return agent.find(name.removeprefix("script:"))
    models = _models.setdefault(asyncio.get_running_loop(), {})
    if name not in models:
        models[name] = _openai(name) if name.startswith(("http://", "https://", "openai:")) else infer_model(name)
    return models[name]


def _openai(name: str) -> Model:
    """Return a model whose client leaves retrying to us: a worker is not to be held by a model that is busy."""
    import os

    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    url, _, model = name.partition("#") if name.startswith("http") else (None, "", name.removeprefix("openai:"))
    key = os.environ.get("OPENAI_API_KEY") or ("none" if url else None)
    return OpenAIChatModel(
        model, provider=OpenAIProvider(openai_client=AsyncOpenAI(base_url=url, api_key=key, max_retries=0))
    )
