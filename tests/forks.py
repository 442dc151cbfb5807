"""Python programs of tests, each forked from one process that has imported what they import.

A new interpreter would spend more than a second of processor time on that, before it does anything. What differs is the
import alone: arguments, environment, folder, both streams, session, signals and the exit status are a program's own,
and in the end it waits for its threads and does what it registered, as an interpreter does.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests.processes import Process

ROOT = Path(__file__).parent.parent
POLL_S = 0.01
IMPORTED = (
    "celery.apps.worker",
    "celery.concurrency.prefork",
    "celery.concurrency.solo",
    "celery.concurrency.thread",
    "celery.worker.autoscale",
    "celery.worker.consumer",
    "celery.worker.strategy",
    "kombu.transport.pyamqp",
    "kombu.transport.redis",
    "orchestra.cli",
    "orchestra.runtime.worker",
    "orchestra.store.redis.store",
    "orchestra.store.sql.sqlite",
    "orchestra.store.sql.store",
    "orchestra.submission",
    "orchestra.subscriptions",
    "psycopg",
    "tests.bodies",
    "tests.cluster",
)
_lock = threading.Lock()


class Fork:
    """A forked program, with the face of a ``subprocess.Popen``.

    Args:
        command: What an interpreter would be given after its own name: ``-m module …`` or ``path …``.
    """

    def __init__(
        self, command: Sequence[str], *, out: Path, err: Path, cwd: Path | None, env: Mapping[str, str]
    ) -> None:
        self.args = command
        self.returncode: int | None = None
        self._asking = threading.Lock()  # only the first to hear of the end is told
        where = {"out": str(out), "err": str(err), "cwd": str(cwd or ROOT)}
        self.pid = int(_ask({"command": command, "env": dict(env), **where}))

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        with self._asking:
            if self.returncode is None:
                self.returncode = _ask(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended, and return its exit status."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if deadline is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            time.sleep(POLL_S)
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Tell it to go."""
        self.send_signal(signal.SIGTERM)


class Program(Process):
    """A process whose command begins with this interpreter."""

    def _launch(self) -> Fork:
        interpreter, *command = self.command
        assert interpreter == sys.executable, f"{self!r} is no program of {sys.executable}"
        return Fork(command, out=self.log, err=self.log, cwd=self._cwd, env=self._env)


def _ask(question: object) -> Any:
    with _lock:
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(question) + "\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())


@cache
def _server() -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "tests.forks"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        start_new_session=True,  # Ctrl-C at the tests is not for it
    )  # fmt: skip
    atexit.register(server.communicate)  # at the end of its input it ends
    return server


def _serve() -> dict[str, Any] | None:
    """Answer each line of the standard input; return None in the end, and in each child the call that it is to be."""
    for line in sys.stdin:
        question = json.loads(line)
        if isinstance(question, int):
            pid, status = os.waitpid(question, os.WNOHANG)
            print(json.dumps(os.waitstatus_to_exitcode(status) if pid else None))
            continue
        ready, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setsid()
            os.close(tell)
            os.close(ready)
            return question
        os.close(tell)
        os.read(ready, 1)  # ends when the child has closed its own: from then on its group can be killed
        os.close(ready)
        print(pid)
    return None


def _become(call: dict[str, Any]) -> None:
    """Do what an interpreter does with this command."""
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for number, path, flags in ((0, os.devnull, os.O_RDONLY), (1, call["out"], append), (2, call["err"], append)):
        file = os.open(path, flags, 0o600)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(call["env"])
    os.chdir(call["cwd"])
    first, *rest = call["command"]
    folder = call["cwd"] if first == "-m" else str(Path(first).resolve().parent)
    sys.path[:1] = [folder, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")


def _status_of(call: dict[str, Any]) -> int:
    """Be a program until it ends, and return its exit status."""
    try:
        _become(call)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    else:
        return 0
    return 1


if __name__ == "__main__":
    for each in IMPORTED:
        importlib.import_module(each)
    gc.collect()
    gc.freeze()  # so that no child looks through, and thereby copies, what all share
    if (given := _serve()) is not None:
        status = _status_of(given)
        # What an interpreter does at its end, but for freeing one by one what all the modules hold.
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status & 0xFF)
