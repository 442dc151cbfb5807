"""SqlTaskResults: results of Celery tasks in SQLite and PostgreSQL."""

from collections.abc import Sequence

from orchestra.store.sql.database import Transaction
from orchestra.store.sql.opening import open_database
from orchestra.store.sql.statements import task_results as sql
from orchestra.store.task_results import (
    CLAIM_S,
    Changed,
    ChordClaim,
    ChordPart,
    CompleteChord,
    Ears,
    TaskResult,
)

CHANNEL = "task_results"
"""Where a server tells of changes."""
_SIZES = (1, 8, 64, 512)
"""How many results one statement reads; there are few, so that each is prepared once."""


class SqlTaskResults:
    """The contract says what each method does.

    Args:
        url: As for ``SqlStore``, of which it takes tables of its own.

    Raises:
        SettingsError: The URL is of no kind that is supported, or the tables are of another version.
        StoreUnavailable: It cannot be opened.
    """

    expires_by_itself = False

    def __init__(self, url: str) -> None:
        self._database = open_database(url)
        self.url = self._database.url
        self._channel = self._database.channel(CHANNEL)

    def record(self, result: TaskResult | None, part: ChordPart | None, now: float) -> ChordClaim | None:
        def block(tx: Transaction) -> ChordClaim | None:
            if result is not None:
                self._put(tx, result, now)
            # Last, since a chord's parts wait for each other here until their transactions end.
            return None if part is None else _count(tx, part, now)

        # A result alone may be put twice.
        return self._database.singly(block) if part is None else self._database.write(block)

    def _put(self, tx: Transaction, result: TaskResult, now: float) -> None:
        given = {"task_id": result.task_id, "state": result.state, "payload": result.payload}
        if tx.combines:
            tx.run(sql.PUT_AND_TELL, **given, expires_at=result.expires_at, now=now, channel=self._channel)
        else:
            tx.run(sql.PUT_RESULT, **given, expires_at=result.expires_at, now=now)

    def results(self, task_ids: Sequence[str], now: float) -> dict[str, bytes]:
        def block(tx: Transaction) -> dict[str, bytes]:
            found: dict[str, bytes] = {}
            for first in range(0, len(task_ids), _SIZES[-1]):
                found.update(_read(tx, task_ids[first : first + _SIZES[-1]], now))
            return found

        return self._database.read(block)

    def forget(self, task_id: str) -> None:
        self._database.write(lambda tx: tx.run(sql.FORGET_RESULT, task_id=task_id))

    # --- groups --------------------------------------------------------------------------------------------------

    def save_group(self, group_id: str, payload: bytes, expires_at: float | None) -> None:
        self._database.write(
            lambda tx: tx.run(sql.PUT_GROUP, group_id=group_id, payload=payload, expires_at=expires_at)
        )

    def group(self, group_id: str, now: float) -> bytes | None:
        return self._database.read(lambda tx: tx.value(sql.GET_GROUP, group_id=group_id, now=now))

    def forget_group(self, group_id: str) -> None:
        self._database.write(lambda tx: tx.run(sql.FORGET_GROUP, group_id=group_id))

    # --- chords --------------------------------------------------------------------------------------------------

    def begin_chord(self, group_id: str, header: bytes | None, expires_at: float | None) -> None:
        def block(tx: Transaction) -> None:
            if tx.one(sql.RENEW_CHORD, group_id=group_id, new_header=header, new_expiry=expires_at) is None:
                _put_chord(tx, group_id, header=header, expires_at=expires_at)
            else:
                tx.run(sql.DROP_PARTS, group_id=group_id)

        self._database.write(block)

    def size_chord(self, group_id: str, size: int, expires_at: float | None) -> None:
        def block(tx: Transaction) -> None:
            if tx.one(sql.SIZE_CHORD, group_id=group_id, new_size=size, new_expiry=expires_at) is None:
                _put_chord(tx, group_id, size=size, expires_at=expires_at)

        self._database.write(block)

    def grow_chord(self, group_id: str, expires_at: float | None) -> None:
        def block(tx: Transaction) -> None:
            if tx.one(sql.GROW_CHORD, group_id=group_id, new_expiry=expires_at) is None:
                _put_chord(tx, group_id, grown=1, expires_at=expires_at)

        self._database.write(block)

    def complete_chord(self, claim: ChordClaim) -> CompleteChord | None:
        def block(tx: Transaction) -> CompleteChord | None:
            found = tx.one(sql.CALLBACK, group_id=claim.group_id, claim=claim.number)
            if found is None:
                return None
            callback, header = found
            parts = [payload for (payload,) in tx.all(sql.PARTS, group_id=claim.group_id)]
            return CompleteChord(callback, header, parts)

        return self._database.read(block)

    def renew(self, claim: ChordClaim, now: float) -> bool:
        given = {"group_id": claim.group_id, "claim": claim.number, "new_due": now + CLAIM_S}
        return self._database.write(lambda tx: tx.one(sql.HOLD_CHORD, **given)) is not None

    def end_chord(self, claim: ChordClaim, now: float) -> bool:
        def block(tx: Transaction) -> bool:
            if tx.one(sql.END_CHORD, group_id=claim.group_id, claim=claim.number) is None:
                return False
            tx.run(sql.DROP_PARTS, group_id=claim.group_id)
            return True

        return self._database.write(block)

    def overdue(self, now: float, limit: int) -> Sequence[ChordClaim]:
        late = self._database.read(lambda tx: tx.all(sql.OVERDUE, now=now, limit=limit))
        if not late:
            return []

        def block(tx: Transaction) -> list[ChordClaim]:
            due = now + CLAIM_S
            taken = [(id_, tx.value(sql.TAKE_OVER, group_id=id_, now=now, new_due=due)) for (id_,) in sorted(late)]
            return [ChordClaim(id_, number) for id_, number in taken if number is not None]

        return self._database.write(block)

    # --- keeping -------------------------------------------------------------------------------------------------

    def expire(self, now: float, limit: int) -> int:
        def block(tx: Transaction) -> int:
            chords = tx.all(sql.EXPIRE_CHORDS, now=now, limit=limit)
            for (group_id,) in chords:
                tx.run(sql.DROP_PARTS, group_id=group_id)
            others = (tx.all(each, now=now, limit=limit) for each in (sql.EXPIRE_RESULTS, sql.EXPIRE_GROUPS))
            return len(chords) + sum(map(len, others))

        return self._database.write(block)

    def listen(self, changed: Changed) -> Ears:
        return self._database.ears(self._channel, changed)

    def close(self) -> None:
        self._database.close()


