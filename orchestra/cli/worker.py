"""``orchestra worker``: serve queues."""

from enum import StrEnum
from typing import Annotated

import typer

from orchestra.cli import target
from orchestra.errors import SettingsError


class Pool(StrEnum):
    """How bodies run beside each other."""

    prefork = "prefork"
    threads = "threads"
    solo = "solo"
    asyncio = "asyncio"


class Level(StrEnum):
    """How much a worker says."""

    debug = "DEBUG"
    info = "INFO"
    warning = "WARNING"
    error = "ERROR"
    critical = "CRITICAL"


def worker(
    app: Annotated[
        str | None,
        typer.Option("--app", "-A", metavar="MODULE:ATTRIBUTE", help="Your Orchestrator; default: from ORCHESTRA_*."),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency", "-c", min=1, help="How many bodies run at once; default one per CPU, for asyncio 100."
        ),
    ] = None,
    pool: Annotated[
        Pool,
        typer.Option(
            "--pool",
            "-P",
            help="prefork has all time limits; threads suits I/O; asyncio runs async def tasks on one loop.",
        ),
    ] = Pool.prefork,
    queues: Annotated[
        str | None, typer.Option("--queues", "-Q", help="Queues to serve, comma-separated; default the orchestrator's.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", "-n", help="Name of this worker; default made from host and pid.")
    ] = None,
    beat: Annotated[bool, typer.Option("--beat", "-B", help="Fire scheduled jobs too; any number may.")] = False,
    loglevel: Annotated[
        Level, typer.Option("--loglevel", "-l", case_sensitive=False, help="How much it says.")
    ] = Level.info,
) -> None:
    """Serve queues until told to stop (Ctrl-C or SIGTERM finishes what is running)."""
    orch = target.load(app)
    if orch.parts.local is not None:
        raise SettingsError(
            "this orchestrator is embedded: its worker is inside the program that makes it."
            " Give it a broker and a store (ORCHESTRA_BROKER, ORCHESTRA_STORE) to run separate workers"
        )
    from orchestra.runtime.worker import run_worker

    named = [each.strip() for each in (queues or "").split(",") if each.strip()]
    status = run_worker(
        orch.app,
        pool=pool.value,
        concurrency=concurrency,
        queues=named or orch.parts.served,
        name=name,
        loglevel=loglevel.value,
        beat=orch.parts.cycle if beat else None,
    )
    raise typer.Exit(status)
