"""Worker pods: one small module per role, which becomes the `orchestra worker` of that role.

These modules are entry points and hold no logic: what a role is, `orchestra.runtime.roles` says, so that people who
install the wheel (which does not hold this package) get the same from `orchestra worker --role NAME`.
"""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from orchestra.runtime.roles import Role

APP_VARIABLE = "ORCHESTRA_APP"


def command(role: Role, app: str, extra: Sequence[str] = ()) -> list[str]:
    """Return the command line that serves a role for `app` (`module:attribute`); `extra` overrides."""
    return ["orchestra", "worker", "--app", app, "--role", role.name, *extra]


def serve(role: Role) -> NoReturn:
    """Become the worker, so that the pod's signals reach it and not a wrapper around it."""
    app = os.environ.get(APP_VARIABLE)
    if not app:
        sys.exit(f"{APP_VARIABLE} is not set: role {role.name!r} expects module:attribute of your Orchestrator.")
    line = command(role, app, sys.argv[1:])
    os.execvp(line[0], line)
