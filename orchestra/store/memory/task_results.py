"""MemoryTaskResults: results in dicts of this process."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestra.store.task_results import (
    CLAIM_S,
    SUCCESS,
    Changed,
    ChordClaim,
    ChordPart,
    CompleteChord,
    Ears,
    TaskResult,
)


@dataclass(slots=True)
class _Chord:
    size: int | None = None
    grown: int = 0
    claims: int = 0
    due_at: float | None = None
    """Set while it is COMPLETE."""
    is_done: bool = False
    header: bytes | None = None
    callback: bytes = b""
    expires_at: float | None = None
    parts: dict[tuple[int, str], bytes] = field(default_factory=dict[tuple[int, str], bytes])

    @property
    def is_open(self) -> bool:
        return self.due_at is None and not self.is_done


class MemoryTaskResults:
    """The contract says what each method does."""

    expires_by_itself = False

    def __init__(self) -> None:
        self.url = "memory://"
        self._lock = threading.Lock()
        self._results: dict[str, TaskResult] = {}
        self._groups: dict[str, tuple[bytes, float | None]] = {}
        self._chords: dict[str, _Chord] = {}
        self._ears: list[_Ears] = []

    def record(self, result: TaskResult | None, part: ChordPart | None, now: float) -> ChordClaim | None:
        with self._lock:
            claim = None if part is None else self._count(part, now)
            kept = None if result is None else self._results.get(result.task_id)
            changes = result is not None and (kept is None or kept.state != SUCCESS or _is_past(kept.expires_at, now))
            if result is not None and changes:
                self._results[result.task_id] = result
        if result is not None and changes:
            for ears in tuple(self._ears):
                ears.tell(result)
        return claim

    def _count(self, part: ChordPart, now: float) -> ChordClaim | None:
        chord = self._chords.setdefault(part.group_id, _Chord())
        if not chord.is_open:
            return None
        chord.parts.setdefault((part.place, part.task_id), part.payload)
        chord.expires_at = part.expires_at
        if chord.size is None or len(chord.parts) < chord.size + chord.grown:
            return None
        chord.callback = part.callback
        return self._claim(part.group_id, now)

    def _claim(self, group_id: str, now: float) -> ChordClaim:
        chord = self._chords[group_id]
        chord.claims, chord.due_at = chord.claims + 1, now + CLAIM_S
        return ChordClaim(group_id, chord.claims)

    def results(self, task_ids: Sequence[str], now: float) -> dict[str, bytes]:
        with self._lock:
            found = [self._results[each] for each in task_ids if each in self._results]
        return {each.task_id: each.payload for each in found if not _is_past(each.expires_at, now)}

    def forget(self, task_id: str) -> None:
        with self._lock:
            self._results.pop(task_id, None)

    def save_group(self, group_id: str, payload: bytes, expires_at: float | None) -> None:
        with self._lock:
            self._groups[group_id] = payload, expires_at

    def group(self, group_id: str, now: float) -> bytes | None:
        payload, expires_at = self._groups.get(group_id, (None, None))
        return None if _is_past(expires_at, now) else payload

    def forget_group(self, group_id: str) -> None:
        with self._lock:
            self._groups.pop(group_id, None)

    def begin_chord(self, group_id: str, header: bytes | None, expires_at: float | None) -> None:
        with self._lock:
            before = self._chords.get(group_id, _Chord())
            self._chords[group_id] = _Chord(claims=before.claims + 1, header=header, expires_at=expires_at)

    def size_chord(self, group_id: str, size: int, expires_at: float | None) -> None:
        with self._lock:
            chord = self._chords.setdefault(group_id, _Chord())
            if chord.is_done:
                chord = self._chords[group_id] = _Chord(claims=chord.claims, header=chord.header)
            chord.size, chord.expires_at = size, expires_at

    def grow_chord(self, group_id: str, expires_at: float | None) -> None:
        with self._lock:
            chord = self._chords.setdefault(group_id, _Chord())
            chord.grown, chord.expires_at = chord.grown + 1, expires_at

    def complete_chord(self, claim: ChordClaim) -> CompleteChord | None:
        with self._lock:
            chord = self._held(claim)
            if chord is None:
                return None
            return CompleteChord(chord.callback, chord.header, [chord.parts[each] for each in sorted(chord.parts)])

    def renew(self, claim: ChordClaim, now: float) -> bool:
        with self._lock:
            chord = self._held(claim)
            if chord is not None:
                chord.due_at = now + CLAIM_S
            return chord is not None

    def end_chord(self, claim: ChordClaim, now: float) -> bool:
        with self._lock:
            chord = self._held(claim)
            if chord is not None:
                chord.is_done, chord.due_at, chord.callback, chord.parts = True, None, b"", {}
            return chord is not None

    def _held(self, claim: ChordClaim) -> _Chord | None:
        chord = self._chords.get(claim.group_id)
        return chord if chord is not None and chord.claims == claim.number and chord.due_at is not None else None

    def overdue(self, now: float, limit: int) -> Sequence[ChordClaim]:
        with self._lock:
            late = sorted((each.due_at, id_) for id_, each in self._chords.items() if _is_past(each.due_at, now))
            return [self._claim(id_, now) for _, id_ in late[:limit]]

    def expire(self, now: float, limit: int) -> int:
        with self._lock:
            results = [id_ for id_, each in self._results.items() if _is_past(each.expires_at, now)][:limit]
            groups = [id_ for id_, (_, at) in self._groups.items() if _is_past(at, now)][:limit]
            chords = [id_ for id_, each in self._chords.items() if _is_past(each.expires_at, now)][:limit]
            for kept, expired in ((self._results, results), (self._groups, groups), (self._chords, chords)):
                for each in expired:
                    del kept[each]
            return len(results) + len(groups) + len(chords)

    def listen(self, changed: Changed) -> Ears:
        ears = _Ears(changed)
        self._ears.append(ears)
        return ears

    def close(self) -> None:
        self._ears.clear()


class _Ears:
    """Told by who records, at once."""

    def __init__(self, changed: Changed) -> None:
        self._changed = changed
        self._wanted: set[str] = set()

    def tell(self, result: TaskResult) -> None:
        if result.task_id in self._wanted:
            self._changed(result.task_id, result.payload)

    def add(self, task_id: str) -> None:
        self._wanted.add(task_id)

    def discard(self, task_id: str) -> None:
        self._wanted.discard(task_id)

    def close(self) -> None:
        self._wanted.clear()


def _is_past(moment: float | None, now: float) -> bool:
    return moment is not None and moment <= now
