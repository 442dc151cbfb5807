"""Worker pods: one small module per role, saying what a pod of that role serves.

These modules are entry points and hold no logic: a role becomes an `orchestra worker` command line, so that
people who install the wheel (which does not hold this package) get the same from the command itself.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

APP_VARIABLE = "ORCHESTRA_APP"


@dataclass(frozen=True)
class Role:
    """What the pods of one role have in common.

    `queues` empty means the queues the application itself names; `concurrency` None means one slot per CPU that
    the pod may use.
    """

    name: str
    queues: tuple[str, ...] = ()
    pool: str = "prefork"
    concurrency: int | None = None

    def command(self, app: str, extra: Sequence[str] = ()) -> list[str]:
        """Return the command line that serves this role for `app` (`module:attribute`); `extra` overrides."""
        command = ["orchestra", "worker", "--app", app, "--pool", self.pool]
        if self.concurrency is not None:
            command += ["--concurrency", str(self.concurrency)]
        if self.queues:
            command += ["--queues", ",".join(self.queues)]
        return [*command, *extra]

    def serve(self) -> NoReturn:
        """Become the worker, so that the pod's signals reach it and not a wrapper around it."""
        app = os.environ.get(APP_VARIABLE)
        if not app:
            sys.exit(f"{APP_VARIABLE} is not set: role {self.name!r} expects module:attribute of your Orchestrator.")
        command = self.command(app, sys.argv[1:])
        os.execvp(command[0], command)
