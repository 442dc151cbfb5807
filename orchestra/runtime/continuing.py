"""Continuing: a pool child goes on with short steps by itself, instead of sending them through the broker.

A record hands on what it released, and what of its run it made room for. The child that made the record is free at that
moment, so it may as well do some of those at once: claimed, run and recorded like any other, under Celery's own tracer,
with requests of their own. What is gone on with has been short before; where nothing is, the child takes the next
messages of its queue without its parent. They are claimed with the record before them, and very short ones several at a
time, which are recorded together as well: by how long such calls have taken, never more than take ``TOGETHER_S``. Where
one takes longer than that after all, what is behind it is given back, and what has ended is recorded meanwhile.

A child goes on for ``CONTINUE_S``, so that no slot is away from the broker for longer (invariant 10). Then it looks at
the broker as its parent would: what waits there and is as urgent goes first. Its parent has the slot again after
``AWAY_S``, and at once where something waits that the child cannot take.
"""

import base64
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from orchestra.engine.outcome import Completed
from orchestra.errors import StoreUnavailable
from orchestra.model.ids import MessageRef
from orchestra.runtime.board import Board
from orchestra.runtime.cycle import Cycle, Ended, Turn
from orchestra.runtime.durations import MOST_IN_HAND, Durations, Known, Reach
from orchestra.runtime.hand import Hand, Later, Minder, Next, Relief, put_down
from orchestra.runtime.loop import Pause, ThreadPause
from orchestra.runtime.publisher import headers_of
from orchestra.runtime.quarantine import SUSPECT_FROM
from orchestra.runtime.redis_transport import Envelope
from orchestra.runtime.routing import HEADER
from orchestra.store.contract import Claimed, Dispatch, Onward, Recorded, Refused

logger = logging.getLogger(__name__)

CONTINUE_S = 0.03
"""How long after a message arrived, or a look at the broker, a child may begin with other steps."""
AWAY_S = 0.3
"""How long after a message arrived its child may do so at most."""
LATE_S = 0.02
"""How long a body may take before what is behind it is given back, and what was before it recorded."""
_LARGE = 16_384
"""Characters of an output that others do not wait for."""
_LONGEST_NUMBER = len(".99999999.99999999")
"""Of a step and its generation."""
_NO_LIMITS = (None, [None, None], (None, None))
_NOTHING: Mapping[str, Any] = {
    "args": [], "kwargs": {}, "callbacks": None, "errbacks": None, "chain": None, "chord": None,
}  # fmt: skip


class Courier(Protocol):
    """From where a child takes what waits without its parent."""

    def is_open(self) -> bool:
        """Whether it lets messages be taken, and the way there is open: who asks has something to record."""
        ...

    def take(self, queue: str, most: int, at_least: int | None = None) -> Sequence[tuple[str, Envelope]] | None:
        """Take the next messages of a queue, and what ``put_back`` wants to know, as far as there are some at once.

        None that are less urgent than the priority ``at_least``. Returns None where it cannot be asked.
        """
        ...

    def put_back(self, key: str, message: Envelope) -> None:
        """Make it the next again."""
        ...

    def waits(self, queues: Sequence[str], at_least: int | None = None) -> bool:
        """Whether there may be such messages in any of these queues."""
        ...


class Host(Protocol):
    """The adapter, as far as a child needs it that goes on."""

    cycle: Cycle
    ahead: Claimed | None
    stays: bool

    def insist(self, operation: Callable[[], object]) -> object:
        """Do a store operation, for as long as that takes."""
        ...

    def leave_place(self) -> None:
        """The child does not go on."""
        ...


class _Taken(NamedTuple):
    """A message that a child has taken, from which list, and its step."""

    key: str
    message: Envelope
    step: Next


