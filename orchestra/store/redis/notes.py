"""Notes: what running steps write down, in keys of their own beside the hash of their run."""

from collections.abc import Mapping, Sequence

from orchestra.model.ids import StepRef
from orchestra.model.record import LogLine, Progress
from orchestra.store.notes import MOST_LINES, line_of, line_text, progress_of, progress_text
from orchestra.store.redis.connection import Connection
from orchestra.store.values import ClaimRef


class RedisNotes:
    """The part of the contract that is about notes."""

    _connection: Connection
    _key: str

    def save_checkpoint(self, claim: ClaimRef, key: str, value: str, now: float) -> bool:
        return self._connection.run("save_checkpoint", *_fence(claim), key, value) == 1

    def checkpoints(self, ref: StepRef) -> Mapping[str, str]:
        found = self._connection.command("HGETALL", f"{self._key}c:{ref}")
        return dict(zip(found[::2], found[1::2], strict=True))

    def run_checkpoints(self, run_id: str, key: str | None = None) -> Mapping[int, Mapping[str, str]]:
        found: dict[int, dict[str, str]] = {}
        first, only = 0, [] if key is None else [key]
        while first >= 0:
            saved, first = self._connection.run("run_checkpoints", run_id, first, *only)
            for n, name, value in zip(*[iter(saved)] * 3, strict=True):
                found.setdefault(int(n), {})[name] = value
        return found

    def tell(self, claim: ClaimRef, progress: Progress | None, lines: Sequence[LogLine], now: float) -> bool:
        told = "" if progress is None else progress_text(progress)
        texts = [line_text(line) for line in lines[-MOST_LINES:]]
        token = self._connection.token()
        return self._connection.run("tell", *_fence(claim), told, MOST_LINES, token, *texts) == 1

    def progress(self, run_id: str) -> Mapping[int, Progress]:
        found = self._connection.command("HGETALL", f"{self._key}p:{run_id}")
        return {int(n): progress_of(text) for n, text in zip(found[::2], found[1::2], strict=True)}

    def logs(self, run_id: str, n: int | None, limit: int) -> Sequence[LogLine]:
        texts = self._connection.command("LRANGE", f"{self._key}l:{run_id}", 0, -1)
        found = [line for line in map(line_of, texts) if n in (None, line.n)]
        return found[max(0, len(found) - limit) :]


def _fence(claim: ClaimRef) -> tuple[object, ...]:
    (step, generation), number = claim
    return step.run_id, step.n, generation, number
