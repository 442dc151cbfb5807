"""Keeping: what a body writes down while it runs, and the way from there to the store."""

import logging
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from typing import cast

from orchestra.errors import LeftEarly, StoreUnavailable, Superseded, UnknownId
from orchestra.model.current import Current, running
from orchestra.model.piece import Piece
from orchestra.model.record import LogLine, Progress, RunRecord
from orchestra.runtime.codec import decode, encode_output
from orchestra.store.contract import Store
from orchestra.store.values import Claimed, RunFilter

LOGGER = "orchestra.step"
"""Name of the logger of all bodies."""
LOOK_EVERY_S = 0.2
"""How old the knowledge may be of whether a step was asked to stop."""
WRITE_EVERY_S = 0.5
"""Progress and log lines are written no more often than this, and at the end of the body."""
_MOST_WAITING = 200
_LONGEST_TEXT = 4000


class Keeping:
    """What answers the body of one claim. Safe for several threads.

    Args:
        superseded: Says what this process itself knows: that the claim counts no more.
        leaving: Says whether the worker was told to go.
        say: Gives pieces of text to those who follow.
    """

    def __init__(
        self,
        store: Store,
        claimed: Claimed,
        clock: Callable[[], float],
        worker: str,
        superseded: Callable[[], bool] = lambda: False,
        leaving: Callable[[], bool] = lambda: False,
        say: Callable[[Piece], object] = lambda _piece: None,
    ) -> None:
        self._store, self._claimed, self._clock, self._worker = store, claimed, clock, worker
        self._superseded, self._leaving, self._say = superseded, leaving, say
        self._said: dict[str, int] = {}
        self._lock = threading.Lock()
        self._saved: dict[str, str] | None = {} if claimed.claim.claim == 1 else None
        self._run: RunRecord | None = None
        self._stopped = False
        self._looked_at = time.monotonic()
        self._told: Progress | None = None
        self._lines: list[LogLine] = []
        self._written_at = 0.0
        self._timer: threading.Timer | None = None

    # --- checkpoints --------------------------------------------------------------------------------------------

    def save(self, key: str, value: object) -> None:
        text = encode_output(value, self._claimed.name)
        if not self._store.save_checkpoint(self._claimed.claim, key, text, self._clock()):
            self._stopped = True
            raise Superseded(self._claimed.name)
        with self._lock:
            self._checkpoints()[key] = text

    def saved(self, key: str, default: object) -> object:
        with self._lock:
            text = self._checkpoints().get(key)
        return default if text is None else decode(text)

    def saved_keys(self) -> list[str]:
        with self._lock:
            return sorted(self._checkpoints())

    def earlier(self, metadata: Mapping[str, object], key: str, limit: int) -> list[object]:
        its = self._claimed.claim.ref.step.run_id
        found = self._store.runs(RunFilter(metadata=metadata, limit=limit + 1))
        runs = [each.id for each in found if each.id != its][:limit]
        found = [self._store.run_checkpoints(run_id, key) for run_id in reversed(runs)]
        return [decode(saved[n][key]) for saved in found for n in sorted(saved)]

    def others(self, key: str) -> dict[int, object]:
        its = self._claimed.claim.ref.step
        found = self._store.run_checkpoints(its.run_id, key)
        return {n: decode(saved[key]) for n, saved in found.items() if n != its.n}

    def _checkpoints(self) -> dict[str, str]:
        if self._saved is None:
            self._saved = dict(self._store.checkpoints(self._claimed.claim.ref.step))
        return self._saved

    # --- texts and events ---------------------------------------------------------------------------------------

    def say(self, text: str, by: str) -> None:
        with self._lock:
            offset = self._said.get(by, 0)
            self._said[by] = offset + len(text)
        self._say(Piece(str(self._claimed.claim.ref.step), by, offset, text))

    def emit(self, event_type: str, data: Mapping[str, object]) -> None:
        of = self._claimed.claim.ref.step
        self._store.emit(event_type, data, self._clock(), worker=self._worker, of=of, single=self.run().single)

    # --- the run, and whether to stop ---------------------------------------------------------------------------

    def run(self) -> RunRecord:
        if self._run is None:
            run_id = self._claimed.claim.ref.step.run_id
            self._run = self._store.run(run_id)
            if self._run is None:
                raise UnknownId("run", run_id)
        return self._run

    def stop_requested(self) -> bool:
        if self._stopped or self._superseded():
            return True
        now = time.monotonic()
        if now - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = now
            self.look()
        return self._stopped

    def leave_early(self) -> None:
        if self._leaving():
            raise LeftEarly(self._claimed.name)

    def look(self) -> bool:
        """Ask the store whether the claim still stands; returns whether it does not."""
        with suppress(StoreUnavailable):  # whoever cannot ask goes on
            held = self._store.claimed(self._claimed.claim.ref, self._worker)
            self._stopped = held is None or held.claim != self._claimed.claim
        return self._stopped

    # --- progress and log lines ---------------------------------------------------------------------------------

    def tell(self, share: float | None, message: str) -> None:
        with self._lock:
            self._told = Progress(share, message[:_LONGEST_TEXT], self._clock())
        self._write_at_times()

    def log(self, level: str, text: str) -> None:
        """Keep a log line."""
        claim = self._claimed.claim
        with self._lock:
            line = LogLine(claim.ref.step.n, claim.claim, self._clock(), level, text[:_LONGEST_TEXT])
            self._lines.append(line)
        self._write_at_times()

    def _write_at_times(self) -> None:
        left = self._written_at + WRITE_EVERY_S - time.monotonic()
        if left <= 0 or len(self._lines) >= _MOST_WAITING:
            self.write()
        elif self._timer is None:
            self._timer = threading.Timer(left, self.write)  # the body may say nothing for an hour now
            self._timer.daemon = True
            self._timer.start()

    def write(self) -> None:
        """Write what has not been written. What cannot be is not worth the body's failure."""
        with self._lock:
            told, lines, self._told, self._lines = self._told, self._lines, None, []
            self._written_at = time.monotonic()
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if told is not None or lines:
            with suppress(StoreUnavailable):
                self._store.tell(self._claimed.claim, told, lines, self._clock())


