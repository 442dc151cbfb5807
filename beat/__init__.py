"""The scheduler pod: becomes an `orchestra beat` command line, and says whether it is alive.

    ORCHESTRA_APP=tasks:orch python -m beat
    python -m beat.probe

Any number of these pods may run on one store; none is a leader.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

APP_VARIABLE = "ORCHESTRA_APP"
HEARTBEAT = Path("/tmp/orchestra-beat")
"""Touched by the beat twice a second, while it reaches the store."""


def command(app: str | None, extra: Sequence[str] = ()) -> list[str]:
    """Return the command line of the pod. Without `app` (`module:attribute`) the ORCHESTRA_* variables say all."""
    named = [] if app is None else ["--app", app]
    return ["orchestra", "beat", *named, "--heartbeat", str(HEARTBEAT), *extra]


def main() -> NoReturn:
    """Become the beat, so that the pod's signals reach it and not a wrapper around it."""
    line = command(os.environ.get(APP_VARIABLE), sys.argv[1:])
    os.execvp(line[0], line)
