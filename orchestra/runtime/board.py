"""The board: a page of memory on which the children of a pool show their parent what they are at.

A page costs neither side a call: children write a row before and after each step that they go on with, and the parent
reads when a child has died, a step was cancelled, or it compares what it holds with the store.
"""

import mmap
from typing import NamedTuple

from orchestra.model.ids import MessageRef


class At(NamedTuple):
    """What a child is at that was given a message: a step, Celery ids both, and the run of which it may have just
    claimed another one."""

    message: str
    step: str
    claiming: str = ""


class Board:
    """A page that the children of a pool share with their parent: whether they may continue, and what each is at.

    A row has two halves, of which its first byte names the one that counts: so a reader sees the old or the new.

    Args:
        children: How many there may be; those beyond do not continue.
    """

    _ROW, _HALF = 512, 255

    def __init__(self, children: int = 512) -> None:
        self._page = mmap.mmap(-1, self._ROW * (children + 1))
        self._rows = range(1, children + 1)

    @property
    def may_continue(self) -> bool:
        """Whether children may continue."""
        return bool(self._page[0])

    @may_continue.setter
    def may_continue(self, may: bool) -> None:
        self._page[0] = may

    def place(self, index: int | None) -> int | None:
        """Return the row of a child, if there is one for it."""
        return None if index is None or index + 1 not in self._rows else index + 1

    def has_room_for(self, message: str, step: str, claiming: str = "") -> bool:
        """Whether so long ids can be said."""
        return len(f"{message}\0{step}\0{claiming}".encode()) < self._HALF

    def write(self, row: int, message: str, step: str, claiming: str = "") -> None:
        """Say what a child is at that was given a message, and of which run it is about to claim another step."""
        text = f"{message}\0{step}\0{claiming}".encode()
        half = 2 if self._page[row * self._ROW] == 1 else 1
        at = self._start(row, half)
        self._page[at] = len(text)
        self._page[at + 1 : at + 1 + len(text)] = text
        self._page[row * self._ROW] = half

    def _start(self, row: int, half: int) -> int:
        return row * self._ROW + 1 + (half - 1) * self._HALF

    def clear(self, row: int) -> None:
        """A child is at the message that it was given, or at nothing."""
        self._page[row * self._ROW] = 0

    def step_at(self, message: str) -> str | None:
        """Return the step that the child is at which was given a message.

        None when several were given it (a double, or a retry) and are not at the same: it cannot be said of one.
        """
        steps = {each.step for each in self._of(message)} or {message}
        return steps.pop() if len(steps) == 1 else None

    def may_be_at(self, message: str, ref: MessageRef) -> bool:
        """Whether a child that was given a message is at a step, or may have just claimed it."""
        return ref.celery_id == message or any(
            ref.celery_id == each.step or ref.step.run_id == each.claiming for each in self._of(message)
        )

    def _of(self, message: str) -> list[At]:
        return [at for row in self._rows if (at := self.read(row)) is not None and at.message == message]

    def read(self, row: int) -> At | None:
        """Return what a child is at. Of a dead one it is the last."""
        half = self._page[row * self._ROW]
        if not half:
            return None
        at = self._start(row, half)
        return At(*self._page[at + 1 : at + 1 + self._page[at]].decode(errors="replace").split("\0"))