class _Lines(logging.LoggerAdapter[logging.Logger]):
    """Names run and step in each record, and keeps its text."""

    def __init__(self, keeping: Keeping, about: Mapping[str, object]) -> None:
        super().__init__(logging.getLogger(LOGGER), about)
        self._keeping = keeping

    def log(self, level: int, msg: object, *args: object, **kwargs: object) -> None:
        """Log and keep."""
        super().log(level, msg, *args, **kwargs)  # pyright: ignore[reportArgumentType]
        if level >= logging.INFO:
            self._keeping.log(logging.getLevelName(level), str(msg) % args if args else str(msg))


@contextmanager
def keeping(make: Callable[[], Keeping], claimed: Claimed, ends_at: float | None) -> Generator[None]:
    """Let a body ask for its ``current()``. It costs nothing before it does."""
    made: list[tuple[Current, Keeping]] = []
    lock = threading.Lock()

    def get() -> Current:
        with lock:
            if not made:
                its = make()
                made.append((_current(its, claimed, ends_at), its))
            return made[0][0]

    token = running.set(get)
    try:
        yield
    finally:
        running.reset(token)
        for _its_current, its in made:
            its.write()


def _current(its: Keeping, claimed: Claimed, ends_at: float | None) -> Current:
    ref, name = claimed.claim.ref.step, claimed.name
    about = {"run_id": ref.run_id, "step": name, "step_id": str(ref)}
    return Current(
        its,
        ref,
        name,
        claim=claimed.claim.claim,
        attempt=claimed.attempts + 1,
        own=claimed.row.metadata or {},
        ends_at=ends_at,
        logger=cast(logging.Logger, _Lines(its, about)),
    )
