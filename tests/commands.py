"""The command line in tests: each call is a process of its own, forked from one that has imported the program before.

A new interpreter would spend a second on its imports each time. What differs from that is the import alone: arguments,
environment, folder, both streams and the exit status are those of the call.
"""

import atexit
import json
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
_lock = threading.Lock()


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
    with TemporaryDirectory(prefix="orchestra-command-") as folder, _lock:
        call = {"arguments": arguments, "cwd": str(cwd or ROOT), "env": dict(env), "folder": folder}
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(call) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        out, err = ((Path(folder) / name).read_text() for name in ("out", "err"))
    return subprocess.CompletedProcess(["orchestra", *arguments], status, out, err)


@cache
def _server() -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.commands"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    atexit.register(server.terminate)
    return server


def _serve() -> None:
    """Fork a process for each line of the standard input, and say how it ended."""
    import orchestra.cli
    import orchestra.store.sql.store  # noqa: F401  # what commands import later

    for line in sys.stdin:
        call = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(call["arguments"], call["cwd"], call["env"], Path(call["folder"]))
        _pid, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(arguments: list[str], cwd: str, env: dict[str, str], folder: Path) -> None:
    """Do what ``python -m orchestra`` does, and end."""
    for number, path, flags in ((0, os.devnull, os.O_RDONLY), (1, folder / "out", 0), (2, folder / "err", 0)):
        os.dup2(os.open(path, flags or os.O_WRONLY | os.O_CREAT, 0o600), number)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.path[:1] = [cwd, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = ["orchestra", *arguments]
    status: object = 0
    try:
        runpy.run_module("orchestra", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 0 if status is None else 1)


if __name__ == "__main__":
    _serve()