def _count(tx: Transaction, part: ChordPart, now: float) -> ChordClaim | None:
    key = {"group_id": part.group_id, "place": part.place, "task_id": part.task_id}
    if tx.one(sql.PUT_PART, **key, payload=part.payload) is None:
        return None
    found = tx.one(sql.COUNT_PART, group_id=part.group_id, new_expiry=part.expires_at)
    if found is None:
        if tx.one(sql.HAS_CHORD, group_id=part.group_id) is None:
            _put_chord(tx, part.group_id, counted=1, expires_at=part.expires_at)
        else:
            tx.run(sql.TAKE_PART_BACK, **key)
        return None
    counted, size, grown = found
    if size is None or counted < size + grown:
        return None
    given = {"group_id": part.group_id, "new_callback": part.callback, "new_due": now + CLAIM_S}
    return ChordClaim(part.group_id, tx.value(sql.COMPLETE_CHORD, **given))


def _put_chord(tx: Transaction, group_id: str, **known: object) -> None:
    # Where another transaction is faster, this one is tried again, and finds the row.
    empty = {"size": None, "grown": 0, "counted": 0, "header": None, "callback": None, "due_at": None}
    tx.run(sql.PUT_CHORD, group_id=group_id, status="OPEN", claims=0, **{**empty, **known})


def _read(tx: Transaction, task_ids: Sequence[str], now: float) -> list[tuple[str, bytes]]:
    number = next(each for each in _SIZES if each >= len(task_ids))
    padded = [*task_ids, *[task_ids[-1]] * (number - len(task_ids))] if task_ids else []
    if not padded:
        return []
    return tx.all(sql.results_among(number), now=now, **{f"id_{at}": each for at, each in enumerate(padded)})
