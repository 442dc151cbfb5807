"""``orchestra beat``: fire scheduled jobs."""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestra.cli import target
from orchestra.cli.worker import Level
from orchestra.errors import SettingsError


def beat(
    app: Annotated[
        str | None,
        typer.Option("--app", "-A", metavar="MODULE:ATTRIBUTE", help="Your Orchestrator; default: from ORCHESTRA_*."),
    ] = None,
    heartbeat: Annotated[
        Path | None, typer.Option("--heartbeat", metavar="FILE", help="Touch this file twice a second, for a probe.")
    ] = None,
    loglevel: Annotated[
        Level, typer.Option("--loglevel", "-l", case_sensitive=False, help="How much it says.")
    ] = Level.info,
) -> None:
    """Fire scheduled jobs until told to stop. Any number of beats may run: each time of a job fires once."""
    orch = target.load(app)
    if orch.parts.local is not None:
        raise SettingsError(
            "this orchestrator is embedded: it fires its jobs inside the program that makes it."
            " Give it a broker and a store (ORCHESTRA_BROKER, ORCHESTRA_STORE) to run separate beats"
        )
    from orchestra.runtime.beat import run_beat

    logging.basicConfig(level=loglevel.value, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")

    def ready() -> None:
        print(f"orchestra beat {os.getpid()} on {orch.parts.store.url} ready.", flush=True)

    with orch:
        run_beat(orch.app, orch.parts.adapter, stock=orch.parts.is_adopted, heartbeat=heartbeat, ready=ready)
