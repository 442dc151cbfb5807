"""Real processes for tests, and waiting for conditions instead of for time."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import psutil

if TYPE_CHECKING:
    from tests.forks import Fork

T = TypeVar("T")

POLL_S = 0.02


def wait_until(
    predicate: Callable[[], T],
    timeout: float = 30,
    what: str = "the condition",
    *,
    ignoring: type[BaseException] | tuple[type[BaseException], ...] = (),
) -> T:
    """Poll `predicate` until it returns something true, and return that.

    After `timeout` seconds raise an AssertionError with `what` was awaited and what was seen last. An exception from
    `predicate` ends the wait at once, except one of `ignoring`, which counts as "not yet".
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            seen: object = predicate()
            if seen:
                return seen  # type: ignore[return-value]
        except ignoring as error:
            seen = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout:g} s for {what}; last seen: {seen!r}")
        time.sleep(POLL_S)


def least(measure: Callable[[], float], enough: float, rounds: int = 20) -> float:
    """Measure until a figure is below `enough`, at most so many times, and return the least.

    Others on the machine only add to what something takes, so the least is the nearest to what it takes by itself.
    """
    seen = list[float]()
    for _ in range(rounds):
        seen.append(measure())
        if seen[-1] < enough:
            break
    return min(seen)


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Process:
    """A command in a session of its own, so that it can be killed with all its children and nobody else.

    Output of both streams goes to `log`. `env` is added to this process's environment; None removes a variable.
    Leaving the context stops what still runs:

        with Process(["orchestra", "worker", "--app", "tasks:orch"], log=tmp_path / "worker.log") as worker:
            worker.wait_for("ready")
            worker.kill9()
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        cwd: Path | None = None,
        env: Mapping[str, str | None] | None = None,
        user: str | None = None,
    ) -> None:
        self.command = [str(part) for part in command]
        self.log = log
        self._cwd = cwd
        merged: dict[str, str | None] = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
        self._env = {name: value for name, value in merged.items() if value is not None}
        self._user = user
        self._popen: subprocess.Popen[bytes] | Fork | None = None

    def start(self) -> Self:
        """Start the command; an earlier run of it must have ended."""
        assert self._popen is None or not self.alive, f"{self!r} already runs"
        self._popen = self._launch()
        return self

    def _launch(self) -> subprocess.Popen[bytes] | Fork:
        with self.log.open("ab") as sink:
            return subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=self._cwd,
                env=self._env,
                user=self._user,
                group=self._user,
                extra_groups=None if self._user is None else [],
                start_new_session=True,
            )

    @property
    def popen(self) -> subprocess.Popen[bytes] | Fork:
        assert self._popen is not None, f"{self!r} was not started"
        return self._popen

    @property
    def started(self) -> bool:
        return self._popen is not None

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    @property
    def output(self) -> str:
        """Everything the command wrote so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait_for(self, predicate: str | Callable[[str], T], timeout: float = 60) -> None:
        """Wait until the output holds a text, or satisfies a predicate; fail at once when the process ends before."""

        def seen() -> bool:
            alive = self.alive  # asked before the output is read: what it wrote before it ended still counts
            output = self.output
            if predicate in output if isinstance(predicate, str) else predicate(output):
                return True
            assert alive, f"{self!r} ended with status {self.popen.returncode} before {predicate!r}\n{self.tail()}"
            return False

        try:
            wait_until(seen, timeout, f"{predicate!r} in the output of {self!r}")
        except AssertionError as error:
            error.add_note(self.tail())
            raise

    def wait(self, timeout: float = 60) -> int:
        """Wait until the command ends by itself and return its exit status."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self!r} still runs after {timeout:g} s\n{self.tail()}") from None

    def kill9(self) -> None:
        """Kill the command and all its children at once, as a power cut would."""
        self._signal_group(signal.SIGKILL)
        self.popen.wait()

    def stop(self, timeout: float = 60) -> int:
        """Ask the command to end (SIGTERM), kill what is left of its group after `timeout`, return its status."""
        if self.alive:
            self.popen.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.popen.wait(timeout)
        self.kill9()
        return self.popen.returncode

    def tail(self, lines: int = 40) -> str:
        """Return the end of the output, for error messages."""
        return "\n".join([f"--- {self.log.name}", *self.output.splitlines()[-lines:]])

    def _signal_group(self, number: int) -> None:
        # The group keeps the leader's pid for as long as one member lives, so this can hit nobody else.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.popen.pid, number)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if error is not None:
            error.add_note(self.tail())

    def __repr__(self) -> str:
        return f"<{Path(self.command[0]).name} {' '.join(self.command[1:4])}>"
