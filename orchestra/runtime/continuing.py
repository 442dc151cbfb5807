"""Continuing: a pool child goes on with a short step by itself, instead of sending it through the broker.

A record hands on what it released, and what of its run it made room for. The child that made the record is free at that
moment, so it may as well do one of those at once: claimed, run and recorded like any other, under Celery's own tracer,
with a request of its own. What is kept has been short before; where nothing is, the child takes the next message of its
queue without its parent. Either is claimed with the record before it, where the store does that. A child goes on for
`CONTINUE_S` after a message arrived, so that no slot is away from the broker for longer (invariant 10).
"""

import base64
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, Protocol

from billiard.process import current_process  # pyright: ignore[reportMissingTypeStubs]
from celery import Celery
from celery.worker import state

from orchestra.model.ids import MessageRef
from orchestra.runtime.adapter import Adapter
from orchestra.runtime.board import Board
from orchestra.runtime.cycle import Cycle
from orchestra.runtime.observing import Measure, Sample
from orchestra.runtime.publisher import headers_of
from orchestra.runtime.redis_transport import Envelope
from orchestra.runtime.routing import HEADER
from orchestra.store.contract import Claimed, Dispatch, Onward, Recorded

CONTINUE_S = 0.05
"""How long after a message arrived its child may begin with other steps."""
SHORT_S = 0.01
"""What calls a function may take at most, as measured, to be begun by a child by itself."""
_MOST_KNOWN, _MOST_TOLD = 1000, 16
_HIGHEST = 99_999_999
"""Number of a step, or of its generation."""
_WEIGHT = 0.2
"""Of the newest duration among those before."""
_NO_LIMITS = (None, [None, None], (None, None))
_NOTHING: Mapping[str, Any] = {
    "args": [], "kwargs": {}, "callbacks": None, "errbacks": None, "chain": None, "chord": None,
}  # fmt: skip


class Known(Protocol):
    """What is known of how long calls take."""

    def note(self, target: str, seconds: float) -> None:
        """One more call has ended."""
        ...

    def short(self) -> frozenset[str]:
        """Return what was called lately and is short."""
        ...


