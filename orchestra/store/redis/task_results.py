"""RedisTaskResults: results of Celery tasks in Redis. One function on the server is one operation."""

from collections.abc import Sequence

from orchestra.store.redis.connection import Address, Connection
from orchestra.store.redis.library import task_results_library
from orchestra.store.redis.listening import RedisEars
from orchestra.store.redis.opening import check
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

_AT_ONCE = 500


class RedisTaskResults:
    """The contract says what each method does. What expires goes by itself.

    Args:
        url: As for ``RedisStore``, whose server and prefix it may share.

    Raises:
        SettingsError: The URL or a setting of the server is not possible, or the data is of another version.
        StoreUnavailable: It cannot be opened.
    """

    expires_by_itself = True

    def __init__(self, url: str) -> None:
        self._address = Address(url)
        # Payloads are bytes; they travel as the texts that stand for them.
        self._connection = Connection(self._address, library=task_results_library, encoding_errors="surrogateescape")
        self.url, self._key = self._connection.url, self._connection.key
        check(self._connection, durable=self._address.durable)

    def record(self, result: TaskResult | None, part: ChordPart | None, now: float) -> ChordClaim | None:
        kept: tuple[object, ...] = ("", "", "", "")
        if result is not None:
            kind = "S" if result.state == SUCCESS else "-"
            kept = (result.task_id, kind, result.payload, _moment(result.expires_at))
        counted: tuple[object, ...] = ("", "", "", "", "", "")
        if part is not None:
            place = f"{part.place:08x}{part.task_id}"
            counted = (part.group_id, place, part.payload, part.callback, _moment(part.expires_at), now + CLAIM_S)
        number = self._connection.run("record", *kept, *counted)
        return ChordClaim(part.group_id, number) if part is not None and number else None

    def results(self, task_ids: Sequence[str], now: float) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for first in range(0, len(task_ids), _AT_ONCE):
            some = task_ids[first : first + _AT_ONCE]
            answer = self._connection.command("MGET", *(f"{self._key}t:{each}" for each in some))
            found.update((id_, _bytes(text[1:])) for id_, text in zip(some, answer, strict=True) if text is not None)
        return found

    def forget(self, task_id: str) -> None:
        self._connection.command("UNLINK", f"{self._key}t:{task_id}")

    # --- groups --------------------------------------------------------------------------------------------------

    def save_group(self, group_id: str, payload: bytes, expires_at: float | None) -> None:
        until = () if expires_at is None else ("PXAT", _moment(expires_at))
        self._connection.command("SET", f"{self._key}tg:{group_id}", payload, *until)

    def group(self, group_id: str, now: float) -> bytes | None:
        found = self._connection.command("GET", f"{self._key}tg:{group_id}")
        return None if found is None else _bytes(found)

    def forget_group(self, group_id: str) -> None:
        self._connection.command("UNLINK", f"{self._key}tg:{group_id}")

    # --- chords --------------------------------------------------------------------------------------------------

    def begin_chord(self, group_id: str, header: bytes | None, expires_at: float | None) -> None:
        self._connection.run("begin", group_id, header or "", _moment(expires_at))

    def size_chord(self, group_id: str, size: int, expires_at: float | None) -> None:
        self._connection.run("size", group_id, size, _moment(expires_at))

    def grow_chord(self, group_id: str, expires_at: float | None) -> None:
        self._connection.run("grow", group_id, _moment(expires_at), self._connection.token())

    def complete_chord(self, claim: ChordClaim) -> CompleteChord | None:
        answer = self._connection.run("complete", *claim)
        if answer is None:
            return None
        callback, header, parts = answer
        payloads = dict(zip(parts[::2], parts[1::2], strict=True))
        in_order = [_bytes(payloads[each]) for each in sorted(payloads)]
        return CompleteChord(_bytes(callback), None if header is None else _bytes(header), in_order)

    def renew(self, claim: ChordClaim, now: float) -> bool:
        return bool(self._connection.run("renew", *claim, now + CLAIM_S))

    def end_chord(self, claim: ChordClaim, now: float) -> bool:
        return bool(self._connection.run("done", *claim))

    def overdue(self, now: float, limit: int) -> Sequence[ChordClaim]:
        answer = self._connection.run("overdue", now, limit, now + CLAIM_S)
        return [ChordClaim(id_, number) for id_, number in zip(answer[::2], answer[1::2], strict=True)]

    # --- keeping -------------------------------------------------------------------------------------------------

    def expire(self, now: float, limit: int) -> int:
        return 0

    def listen(self, changed: Changed) -> Ears:
        return RedisEars(self._connection.another, f"{self._key}t:", changed)

    def close(self) -> None:
        self._connection.close()


def _moment(at: float | None) -> object:
    return "" if at is None else int(at * 1000)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
