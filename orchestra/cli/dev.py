"""``orchestra dev``: everything that an application needs while it is written, in one command."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from orchestra import settings
from orchestra.cli import target
from orchestra.cli.flower import NOT_INSTALLED, installed, show
from orchestra.cli.options import App
from orchestra.client import Orchestrator
from orchestra.errors import SettingsError
from orchestra.runtime.local import LocalWorker

STATE_FILE = "orchestra-dev.db"
_LOOK_EVERY_S = 0.5


def dev(
    app: App = None,
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="Where Flower listens.")] = 5555,
    flower: Annotated[bool, typer.Option(help="Start Flower, where it is installed.")] = True,
) -> None:
    """Run worker, beat and Flower for your application until Ctrl-C. Without a broker all of it is in this process.

    An orchestrator that is given neither broker nor store keeps its runs in orchestra-dev.db. The exit status is 0
    after Ctrl-C or SIGTERM, and 1 when a part ended by itself.
    """
    told = _told_to_stop()
    given = settings.load()
    if given.embedded and given.store is None:
        os.environ["ORCHESTRA_STORE"] = f"sqlite:///{Path(STATE_FILE).absolute()}"
    orch = target.load(app)
    shows = flower and installed()
    if shows:
        _check_port(port)
    _say(orch, f"http://127.0.0.1:{port}" if shows else NOT_INSTALLED if flower else "left out")
    if orch.parts.local is not None:
        _in_this_process(orch, orch.parts.local, port if shows else None, told)
        return
    orch.close()
    named = [] if app is None else ["--app", app]
    commands = [["worker", "--beat", *named], *([["flower", "--port", str(port), *named]] if shows else [])]
    raise typer.Exit(_as_processes(commands, told))


def _say(orch: Orchestrator, flower: str) -> None:
    store, embedded = orch.parts.store.url, orch.parts.local is not None
    broker = "in this process" if embedded else orch.parts.settings.broker.rpartition("@")[2]
    print(f"broker  {broker}\nstore   {store}\nflower  {flower}", flush=True)
    if embedded and store.startswith("sqlite:///"):
        print(f"In other terminals:  export ORCHESTRA_STORE={store}", flush=True)
    print("Ctrl-C stops everything.", flush=True)


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise SettingsError(f"Flower cannot listen on port {port}: {error.strerror}; give another --port") from None


def _in_this_process(orch: Orchestrator, local: LocalWorker, port: int | None, told: threading.Event) -> None:
    over = threading.Event()

    def serve() -> None:
        while not over.wait(_LOOK_EVERY_S):
            local.serve(orch.parts.store.depth())  # programs that share the store use queues unheard of here

    with orch:
        local.wake(events=port is not None)
        threading.Thread(target=serve, name="orchestra-dev", daemon=True).start()
        try:
            if port is None:
                told.wait()
            else:
                _show_until_told(orch, port, told)
        finally:
            over.set()


def _show_until_told(orch: Orchestrator, port: int, told: threading.Event) -> None:
    """Run Flower, which waits for an exception and not for an event."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: sys.exit())
    with suppress(SystemExit):
        if not told.is_set():
            show(orch.app, port)


def _as_processes(commands: Sequence[Sequence[str]], told: threading.Event) -> int:
    """Run commands of ours until told to stop, or until one of them ends; return the exit status."""
    # In sessions of their own: Ctrl-C would reach them a second time, and that has a meaning for workers.
    parts = [subprocess.Popen([sys.executable, "-m", "orchestra", *each], start_new_session=True) for each in commands]
    try:
        while not told.wait(_LOOK_EVERY_S):
            for part, command in zip(parts, commands, strict=True):
                if part.poll() is not None:
                    print(f"orchestra {command[0]} ended with status {part.returncode}", file=sys.stderr, flush=True)
                    return 1
        return 0
    finally:
        told.clear()
        for part in parts:
            part.terminate()
        while any(part.poll() is None for part in parts):
            if told.wait(_LOOK_EVERY_S):
                for part in parts:
                    part.kill()


def _told_to_stop() -> threading.Event:
    """Return what Ctrl-C and SIGTERM set from now on."""
    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: told.set())
    return told
