"""The board: a page of memory on which the children of a pool show their parent what they are at.

A page costs neither side a call: children write a row before and after each step that they go on with, and the parent
reads when a child has died, a step was cancelled, or it compares what it holds with the store.
"""

import mmap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from orchestra.model.ids import MessageRef

_BETWEEN, _WITHIN = "\0", "\1"


class At(NamedTuple):
    """What a child is at that was given a message: a step, the others that it may hold (Celery ids all of them), and
    the runs of which it may have just claimed steps that it does not know yet."""

    message: str
    step: str
    hand: Sequence[str] = ()
    claiming: Sequence[str] = ()


class Board:
    """Pages that the children of a pool share with their parent: whether they may continue, and what each is at.

    A row has two halves, of which its first byte names the one that counts: so a reader sees the old or the new. The
    first row is the parent's.

    Args:
        children: How many there may be; those beyond do not continue.
    """

    ROOM = 2040
    """Bytes for all that one child says."""
    _ROW, _HALF, _LENGTH = 4096, 2047, 2

    def __init__(self, children: int = 512) -> None:
        self._page = mmap.mmap(-1, self._ROW * (children + 1))
        self._rows = range(1, children + 1)

    @property
    def may_continue(self) -> bool:
        """Whether children may continue."""
        return bool(self._page[0])

    @property
    def queues(self) -> Sequence[str]:
        """The queues whose messages their parent would give them; none where that cannot be said."""
        text = self._text(0)
        return text.split(_WITHIN) if text else ()

    def allow(self, queues: Sequence[str] = ()) -> None:
        """Children may continue.

        Args:
            queues: Those that the worker serves; none where it fetches ahead from them, or there are too many to say.
        """
        text = _WITHIN.join(queues).encode()
        self._put(0, text if len(text) <= self.ROOM else b"")

    def forbid(self) -> None:
        """Children may not continue."""
        self.clear(0)

    def place(self, index: int | None) -> int | None:
        """Return the row of a child, if there is one for it."""
        return None if index is None or index + 1 not in self._rows else index + 1

    def has_room_for(self, message: str, step: str, hand: Iterable[str] = (), claiming: Iterable[str] = ()) -> bool:
        """Whether so long ids can be said."""
        return len(_text(At(message, step, tuple(hand), tuple(claiming)))) <= self.ROOM

    def write(self, row: int, message: str, step: str, hand: Iterable[str] = (), claiming: Iterable[str] = ()) -> None:
        """Say what a child is at that was given a message, what else it holds, and of which runs it is about to claim.

        What there is no room for is left out: the parent takes those claims for lost while they are held.
        """
        self._put(row, _text(At(message, step, tuple(hand), tuple(claiming)))[: self.ROOM])

    def clear(self, row: int) -> None:
        """A child is at the message that it was given, or at nothing."""
        self._page[row * self._ROW] = 0

    def step_at(self, message: str) -> str | None:
        """Return the step that the child is at which was given a message.

        None when several were given it (a double, or a retry) and are not at the same: it cannot be said of one.
        """
        steps = {each.step for each in self._of(message)} or {message}
        return steps.pop() if len(steps) == 1 else None

    def in_hand(self, message: str) -> Sequence[str]:
        """Return what else the child may hold which was given a message, where that can be said of one child."""
        rows = self._of(message)
        return rows[0].hand if len(rows) == 1 else ()

    def is_with_others(self, message: str, ref: MessageRef) -> bool:
        """Whether a step may be with another child than the one which was given a message.

        Children show what they are about to claim: who knows of a claim and then finds nothing here, knows that it is
        not theirs.
        """
        celery_id, run_id = ref.celery_id, ref.step.run_id
        others = [at for row in self._rows if (at := self.read(row)) is not None and at.message != message]
        return any(celery_id in (at.message, at.step, *at.hand) or run_id in at.claiming for at in others)

    def may_be_at(self, message: str, ref: MessageRef) -> bool:
        """Whether a child that was given a message is at a step, or may hold it."""
        celery_id, run_id = ref.celery_id, ref.step.run_id
        return celery_id == message or any(
            celery_id == each.step or celery_id in each.hand or run_id in each.claiming for each in self._of(message)
        )

    def _of(self, message: str) -> list[At]:
        return [at for row in self._rows if (at := self.read(row)) is not None and at.message == message]

    def read(self, row: int) -> At | None:
        """Return what a child is at. Of a dead one it is the last."""
        text = self._text(row)
        if text is None:
            return None
        message, step, hand, claiming = (text + 3 * _BETWEEN).split(_BETWEEN)[:4]
        return At(message, step, *(tuple(each.split(_WITHIN)) if each else () for each in (hand, claiming)))

    def _put(self, row: int, text: bytes) -> None:
        half = 2 if self._page[row * self._ROW] == 1 else 1
        at = self._start(row, half)
        self._page[at : at + self._LENGTH] = len(text).to_bytes(self._LENGTH)
        self._page[at + self._LENGTH : at + self._LENGTH + len(text)] = text
        self._page[row * self._ROW] = half

    def _text(self, row: int) -> str | None:
        half = self._page[row * self._ROW]
        if not half:
            return None
        at = self._start(row, half)
        length = int.from_bytes(self._page[at : at + self._LENGTH])
        return self._page[at + self._LENGTH : at + self._LENGTH + length].decode(errors="replace")

    def _start(self, row: int, half: int) -> int:
        return row * self._ROW + 1 + (half - 1) * self._HALF


def _text(at: At) -> bytes:
    return _BETWEEN.join((at.message, at.step, _WITHIN.join(at.hand), _WITHIN.join(at.claiming))).encode()
