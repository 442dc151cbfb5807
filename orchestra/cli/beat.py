"""``orchestra beat``: fire scheduled jobs."""

import logging
import os
import sys
from typing import Annotated

import typer

from orchestra import callbacks
from orchestra.cli import target
from orchestra.cli.options import Heartbeat, LogFormat, Logs, MetricsHost, MetricsPort
from orchestra.cli.worker import Level

logger = logging.getLogger(__name__)


def beat(
    app: Annotated[
        str | None,
        typer.Option("--app", "-A", metavar="MODULE:ATTRIBUTE", help="Your Orchestrator; default: from ORCHESTRA_*."),
    ] = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = None,
    heartbeat: Heartbeat = None,
    loglevel: Annotated[
        Level, typer.Option("--loglevel", "-l", case_sensitive=False, help="How much it says.")
    ] = Level.info,
    log_format: Logs = None,
) -> None:
    """Fire scheduled jobs until told to stop. Any number of beats may run: each time of a job fires once."""
    orch = target.load(app)
    watch = target.watched(orch, metrics_host, metrics_port, heartbeat)
    from orchestra.runtime.beat import run_beat
    from orchestra.runtime.logs import write_nothing_else

    logging.basicConfig(level=loglevel.value, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")

    json = (log_format or orch.parts.given.log_format) == LogFormat.json
    if json:
        write_nothing_else()

    def ready() -> None:
        text = f"orchestra beat {os.getpid()} on {orch.parts.store.url} ready."
        if json:
            logger.info(text)
        else:
            print(text, flush=True)

    with orch:
        if orch.parts.given.callbacks:
            callbacks.serve(orch)
        run_beat(orch.app, orch.parts.adapter, watch, stock=orch.parts.is_adopted, ready=ready)
