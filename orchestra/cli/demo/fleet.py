"""The demo's own worker processes: started, awaited, killed and stopped here, and no others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

READY_S = 60.0
GRACE_S = 8.0
_POLL_S = 0.05
_TAIL = 30


class WorkersNotReady(Exception):
    """A worker ended, or did not report ready in time. The text says which, with the end of its log."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker process, the leader of a session and group of its own, and its log."""

    number: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    @property
    def ready(self) -> bool:
        """Whether the worker has said that it takes work."""
        return " ready" in self.log.read_text(errors="replace")


class Fleet:
    """Starts workers with the given command and environment; leaving the context stops those that still run."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], folder: Path) -> None:
        self.workers: list[Worker] = []
        self._command, self._env, self._folder = command, env, folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Worker:
        """Start one more worker."""
        number = len(self.workers) + 1
        log = self._folder / f"worker-{number}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                self._command,
                env={**os.environ, **self._env, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                # Its own session: Ctrl-C reaches us alone, and a kill of the group takes its children with it.
                start_new_session=True,
            )
        self.workers.append(Worker(number, process, log))
        return self.workers[-1]

    def wait_ready(self, pause: Callable[[float], object] = time.sleep, timeout_s: float = READY_S) -> None:
        """Wait until all workers take work.

        Raises:
            WorkersNotReady: One has ended, or is not ready after `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        for worker in self.workers:
            while not worker.ready:
                if not worker.running or time.monotonic() > deadline:
                    state = "is not ready yet" if worker.running else f"ended with {worker.process.returncode}"
                    raise WorkersNotReady(f"worker {worker.number} {state}; the end of its log:\n{tail(worker.log)}")
                pause(_POLL_S)

    def kill(self, worker: Worker) -> None:
        """Kill a worker and its children at once, as a power cut would."""
        _signal(worker, signal.SIGKILL)
        worker.process.wait()

    def stop(self) -> None:
        """Ask all to stop, then kill what still runs after the grace. Called twice, it does nothing more."""
        for worker in self.workers:
            if worker.running:
                with suppress(ProcessLookupError):
                    # To the parent alone: it brings its children to an end in order.
                    worker.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        for worker in self.workers:
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            # Also when the parent has ended: a child that outlived it is in its group still.
            _signal(worker, signal.SIGKILL)
            worker.process.wait()

    def logs(self) -> str:
        """Return the end of every worker's log."""
        return "\n".join(f"--- {worker.log}\n{tail(worker.log)}" for worker in self.workers)


def tail(log: Path, count: int = _TAIL) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:]) or "(empty)"


def worker_command(queue: str) -> list[str]:
    """Return the command of one demo worker that serves `queue` alone."""
    options = {"--app": "orchestra.cli.demo.app:orch", "--concurrency": "2", "--pool": "prefork", "--queues": queue}
    return [sys.executable, "-m", "orchestra", "worker", *(word for pair in options.items() for word in pair)]


def _signal(worker: Worker, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(worker.process.pid, number)
