"""The command line in tests, as it answers a person: its exit status and what it prints."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.forks import Fork


def orchestra(
    *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``orchestra`` with these arguments, and return its status and what it printed.

    Args:
        cwd: Default: the folder of the project.
        env: The whole environment; default that of the tests, without what configures Orchestra.
    """
    if env is None:
        env = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRA_")}
    with TemporaryDirectory(prefix="orchestra-command-") as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        status = Fork(["-m", "orchestra", *arguments], out=out, err=err, cwd=cwd, env=env).wait()
        return subprocess.CompletedProcess(["orchestra", *arguments], status, out.read_text(), err.read_text())
