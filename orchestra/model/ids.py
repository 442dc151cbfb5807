"""Ids: of runs (time-ordered UUIDs) and of steps (a run and a number in it)."""

import os
import time
from typing import NamedTuple


def new_id() -> str:
    """Return a new id: a UUID of version 7 (RFC 9562), so that ids sort by the time of their making."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class StepRef(NamedTuple):
    """One step: the n-th of a run. Predecessors have smaller numbers than their successors."""

    run_id: str
    n: int

    def __str__(self) -> str:
        return f"{self.run_id}.{self.n}"


class MessageRef(NamedTuple):
    """One step as a message names it. The generation rises when a step is run again by hand, and makes a new Celery id,
    since workers refuse a revoked id for hours and Celery's own backends never overwrite a success."""

    step: StepRef
    generation: int

    @property
    def celery_id(self) -> str:
        """The Celery task id of this message."""
        return f"{self.step.run_id}.{self.step.n}.{self.generation}"

    @classmethod
    def parse(cls, celery_id: str) -> "MessageRef":
        """Return the reference that ``celery_id`` was made from."""
        run_id, n, generation = celery_id.rsplit(".", 2)
        return cls(StepRef(run_id, int(n)), int(generation))
