"""``orchestra flower``: Celery's web monitor for your application."""

import importlib.util
import os
from typing import Annotated, Any

import typer

from orchestra.cli import target
from orchestra.cli.options import App
from orchestra.errors import SettingsError

NOT_INSTALLED = "not installed: pip install 'orchestra-celery[flower]'"
_OPEN = "FLOWER_UNAUTHENTICATED_API"
_LOCAL = ("127.0.0.1", "localhost", "::1")


def flower(
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="Where it listens.")] = 5555,
    address: Annotated[
        str, typer.Option(help="On which address; more than this machine needs FLOWER_BASIC_AUTH or FLOWER_AUTH.")
    ] = "127.0.0.1",
    app: App = None,
) -> None:
    """Show workers and steps in the browser, with Flower. FLOWER_* variables set whatever else it can be told."""
    if not installed():
        raise SettingsError(f"Flower is {NOT_INSTALLED}")
    orch = target.load(app)
    if orch.parts.local is not None:
        raise SettingsError(
            "this orchestrator is embedded: no other process can see its worker. orchestra dev shows it;"
            " or give it a broker and a store (ORCHESTRA_BROKER, ORCHESTRA_STORE)"
        )
    guarded = any(os.environ.get(name) for name in ("FLOWER_BASIC_AUTH", "FLOWER_AUTH"))
    if address not in _LOCAL and not guarded:
        raise SettingsError(
            f"--address {address} lets everybody on the network control your workers:"
            " set FLOWER_BASIC_AUTH=user:password or FLOWER_AUTH, or use 127.0.0.1"
        )
    print(f"orchestra flower on http://{address}:{port} of {orch.parts.settings.broker.rpartition('@')[2]}", flush=True)
    with orch:
        show(orch.app, port, address)


def installed() -> bool:
    """Whether there is a Flower to start."""
    return importlib.util.find_spec("flower") is not None


def show(app: Any, port: int, address: str = "127.0.0.1") -> None:
    """Show a Celery application until told to stop. On the main thread: it takes SIGTERM and Ctrl-C."""
    if address in _LOCAL:
        os.environ.setdefault(_OPEN, "true")  # whoever is on this machine may use its API
    app.start(["flower", f"--port={port}", f"--address={address}", "--enable-events=true"])