class Continuation:
    """What one pool child goes on with. Its bodies run one after the other on one thread.

    Args:
        traces: Celery's tracers of the tasks that may be gone on with, by name.
        leaving: Whether the worker was told to go.
        for_s: For how long after a message, or a look at the broker, it may begin with others.
        away_s: For how long after a message it may do so at most.
        late_s: After how long a body keeps nobody waiting any more.
        most: How many steps it may take at a time.
        durations: What is known of how long calls take; default what this process has seen.
        received: Hears of each message that was taken, by its queue.
        later, pause: See ``Relief``.
    """

    def __init__(
        self,
        board: Board,
        row: int,
        traces: Mapping[str, Callable[..., Any]],
        host: Host,
        courier: Courier,
        leaving: Callable[[], bool],
        *,
        for_s: float = CONTINUE_S,
        away_s: float = AWAY_S,
        late_s: float = LATE_S,
        most: int = MOST_IN_HAND,
        durations: Known | None = None,
        received: Callable[[str], object] = lambda _queue: None,
        later: Later | None = None,
        pause: Callable[[], Pause] = ThreadPause,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._board, self._row, self._traces, self._host = board, row, traces, host
        self._courier, self._leaving, self._received = courier, leaving, received
        self._for_s, self._away_s, self._monotonic = for_s, away_s, monotonic
        self._durations = Durations() if durations is None else durations
        self._reach = Reach(late_s, most)
        self._hand = Hand(monotonic)
        self._relief = Relief(
            self._hand, host.cycle, late_s, Minder() if later is None else later, pause, self._reach.was_too_far
        )
        self._message, self._at, self._request = "", "", dict[str, Any]()
        """What the child was given, what it is at (Celery ids), and the request."""
        self._last_s: float | None = None
        """What is known of how long calls take like that which has just ended."""
        self._until: float | None = None
        self._back_at = 0.0
        self._taken: Sequence[_Taken] = ()
        """Messages whose steps are about to be claimed."""
        self._takes_first = False
        """Whether records handed on nothing lately and messages waited, or they handed on more than was kept."""

    # --- what the cycle asks ------------------------------------------------------------------------------------

    def claimed(self) -> None:
        """A body begins whose step had to be claimed first."""
        self._hand.begin()

    def turn(self, ended: Ended, worker: str) -> Turn | None:
        """A body has ended: say what is to be asked of the store now. None: it is recorded with those that follow."""
        row = ended.claimed.row
        took_s = self._hand.end(ended)
        if took_s is not None and row.task in self._traces:
            self._durations.note(row.target, took_s)
        self._last_s = self._durations.of(row.target)
        if self._may_wait(ended):
            return None
        all_ended = self._hand.ended
        most_urgent = min(each.claimed.row.priority for each in all_ended)
        if not self._hand.is_empty or not self._goes_on(most_urgent) or ended.claimed.crashes >= SUSPECT_FROM:
            return Turn(all_ended)
        return self._turn_onward(all_ended, worker, most_urgent)

    def _may_wait(self, ended: Ended) -> bool:
        """Whether it can be recorded with what is in hand."""
        is_plain = isinstance(ended.change, Completed) and len(ended.change.output) <= _LARGE
        return is_plain and self._hand.may_wait and not self._leaving() and self._reach.is_near(self._hand.waits_s)

    def _turn_onward(self, ended: Sequence[Ended], worker: str, most_urgent: int) -> Turn:
        """Record what has ended, and claim what waits and is as urgent, or what that hands on."""
        runs = {each.claimed.claim.ref.step.run_id for each in ended}
        most = self._how_many(len(ended), runs)
        if self._takes_first and not self._taken and self._courier.is_open() and not self._take(most, most_urgent):
            self._put_taken_back()
            self._until = None
            return Turn(ended)
        held = [*self._hand.celery_ids, *(each.step.celery_id for each in self._taken)]
        if self._taken:
            self._board.write(self._row, self._message, self._at, held)
            return Turn(ended, None, [MessageRef.parse(each.step.celery_id) for each in self._taken])
        if not self._board.has_room_for(self._message, self._at, held, runs):
            return Turn(ended)
        self._board.write(self._row, self._message, self._at, held, runs)
        self._takes_first = False
        queue = ended[-1].claimed.row.queue
        return Turn(ended, Onward(worker, queue, most_urgent, self._durations.short(), most))

    def _how_many(self, held: int, runs: Iterable[str] = ()) -> int:
        """How many steps to take, by what is known of the last one; as many as the board can say."""
        longest = max(len(each.encode()) for each in (self._message, *runs)) + _LONGEST_NUMBER
        return max(1, min(self._reach.next(self._last_s), self._board.ROOM // longest - 2 - held))

    def settled(self, ended: Ended, recorded: Recorded | None) -> Sequence[Dispatch]:
        """It was recorded, or superseded: keep what was claimed with it, and return what is to be published."""
        self._hand.recorded(ended.claimed.claim)
        if recorded is None:
            return ()
        self._takes_first |= bool(recorded.dispatches)
        for dispatch, claimed in recorded.onward:
            self._hand.keep(_of_dispatch(self._request, dispatch, ended.following, claimed))
        return recorded.dispatches

    def took(self, message: MessageRef, answer: Claimed | Refused) -> None:
        """The step of a message was claimed, or not."""
        taken, *self._taken = self._taken  # in their order: some may be doubles of each other
        self._received(str(self._queue))
        if isinstance(answer, Claimed):
            self._hand.keep(taken.step._replace(claimed=answer))

    def _goes_on(self, at_least: int | None = None) -> bool:
        if self._until is None or not self._board.may_continue or self._leaving():
            return False
        now = self._monotonic()
        return now < self._until or (now < self._back_at and self._looks(now, at_least))

    def _looks(self, now: float, at_least: int | None) -> bool:
        """Look at the broker. Whether no other queue has something as urgent; what this one has goes first."""
        queues, own = self._board.queues, self._queue
        others = [each for each in queues if each != own]
        if own not in queues or not self._courier.is_open() or (others and self._courier.waits(others, at_least)):
            self._until = None
            return False
        self._until, self._takes_first = min(now + self._for_s, self._back_at), True
        return True

    # --- what the child does ------------------------------------------------------------------------------------

    def trace(self, trace: Callable[..., Any], uuid: str, args: Any, kwargs: Any, request: dict[str, Any]) -> Any:
        """Run a task of a message as Celery does, and then what was claimed with its record, or what waits."""
        if not (request.get(HEADER) and self._board.has_room_for(uuid, uuid)):
            return trace(uuid, args, kwargs, request)
        self._message, self._at, self._request = uuid, uuid, request
        self._board.write(self._row, uuid, uuid)
        if self._board.may_continue and request.get("timelimit") in _NO_LIMITS:
            now, self._host.stays = self._monotonic(), True
            self._until, self._back_at = now + self._for_s, now + self._away_s
        self._hand.begin()
        try:
            answer = trace(uuid, args, kwargs, request)
            while (following := self._next()) is not None:
                self._begin(following)
        except Exception:
            self._end()
            raise
        except SystemExit:  # it ends the process, and the parent reads what it was at
            with suppress(StoreUnavailable):
                self._put_down()
            raise
        self._end()
        return answer

    def _begin(self, step: Next) -> None:
        self._at = step.celery_id
        self._board.write(self._row, self._message, self._at, self._hand.celery_ids)
        self._host.ahead = step.claimed
        self._hand.begin()
        self._relief.mind()
        self._traces[step.task](step.celery_id, [], {}, step.request)
        if step.claimed is not None and self._host.ahead is step.claimed:  # its tracer failed before it began
            self._host.ahead = None
            self._hand.keep(step)
            self._until = None

    def _next(self) -> Next | None:
        """Return what is begun next: what is in hand, or else what waits."""
        if not self._hand.is_empty:
            return self._next_in_hand()
        if not self._goes_on():
            return None
        self._take(self._how_many(0))
        self._takes_first = bool(self._taken)
        if len(self._taken) > 1:
            self._claim_taken()
            return self._next_in_hand()
        taken, self._taken = self._taken, ()
        if not taken:
            return None
        self._received(str(self._queue))
        return taken[0].step

    def _next_in_hand(self) -> Next | None:
        if self._until is None or self._leaving() or not self._reach.is_near(self._hand.held_s):
            return None
        step = self._hand.next()
        if step is not None and step.task not in self._traces:
            self._hand.keep(step)  # of a task that its parent has to see to: it is given back in a moment
            return None
        return step

    def _claim_taken(self) -> None:
        """Claim the steps of several messages at once. Where the store is away, they wait in their queue again."""
        ids = [each.step.celery_id for each in self._taken]
        self._board.write(self._row, self._message, self._at, ids)
        try:
            self._host.cycle.settle(Turn((), None, [MessageRef.parse(each) for each in ids]))
        except StoreUnavailable as away:
            logger.warning("%d messages are given back: %s", len(ids), away)

    @property
    def _queue(self) -> str | None:
        about: Mapping[str, str | None] = self._request.get("delivery_info") or {}
        return about.get("routing_key")

    def _take(self, most: int, at_least: int | None = None) -> bool:
        """Take the next messages of the queue, as far as they are for this process.

        Returns whether it could be asked, and all that were found are.
        """
        queue = self._queue
        found = self._courier.take(queue, most, at_least) if queue else None
        taken: list[_Taken] = []
        for at, (key, message) in enumerate(found or ()):
            step = _of_message(self._request, message)
            ids = [*self._hand.celery_ids, *(each.step.celery_id for each in taken)]
            if (
                step is None
                or step.task not in self._traces
                or not self._board.has_room_for(self._message, self._at, [*ids, step.celery_id])
            ):
                self._put_back((found or ())[at:])
                break
            taken.append(_Taken(key, message, step))
        self._taken = taken
        return found is not None and len(taken) == len(found)

    def _put_taken_back(self) -> None:
        self._put_back([(each.key, each.message) for each in self._taken])
        self._taken = ()

    def _put_back(self, messages: Sequence[tuple[str, Envelope]]) -> None:
        for key, message in reversed(messages):
            self._courier.put_back(key, message)

    def _end(self) -> None:
        """The message is done with."""
        self._until = None
        self._relief.wait()
        self._host.insist(self._put_down)
        self._host.leave_place()
        self._board.clear(self._row)

    def _put_down(self) -> None:
        """Leave nothing behind. What ends the process by force does not come here."""
        self._put_taken_back()
        put_down(self._hand, self._host.cycle, self._reach.was_too_far)


def _of_dispatch(request: Mapping[str, Any], dispatch: Dispatch, following: Sequence[Any], claimed: Claimed) -> Next:
    """Return a step that had no message. What that of the message before says of it is its chain."""
    celery_id = dispatch.ref.celery_id
    made = {**request, **headers_of(dispatch), **_NOTHING, "correlation_id": celery_id}
    if following and following[-1]["options"]["task_id"] == celery_id:
        made["chain"] = list(following[:-1])
    return Next(dispatch.task, celery_id, made, claimed)


def _of_message(request: Mapping[str, Any], message: Envelope) -> Next | None:
    """Return the step of a message; None for one that the parent has to see."""
    headers: dict[str, Any] = message["headers"]
    if not headers.get(HEADER) or headers.get("timelimit") not in _NO_LIMITS:
        return None
    _args, _kwargs, embedded = json.loads(base64.b64decode(message["body"]))
    made = {**request, **headers, **_NOTHING, "correlation_id": headers["id"], "chain": embedded.get("chain")}
    return Next(headers["task"], headers["id"], made)
