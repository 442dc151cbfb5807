"""The probe, for liveness and readiness: `python -m beat.probe` exits 0 while the beat reaches its store."""

import sys
import time
from pathlib import Path

from beat import HEARTBEAT

LONGEST_SILENCE_S = 30.0
"""Longer than a restart of the store takes, during which a beat waits and is not to be killed."""


def alive(heartbeat: Path, now: float) -> bool:
    """Whether the beat touched its file lately."""
    try:
        return now - heartbeat.stat().st_mtime <= LONGEST_SILENCE_S
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    sys.exit(0 if alive(HEARTBEAT, time.time()) else 1)
