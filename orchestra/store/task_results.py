"""TaskResults: what a Celery result backend keeps — results of tasks, groups, chords. Normative, like ``contract``.

It knows nothing of Celery: a payload is bytes that the caller can read again, a state is a text of which only
``SUCCESS`` means something here. Times are seconds since the epoch and are given by the caller. A result or a group
whose ``expires_at`` has come is as good as gone; ``expire`` deletes it, and chords.

A chord is OPEN until as many parts were counted as it has, then COMPLETE until its callback was published, then DONE.
The result of a part and its being counted are one transaction. Whoever makes it COMPLETE holds a claim on it for
``CLAIM_S``; when that runs out first, the next one who looks (``overdue``) takes it over. So a callback may be
published twice where its publisher died or froze, never not at all; claims are numbered, and only the newest ends it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

SUCCESS = "SUCCESS"
"""The state that nothing replaces: a copy of a task that is late or fails leaves the result as it is."""
CLAIM_S = 5.0
"""How long a chord that is complete belongs to who found it so; ``renew`` begins that time anew."""
LAST = 2**31 - 1
"""The place of a part that has none: behind all others."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The state of a task, and what came of it."""

    task_id: str
    state: str
    payload: bytes
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class ChordPart:
    """A task of a chord's header has ended.

    Parts are told apart by task *and* place, since a header may hold the same frozen task twice.
    """

    group_id: str
    task_id: str
    place: int
    payload: bytes
    callback: bytes
    """What is to be published when this part is the last one."""
    expires_at: float | None = None
    """Until when the chord is kept; every part moves it."""


class ChordClaim(NamedTuple):
    """One claim of one chord that is complete."""

    group_id: str
    number: int


@dataclass(frozen=True, slots=True)
class CompleteChord:
    """All that is needed to publish a callback."""

    callback: bytes
    header: bytes | None
    """What ``begin_chord`` was given."""
    parts: Sequence[bytes]
    """Payloads in the order of places; those of one place by task."""


class Changed(Protocol):
    """Is told that results may have changed; called in a thread of the store's, and has to be quick."""

    def __call__(self, task_id: str | None, payload: bytes | None = None) -> None:
        """One task has a new state, with its payload where that travelled along; or, for None, any may have."""
        ...


class Ears(Protocol):
    """Hears of changes of the results that somebody waits for. All methods may be called by any thread."""

    def add(self, task_id: str) -> None:
        """From a moment on, every change of this result is told. At that moment it is told once, if it is not now."""
        ...

    def discard(self, task_id: str) -> None:
        """Changes of this result need not be told any more. Takes no lock: garbage collection may call it anywhere."""
        ...

    def close(self) -> None:
        """Hear nothing any more; a second time does nothing."""
        ...


class TaskResults(Protocol):
    """Where results, groups and chords are kept. Every method is one transaction."""

    url: str
    """How it was opened, without its password."""
    expires_by_itself: bool
    """Whether nobody has to call ``expire``."""

    def record(self, result: TaskResult | None, part: ChordPart | None, now: float) -> ChordClaim | None:
        """Keep a result and count a part, both or neither; return a claim if this part completed its chord.

        A result that has the state SUCCESS stays as it is. A part that was counted before is not counted again and
        keeps its first payload; neither is one of a chord that is not OPEN. The chord need not have begun.
        """
        ...

    def results(self, task_ids: Sequence[str], now: float) -> dict[str, bytes]:
        """Return the payloads of those that have a result."""
        ...

    def forget(self, task_id: str) -> None:
        """Delete a result."""
        ...

    # --- groups --------------------------------------------------------------------------------------------------

    def save_group(self, group_id: str, payload: bytes, expires_at: float | None) -> None:
        """Keep what a group consists of, or replace it."""
        ...

    def group(self, group_id: str, now: float) -> bytes | None:
        """Return what a group consists of."""
        ...

    def forget_group(self, group_id: str) -> None:
        """Delete a group; what its tasks came to stays."""
        ...

    # --- chords --------------------------------------------------------------------------------------------------

    def begin_chord(self, group_id: str, header: bytes | None, expires_at: float | None) -> None:
        """Begin a chord, before its parts are sent. One of that id is begun anew: OPEN, no part counted, no size."""
        ...

    def size_chord(self, group_id: str, size: int, expires_at: float | None) -> None:
        """Say how many parts a chord has. Without it no part completes it. One that is DONE is begun anew."""
        ...

    def grow_chord(self, group_id: str, expires_at: float | None) -> None:
        """A part is added to a chord. The part that adds it has not been counted, so the chord is OPEN."""
        ...

    def complete_chord(self, claim: ChordClaim) -> CompleteChord | None:
        """Return what is to be published for a claim; None when it was superseded, or the chord is gone."""
        ...

    def renew(self, claim: ChordClaim, now: float) -> bool:
        """Hold a claim for ``CLAIM_S`` from now; False when it was superseded."""
        ...

    def end_chord(self, claim: ChordClaim, now: float) -> bool:
        """The callback is published: the chord is DONE, its parts are deleted; False when the claim was superseded."""
        ...

    def overdue(self, now: float, limit: int) -> Sequence[ChordClaim]:
        """Claim chords that are COMPLETE and whose claims have run out, those that did first."""
        ...

    # --- keeping -------------------------------------------------------------------------------------------------

    def expire(self, now: float, limit: int) -> int:
        """Delete what has expired, at most ``limit`` results, groups and chords each; returns how many were deleted.

        A store that drops them by itself has nothing to do.
        """
        ...

    def listen(self, changed: Changed) -> Ears:
        """Return ears that tell of changes, made by any process. Nothing is started before the first ``add``."""
        ...

    def close(self) -> None:
        """Close; a second time does nothing."""
        ...


__all__ = [
    "CLAIM_S",
    "LAST",
    "SUCCESS",
    "Changed",
    "ChordClaim",
    "ChordPart",
    "CompleteChord",
    "Ears",
    "TaskResult",
    "TaskResults",
]