class Durations:
    """How long bodies have taken in this process, by what they call."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, float] = OrderedDict()

    def note(self, target: str, seconds: float) -> None:
        """One more call has ended."""
        known = self._known.pop(target, seconds)
        self._known[target] = known + _WEIGHT * (seconds - known)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)

    def is_short(self, target: str) -> bool:
        """Whether calls have been short. Of what has not been called it is not known, so they are not."""
        return self._known.get(target, SHORT_S + 1) <= SHORT_S

    def short(self) -> frozenset[str]:
        """Return what was called lately and is short."""
        return frozenset(each for each in islice(reversed(self._known), _MOST_TOLD) if self.is_short(each))


class Courier(Protocol):
    """From where a child takes what waits without its parent."""

    def take(self, queue: str) -> tuple[str, Envelope] | None:
        """Take the next message of a queue, and what ``put_back`` wants to know, if there is one at once."""
        ...

    def put_back(self, key: str, message: Envelope) -> None:
        """Make it the next again."""
        ...


class Next(NamedTuple):
    """A step that is gone on with: which task carries it, its Celery id, and what the tracer is told of it."""

    task: str
    celery_id: str
    request: dict[str, Any]


class _Kept(NamedTuple):
    """What a child goes on with, what the message before carried of its chain, and whether it is claimed."""

    dispatch: Dispatch
    following: Sequence[Any]
    claimed: bool


class _Taken(NamedTuple):
    """A message that a child has taken, from which list, and its step."""

    key: str
    message: Envelope
    step: Next


class Continuation:
    """What one pool child goes on with. Its bodies run one after the other on one thread.

    Args:
        traces: Celery's tracers of the tasks that may be gone on with, by name.
        send: Publishes what was kept and cannot be done here after all.
        leaving: Whether the worker was told to go.
        for_s: For how long after a message it may begin with others.
        durations: What is known of how long calls take; default what this process has seen.
        give_back: Gives back what was claimed with a record and is not begun here.
        received: Hears of each message that was taken, by its queue.
    """

    def __init__(
        self,
        board: Board,
        row: int,
        traces: Mapping[str, Callable[..., Any]],
        send: Callable[[Sequence[Dispatch]], object],
        courier: Courier,
        leaving: Callable[[], bool],
        *,
        for_s: float = CONTINUE_S,
        durations: Known | None = None,
        give_back: Callable[[], object] = lambda: None,
        received: Callable[[str], object] = lambda _queue: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._board, self._row, self._traces = board, row, traces
        self._send, self._courier, self._leaving = send, courier, leaving
        self._for_s, self._monotonic = for_s, monotonic
        self._durations = Durations() if durations is None else durations
        self._received, self._give_back = received, give_back
        self._message, self._request = "", dict[str, Any]()
        """What the child was given: Celery id, and request."""
        self._until: float | None = None
        self._kept: _Kept | None = None
        self._taken: _Taken | None = None
        self._takes_first = False
        """Whether records handed on nothing lately, and messages waited."""

    def onward(self, claimed: Claimed, seconds: float, worker: str) -> Onward | None:
        """A claim is about to be recorded: say what may be claimed with that, and on the board that it may happen."""
        row, at = claimed.row, claimed.claim.ref
        if row.task in self._traces:
            self._durations.note(row.target, seconds)
        longest = MessageRef(at.step._replace(n=_HIGHEST), _HIGHEST).celery_id
        if not self._goes_on() or not self._board.has_room_for(self._message, longest, at.step.run_id):
            return None
        if self._taken is None and self._takes_first:
            self._taken = self._take()
        if self._taken is not None:
            message = MessageRef.parse(self._taken.step.celery_id)
            if not self._board.has_room_for(self._message, at.celery_id, message.step.run_id):
                return None
            self._board.write(self._row, self._message, at.celery_id, message.step.run_id)
            return Onward(worker, row.queue, row.priority, message=message)
        self._board.write(self._row, self._message, at.celery_id, at.step.run_id)
        return Onward(worker, row.queue, row.priority, self._durations.short())

    def keep(self, claimed: Claimed, recorded: Recorded, following: Sequence[Any]) -> Sequence[Dispatch]:
        """A claim was recorded: keep what was claimed with it, or one of what it hands on; return the others."""
        if recorded.onward is not None:
            dispatch, its = recorded.onward
            self._board.write(self._row, self._message, its.claim.ref.celery_id)
            if dispatch is not None:
                self._kept = _Kept(dispatch, following, claimed=True)
                return recorded.dispatches
        onward = Onward("", claimed.row.queue, claimed.row.priority, self._durations.short())
        split = onward.split(claimed.claim.ref.step.run_id, recorded.dispatches) if self._goes_on() else None
        if split is None:
            return recorded.dispatches
        self._takes_first = False
        if self._taken is not None:
            return recorded.dispatches
        self._kept = _Kept(split[0], following, claimed=False)
        return split[1]

    def _goes_on(self) -> bool:
        if self._until is None or self._kept is not None or not self._board.may_continue or self._leaving():
            return False
        return self._monotonic() < self._until

    def trace(self, trace: Callable[..., Any], uuid: str, args: Any, kwargs: Any, request: dict[str, Any]) -> Any:
        """Run a task of a message as Celery does, and then what was kept or what waits."""
        if not (request.get(HEADER) and self._board.has_room_for(uuid, uuid)):
            return trace(uuid, args, kwargs, request)
        self._board.write(self._row, uuid, uuid)
        self._message, self._request, self._kept, self._taken = uuid, request, None, None
        if self._board.may_continue and request.get("timelimit") in _NO_LIMITS:
            self._until = self._monotonic() + self._for_s
        try:
            answer = trace(uuid, args, kwargs, request)
            while (following := self._next()) is not None:
                self._board.write(self._row, uuid, following.celery_id)
                self._traces[following.task](following.celery_id, [], {}, following.request)
        except Exception:
            self._end()
            raise
        self._end()
        return answer

    def _end(self) -> None:
        """The message is done with. What ends the process does not come here: the parent reads what it was at."""
        if self._taken is not None:
            self._courier.put_back(self._taken.key, self._taken.message)
        self._until = self._kept = self._taken = None
        self._give_back()
        self._board.clear(self._row)

    def _next(self) -> Next | None:
        kept, self._kept = self._kept, None
        if kept is not None:
            dispatch = kept.dispatch
            if dispatch.task in self._traces and self._board.has_room_for(self._message, dispatch.ref.celery_id):
                return _of_dispatch(self._request, dispatch, kept.following)
            if kept.claimed:
                return None  # it is given back in a moment
            self._send([kept.dispatch])
        taken, self._taken = self._taken or self._take(), None
        return None if taken is None else taken.step

    def _take(self) -> "_Taken | None":
        """Take the next message of the queue, if it is one for this process."""
        about: Mapping[str, str | None] = self._request.get("delivery_info") or {}
        queue = about.get("routing_key")
        taken = self._courier.take(queue) if queue and self._goes_on() else None
        self._takes_first = taken is not None
        if taken is None:
            return None
        key, message = taken
        step = _of_message(self._request, message)
        if step is None or step.task not in self._traces or not self._board.has_room_for(self._message, step.celery_id):
            self._courier.put_back(key, message)
            return None
        self._received(str(queue))
        return _Taken(key, message, step)


def _of_dispatch(request: Mapping[str, Any], dispatch: Dispatch, following: Sequence[Any]) -> Next:
    """Return a step that had no message. What that of the message before says of it is its chain."""
    celery_id = dispatch.ref.celery_id
    made = {**request, **headers_of(dispatch), **_NOTHING, "correlation_id": celery_id}
    if following and following[-1]["options"]["task_id"] == celery_id:
        made["chain"] = list(following[:-1])
    return Next(dispatch.task, celery_id, made)


def _of_message(request: Mapping[str, Any], message: Envelope) -> Next | None:
    """Return the step of a message; None for one that the parent has to see."""
    headers: dict[str, Any] = message["headers"]
    if not headers.get(HEADER) or headers.get("timelimit") not in _NO_LIMITS:
        return None
    _args, _kwargs, embedded = json.loads(base64.b64decode(message["body"]))
    made = {**request, **headers, **_NOTHING, "correlation_id": headers["id"], "chain": embedded.get("chain")}
    return Next(headers["task"], headers["id"], made)


def continue_in_child(app: Celery, adapter: Adapter, courier: Courier, board: Board) -> None:
    """Let this process, a child of a pool, continue: in front of Celery's tracers, when these have been made."""
    cycle = adapter.cycle
    row = board.place(getattr(current_process(), "index", None))
    tasks: Mapping[str, Any] = app.tasks
    traces = {name: task.__trace__ for name, task in tasks.items() if _may_be_begun(task, cycle)}
    if row is None:
        return

    def received(queue: str) -> None:
        if cycle.observe is not None:
            cycle.observe([Sample(Measure.RECEIVED, 1, (queue,))])

    cycle.going_on = continuation = Continuation(
        board, row, traces, cycle.send, courier, adapter.leaving, received=received, give_back=adapter.leave_ahead
    )
    for name, trace in traces.items():
        tasks[name].__trace__ = partial(continuation.trace, trace)


def _may_be_begun(task: Any, cycle: Cycle) -> bool:
    """Whether a task carries steps, and nothing about it is for the parent to see to."""
    adapter = getattr(task, "orchestra", None)
    limits = (task.rate_limit, task.time_limit, task.soft_time_limit)
    return getattr(adapter, "cycle", None) is cycle and limits == (None, None, None)


def needs_parent(worker: Any) -> bool:
    """Whether a parent wants to hear of each step: monitors watch, ids are revoked, or its children are limited."""
    consumer = getattr(worker, "consumer", None)
    events = getattr(consumer, "event_dispatcher", None)
    if events is None or (events.enabled and (not events.groups or "task" in events.groups)):
        return True
    limits = (worker.time_limit, worker.soft_time_limit, worker.max_tasks_per_child, worker.max_memory_per_child)
    return bool(state.revoked) or any(limits)
