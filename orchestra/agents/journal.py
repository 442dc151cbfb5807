"""The journal of a step's calls: what was answered is kept before it is used, and never asked for again.

A call is known by its place (which agent, which call of it) and a hash of its request. Where the request at a place
differs from what was recorded, the run has diverged: it goes on live from there.
"""

import asyncio
import hashlib
import json
import re
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext, suppress
from typing import Any
from weakref import WeakKeyDictionary, ref

from orchestra.agents.budget import Budget
from orchestra.errors import NotInStep
from orchestra.model.current import Current, current
from orchestra.model.usage import NOTHING_USED, Call, Usage, total

DIVERGED = "agent.diverged"
_journals: WeakKeyDictionary[Current, "Journal"] = WeakKeyDictionary()
_VOLATILE = frozenset({"timestamp", "run_id", "conversation_id", "id", "instructions_id"})
"""Fields of messages that differ between two runs of the same."""
_PLACE = re.compile(r"(?P<agent>.*)#(?P<run>\d+)/(?P<kind>model|tool)\.(?P<request>\d+)(\..*)?", re.DOTALL)


class Journal:
    """The calls of one claim of a step; outside a step, nothing is kept."""

    def __init__(self, step: Current | None) -> None:
        # Weakly: journals are kept for as long as their steps run.
        self._step = (lambda: None) if step is None else ref(step)
        self._counts: dict[str, int] = {}
        self._read, self._lock = False, threading.Lock()
        self._budget: Budget | None = None
        self.spent = NOTHING_USED
        """What the step's calls took so far, in this claim and in those before it."""

    def place(self, name: str) -> str:
        """Return where the next run of that name stands: the first, second … of this step."""
        count = self._counts[name] = self._counts.get(name, 0) + 1
        return f"{name[:100]}#{count}"

    async def once(
        self,
        place: str,
        name: str,
        request: object,
        make: Callable[[], Awaitable[Any]],
        price: Callable[[Any], Usage],
        counts: Usage,
    ) -> Any:
        """Return what a call came to, as JSON has it: from the journal, or made now and written down first.

        Args:
            place: Where in the step the call stands.
            name: Of the model or the tool.
            request: JSON that says what is asked; two that differ are two calls.
            price: Says of an answer what it took.
            counts: What the call counts as beforehand: one request, or one tool call.

        Raises:
            UsageLimitReached: It would have to be made, and the run may use no more.
        """
        step = self._step()
        asked = fingerprint(request)
        saved: Any = None if step is None else await self.kept(place)
        if saved is not None and saved["asked"] == asked:
            self._spend(saved)
            return saved["answer"]
        if saved is not None and step is not None:
            step.emit(DIVERGED, {"place": place})
            step.logger.warning("%s: the request at %s is not what is recorded; it is made again", DIVERGED, place)
        budget = self._budget
        with nullcontext() if step is None or budget is None else budget.call(await budget.elsewhere(step), counts):
            answer = await make()
            used = price(answer)
            entry = {"asked": asked, "answer": answer, "name": name, "usage": used.model_dump(exclude_defaults=True)}
            if saved is not None:
                entry["lost"] = _all_of(saved).model_dump(exclude_defaults=True)
            self._spend(entry)
            await self.keep(place, entry)
        if step is not None and budget is not None:
            await budget.keep(step, used)
        return answer

    async def kept(self, place: str) -> Any:
        """Return what was written down under a key; None when nothing was."""
        step = self._step()
        if step is None:
            return None
        if not self._read:  # the store is synchronous, and others run on this loop; afterwards it is in memory
            await asyncio.to_thread(self._open, step)
        return step.checkpoint.load(None, place)

    async def keep(self, place: str, value: object) -> None:
        """Write something down."""
        step = self._step()
        if step is not None:
            await asyncio.to_thread(step.checkpoint.save, value, place)

    def _open(self, step: Current) -> None:
        """Read what is kept of the step, and what the run may use."""
        with self._lock:
            if self._read:
                return
            keys, limits = step.checkpoint.keys(), step.usage_limits
            if limits is not None:
                saved = {key: step.checkpoint.load(None, key) for key in keys}
                self._budget = Budget(limits, total(calls_of(step.step_id, saved)))
            self._read = True

    def _spend(self, entry: dict[str, Any]) -> None:
        self.spent += _all_of(entry)


def _all_of(entry: dict[str, Any]) -> Usage:
    """Return what a call took, with those that it stands in the place of."""
    return Usage(**entry["usage"]) + Usage(**entry.get("lost", {}))


def calls_of(step_id: str, saved: Mapping[str, Any]) -> list[Call]:
    """Return the calls that a step has recorded, run by run, of what it has saved."""
    found: list[Call] = []
    for place, entry in saved.items():
        at = _PLACE.fullmatch(place)
        if at is not None and isinstance(entry, dict) and {"asked", "usage", "name"} <= entry.keys():
            kind: Any = at["kind"]
            used = _all_of(entry)  # pyright: ignore[reportUnknownArgumentType]
            found.append(Call(step_id, at["agent"], int(at["run"]), kind, int(at["request"]), str(entry["name"]), used))  # pyright: ignore[reportUnknownArgumentType]
    return sorted(found, key=lambda each: (each.agent, each.run, each.request, each.kind))


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
