"""The hand of a pool child: steps that it has claimed and not begun, and ends of others that are not recorded yet.

Both are of short steps and wait for milliseconds. Where one takes longer than that was expected, a second thread takes
them away: what has ended is recorded, and what has not begun is given back, while the body goes on.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple, Protocol

from orchestra.errors import StoreUnavailable
from orchestra.runtime.cycle import Cycle, Ended, Turn
from orchestra.runtime.loop import Pause
from orchestra.runtime.quarantine import SUSPECT_FROM
from orchestra.store.contract import Claimed, ClaimRef

logger = logging.getLogger(__name__)
NOT_BEGUN = "it was not begun"


class Next(NamedTuple):
    """A step that is gone on with: which task carries it, its Celery id, what the tracer is told of it, and its claim,
    if that was made."""

    task: str
    celery_id: str
    request: dict[str, Any]
    claimed: Claimed | None = None


class Hand:
    """What a child holds. Its lock is never held during a call."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._steps, self._suspects = deque[Next](), deque[Next]()
        self._ended: dict[ClaimRef, Ended] = {}
        self._leaving: Sequence[str] = ()
        """Celery ids of what was taken away, until the store has it."""
        self._since = 0.0
        """Since when the oldest end waits."""
        self._begun: float | None = None
        self._kept_at = 0.0
        """When the first of the steps that are in hand was taken."""
        self._waits = False
        """Whether a body has begun since then, and the others wait for it."""

    def begin(self) -> None:
        """A body begins."""
        self._begun, self._waits = self._monotonic(), not self.is_empty

    def end(self, ended: Ended) -> float | None:
        """A body has ended: returns how long it took, or None when that was said before."""
        with self._lock:
            took_s = None if self._begun is None else self._monotonic() - self._begun
            self._begun = None
            if not self._ended:
                self._since = self._monotonic()
            self._ended[ended.claimed.claim] = ended
        return took_s

    @property
    def ended(self) -> Sequence[Ended]:
        """What waits to be recorded."""
        return tuple(self._ended.values())

    @property
    def waits_s(self) -> float:
        """For how long the oldest of these waits."""
        return self._monotonic() - self._since if self._ended else 0.0

    def recorded(self, claim: ClaimRef) -> None:
        """An end waits no more."""
        with self._lock:
            self._ended.pop(claim, None)

    def keep(self, step: Next) -> None:
        """Claimed steps are begun in their order, and one that may end the process when nothing else is in hand."""
        suspect = step.claimed is not None and step.claimed.crashes >= SUSPECT_FROM
        with self._lock:
            if self.is_empty:
                self._kept_at, self._waits = self._monotonic(), False
            (self._suspects if suspect else self._steps).append(step)

    def next(self) -> Next | None:
        """Take the next step."""
        with self._lock:
            for steps in (self._steps, self._suspects):
                if steps:
                    return steps.popleft()
        return None

    @property
    def may_wait(self) -> bool:
        """Whether another step is in hand, with which what has ended may be recorded: none that may end the process."""
        return bool(self._steps)

    @property
    def held_s(self) -> float:
        """For how long steps have been waiting for others in hand."""
        return self._monotonic() - self._kept_at if self._waits else 0.0

    @property
    def is_empty(self) -> bool:
        """Whether no step is in hand."""
        return not (self._steps or self._suspects)

    @property
    def celery_ids(self) -> list[str]:
        """Ids of all that is held beside the step that runs."""
        with self._lock:
            ended = [claim.ref.celery_id for claim in self._ended]
            return [*ended, *(each.celery_id for each in chain(self._steps, self._suspects)), *self._leaving]

    def take_all(self, late_s: float | None = None) -> tuple[Sequence[Ended], Sequence[Next]]:
        """Take away what is held; with ``late_s`` only if a body has been running for longer. Its ids stay."""
        with self._lock:
            if late_s is not None and (self._begun is None or self._monotonic() - self._begun < late_s):
                return (), ()
            ended, steps = tuple(self._ended.values()), (*self._steps, *self._suspects)
            self._ended.clear()
            self._steps.clear()
            self._suspects.clear()
            self._leaving = (*(each.claimed.claim.ref.celery_id for each in ended), *(each.celery_id for each in steps))
        return ended, steps

    def left(self) -> None:
        """What was taken away is nothing of the child's any more, or in its hand again."""
        self._leaving = ()

    def return_all(self, ended: Sequence[Ended], steps: Sequence[Next]) -> None:
        """Hold again what was taken away."""
        with self._lock:
            self._ended = {**{each.claimed.claim: each for each in ended}, **self._ended}
        for each in steps:
            self.keep(each)


class Relief:
    """Relieves a hand of what it holds, on another thread, when a body takes long.

    Args:
        late_s: After how long it does.
        later: Calls a function after some seconds, on that thread.
        pause: Makes what the child's own thread waits with while that happens.
        too_far: Told when steps were given back.
    """

    def __init__(
        self,
        hand: Hand,
        cycle: Cycle,
        late_s: float,
        later: Callable[[float, Callable[[], object]], object],
        pause: Callable[[], Pause],
        too_far: Callable[[], object],
    ) -> None:
        self._hand, self._cycle, self._late_s = hand, cycle, late_s
        self._later, self._pause, self._too_far = later, pause, too_far
        self._lock = threading.Lock()
        self._is_set = self._is_busy = False
        self._waiting: Pause | None = None

    def mind(self) -> None:
        """A body begins: see to what else is held if it takes long."""
        with self._lock:
            if self._is_set or not (self._hand.ended or not self._hand.is_empty):
                return
            self._is_set = True
        self._later(self._late_s, self._look)

    def _look(self) -> None:
        with self._lock:
            self._is_set, self._is_busy = False, True
        try:
            put_down(self._hand, self._cycle, self._too_far, self._late_s)
        except StoreUnavailable as away:
            logger.warning("What else a child holds waits for its body: %s", away)
        finally:
            with self._lock:
                self._is_busy, waiting, self._waiting = False, self._waiting, None
            if waiting is not None:
                waiting.wake()
        self.mind()

    def wait(self) -> None:
        """Wait until what is taken away has been recorded or given back."""
        with self._lock:
            waiting = self._waiting = self._pause() if self._is_busy else None
        if waiting is not None:
            waiting.wait()


def put_down(hand: Hand, cycle: Cycle, too_far: Callable[[], object], late_s: float | None = None) -> None:
    """Record what has ended, and give back what has not begun.

    Raises:
        StoreUnavailable: The store is away; the hand holds it again.
    """
    ended, steps = hand.take_all(late_s)
    try:
        if ended:
            cycle.settle(Turn(ended))
            ended = ()
        if steps:
            too_far()
            cycle.give_all_back([each.claimed.claim for each in steps if each.claimed is not None], NOT_BEGUN)
    except StoreUnavailable:
        hand.return_all(ended, steps)
        raise
    finally:
        hand.left()


class Later(Protocol):
    """Calls a function after some seconds, on another thread."""

    def __call__(self, seconds: float, function: Callable[[], object], /) -> object:
        """Call it. Not again before it was called."""
        ...


class Minder:
    """Calls one function at a time after some seconds, on a thread of its own that is made at first use."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._what: tuple[float, Callable[[], object]] = (0.0, lambda: None)
        self._thread: threading.Thread | None = None

    def __call__(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function later."""
        self._what = (seconds, function)
        self._asked.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="orchestra-relief", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()
            seconds, function = self._what
            time.sleep(seconds)
            try:
                function()
            except Exception:
                logger.exception("What a child holds cannot be seen to")
