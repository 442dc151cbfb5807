"""The journal of a step's calls: what was answered is kept before it is used, and never asked for again.

A call is known by its place (which agent, which call of it) and a hash of its request. Where the request at a place
differs from what was recorded, the run has diverged: it goes on live from there.
"""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary, ref

from orchestra.errors import NotInStep
from orchestra.model.current import Current, current

_journals: WeakKeyDictionary[Current, "Journal"] = WeakKeyDictionary()
_VOLATILE = frozenset({"timestamp", "run_id", "conversation_id", "id", "instructions_id"})
"""Fields of messages that differ between two runs of the same."""


class Journal:
    """The calls of one claim of a step; outside a step, nothing is kept."""

    def __init__(self, step: Current | None) -> None:
        # Weakly: journals are kept for as long as their steps run.
        self._step = (lambda: None) if step is None else ref(step)
        self._counts: dict[str, int] = {}
        self._read = False
        self.live = 0
        """Calls that were made rather than read."""
        self.diverged: list[str] = []
        """Places whose request was not what had been recorded."""

    def place(self, name: str) -> str:
        """Return where the next run of that name stands: the first, second … of this step."""
        count = self._counts[name] = self._counts.get(name, 0) + 1
        return f"{name[:100]}#{count}"

    async def once(self, place: str, request: object, make: Callable[[], Awaitable[Any]]) -> Any:
        """Return what a call came to, as JSON has it: from the journal, or made now and written down first.

        Args:
            request: JSON that says what is asked; two that differ are two calls.
        """
        step = self._step()
        if step is None:
            return await make()
        asked = fingerprint(request)
        if not self._read:  # the store is synchronous, and others run on this loop; afterwards it is in memory
            await asyncio.to_thread(step.checkpoint.keys)
            self._read = True
        saved: Any = step.checkpoint.load(None, place)
        if saved is not None and saved["asked"] == asked:
            return saved["answer"]
        if saved is not None:
            self.diverged.append(place)
            step.logger.warning("agent.diverged: the request at %s is not what was recorded; it is made again", place)
        self.live += 1
        answer = await make()
        await asyncio.to_thread(step.checkpoint.save, {"asked": asked, "answer": answer}, place)
        return answer


def journal() -> Journal:
    """Return the journal of the step that runs here, or one that keeps nothing."""
    step: Current | None = None
    with suppress(NotInStep):
        step = current()
    if step is None:
        return Journal(None)
    return _journals.setdefault(step, Journal(step))


def fingerprint(request: object) -> str:
    """Return a short text that is the same for the same request."""
    return hashlib.sha256(json.dumps(_steady(request), sort_keys=True, default=str).encode()).hexdigest()[:24]


def _steady(value: Any) -> Any:
    match value:
        case dict():
            return {str(key): _steady(each) for key, each in value.items() if key not in _VOLATILE}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case list() | tuple():
            return [_steady(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value
