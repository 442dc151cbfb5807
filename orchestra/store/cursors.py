"""The part of the store contract that is about named subscribers: how far each has read the log. Normative."""

from typing import NamedTuple, Protocol


class Cursor(NamedTuple):
    """How far a named subscriber has read, and who reads for it."""

    seq: int
    holder: str


class Cursors(Protocol):
    """Where named subscribers go on. One process at a time reads under a name; another takes over when it is gone."""

    def take_cursor(self, name: str, holder: str, start: int, now: float, until: float, instead_of: str = "") -> Cursor:
        """Hold the cursor of a name until a time, and return it as it is then; one that is new begins at ``start``.

        It is taken when nobody holds it, when the caller does, when its time ran out (``now`` is behind it), or when
        its holder is ``instead_of``, who is known to be gone. Otherwise nothing changes, and the holder is another.
        """
        ...

    def move_cursor(self, name: str, holder: str, seq: int, until: float) -> bool:
        """Move a cursor, and hold it until a time (0 gives it back). False when the caller does not hold it any more;
        nothing changes then."""
        ...

    def drop_cursor(self, name: str) -> bool:
        """Forget a name: whoever takes it next begins anew. False when there is none."""
        ...
