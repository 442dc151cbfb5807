"""The part of the store contract that is about what running steps write down. Normative.

Checkpoints are for the step itself, progress and log lines for people. Only the newest claim of a running step writes.
All of it is kept over claims, crashes, retries and manual retries of the step, and goes with its run.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Protocol

from orchestra.model.ids import StepRef
from orchestra.model.record import LogLine, Progress
from orchestra.store.values import ClaimRef

MOST_LINES = 1000
"""How many log lines of a run are kept: the newest."""


class Notes(Protocol):
    """Where running steps write down how far they are."""

    def save_checkpoint(self, claim: ClaimRef, key: str, value: str, now: float) -> bool:
        """Keep a JSON text under a key, in the place of what was there.

        False when the claim is superseded, that is when the step is no longer RUNNING under it; nothing changes then.
        """
        ...

    def checkpoints(self, ref: StepRef) -> Mapping[str, str]:
        """Return what was saved of a step: JSON texts by key."""
        ...

    def run_checkpoints(self, run_id: str, key: str | None = None) -> Mapping[int, Mapping[str, str]]:
        """Return what was saved of all steps of a run, by number; a step that saved nothing is not there.

        With a key, only what was saved under it, without reading the rest.
        """
        ...

    def tell(self, claim: ClaimRef, progress: Progress | None, lines: Sequence[LogLine], now: float) -> bool:
        """Keep progress, where it is given, and log lines, of which the newest ``MOST_LINES`` of a run stay.

        False when the claim is superseded; nothing changes then.
        """
        ...

    def progress(self, run_id: str) -> Mapping[int, Progress]:
        """Return what the steps of a run told last, by number."""
        ...

    def logs(self, run_id: str, n: int | None, limit: int) -> Sequence[LogLine]:
        """Return the newest log lines of a run, or of one of its steps, oldest first."""
        ...


def line_text(line: LogLine) -> str:
    """Return a line as stores keep it."""
    return json.dumps([line.n, line.claim, line.at, line.level, line.text])


def line_of(text: str) -> LogLine:
    """Return the line that ``line_text`` wrote."""
    return LogLine(*json.loads(text))


def progress_text(progress: Progress) -> str:
    """Return progress as stores keep it."""
    return json.dumps([progress.share, progress.text, progress.at])


def progress_of(text: str) -> Progress:
    """Return the progress that ``progress_text`` wrote."""
    return Progress(*json.loads(text))
