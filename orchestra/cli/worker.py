"""``orchestra worker``: serve queues."""

from enum import StrEnum
from typing import Annotated

import typer

from orchestra.cli import target
from orchestra.cli.options import Heartbeat, LogFormat, Logs, MetricsHost, MetricsPort, duration
from orchestra.runtime import roles
from orchestra.runtime.roles import ROLES


class Pool(StrEnum):
    """How bodies run beside each other."""

    prefork = "prefork"
    threads = "threads"
    solo = "solo"
    asyncio = "asyncio"


def _told(role: roles.Role) -> str:
    return f"{role.name}: {role.about}"


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
        Pool | None,
        typer.Option(
            "--pool",
            "-P",
            help="prefork has all time limits; threads suits I/O; asyncio runs async def tasks on one loop.",
            show_default="prefork",
        ),
    ] = None,
    queues: Annotated[
        str | None, typer.Option("--queues", "-Q", help="Queues to serve, comma-separated; default the orchestrator's.")
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(
            "--role",
            "-r",
            help=f"What it serves and how; other options come first. {'; '.join(map(_told, ROLES.values()))}.",
            autocompletion=lambda: list(ROLES),
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", "-n", help="Name of this worker; default made from host and pid.")
    ] = None,
    grace: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="How long what runs may go on when told to stop, such as 90s; default ORCHESTRA_GRACE, or 30s."
            " What has not ended then is given back to other workers.",
        ),
    ] = None,
    beat: Annotated[bool, typer.Option("--beat", "-B", help="Fire scheduled jobs too; any number may.")] = False,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = None,
    heartbeat: Heartbeat = None,
    loglevel: Annotated[
        Level, typer.Option("--loglevel", "-l", case_sensitive=False, help="How much it says.")
    ] = Level.info,
    log_format: Logs = None,
) -> None:
    """Serve queues until told to stop (Ctrl-C or SIGTERM finishes what is running)."""
    grace_s = None if grace is None else duration(grace, "--grace").total_seconds()
    its = roles.role(role or "default")
    orch = target.load(app)
    target.watched(orch, metrics_host, metrics_port, heartbeat)
    from orchestra.runtime.logs import let_workers_write, write_nothing_else
    from orchestra.runtime.worker import run_worker

    json = (log_format or orch.parts.given.log_format) == LogFormat.json
    let_workers_write(json=json)
    if json:
        write_nothing_else()

    named = [each.strip() for each in (queues or "").split(",") if each.strip()]
    status = run_worker(
        orch.app,
        pool=its.pool if pool is None else pool.value,
        concurrency=its.concurrency if concurrency is None else concurrency,
        queues=named or its.queues or orch.parts.served,
        name=name,
        loglevel=loglevel.value,
        banner=not json,
        grace_s=grace_s,
        beat=orch.parts.cycle if beat else None,
    )
    raise typer.Exit(status)
