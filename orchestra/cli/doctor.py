"""``orchestra doctor``: whether everything is there and set so that nothing is lost, and what to change."""

import time
from collections.abc import Iterator

import typer
from rich.console import Console
from rich.text import Text

from orchestra.cli import target
from orchestra.cli.options import App, Json, dump
from orchestra.client import Orchestrator
from orchestra.runtime.checkup import Finding, Level, of_broker, of_settings, of_workers
from orchestra.runtime.routing import is_redis
from orchestra.settings import FORGOTTEN
from orchestra.store.contract import Lease, Store

_MARKS = {
    Level.OK: ("ok     ", "green"),
    Level.NOTE: ("note   ", "cyan"),
    Level.WARNING: ("warning", "yellow"),
    Level.ERROR: ("error  ", "bold red"),
}
_SLOW_S = 0.05
_LONGEST_LEASE = 6


def doctor(app: App = None, as_json: Json = False) -> None:
    """Check broker, store, workers, clocks and settings. The exit status is 1 when there is an error among them."""
    with target.load(app) as orch:
        found = list(_examine(orch))
    if as_json:
        print(dump([{name: getattr(each, name) for name in Finding.__slots__} for each in found]))
    else:
        console = Console(highlight=False)
        for each in found:
            mark, style = _MARKS[each.level]
            console.print(Text.assemble((mark, style), f"  {each.about}: {each.text}"), soft_wrap=True)
            if each.advice:
                console.print(Text(f"         → {each.advice}"), soft_wrap=True)
    raise typer.Exit(1 if any(each.level is Level.ERROR for each in found) else 0)


def _examine(orch: Orchestrator) -> Iterator[Finding]:
    parts = orch.parts
    leases = parts.store.leases()
    yield from _of_store(parts.store)
    if parts.local is not None:
        yield Finding(Level.NOTE, "broker", "embedded: worker and broker are inside the program that makes it")
        return
    of_the_broker = list(of_broker(orch.app, parts.served, quorum=parts.given.quorum_queues))
    yield from of_the_broker
    redis = is_redis(str(orch.app.conf.broker_url or ""))
    yield from of_settings(orch.app.conf, redis=redis, adopted=parts.is_adopted)
    now = time.time()
    yield from _of_clocks(leases, now, parts.settings.lease_s)
    if not any(each.level is Level.ERROR for each in of_the_broker):
        yield from of_workers(orch.app, {each.worker: each.expires_at > now for each in leases})
    yield from _of_queues(parts.store, leases, now)


def _of_store(store: Store) -> Iterator[Finding]:
    if store.url in FORGOTTEN:
        advice = "set ORCHESTRA_STORE, or name an Orchestrator with --app module:attribute"
        yield Finding(
            Level.NOTE, "store", "none: each program keeps its runs in its memory, for as long as it runs", advice
        )
        return
    begun = time.perf_counter()
    store.last_event()
    took = time.perf_counter() - begun
    text = f"{store.url} answers ({took * 1000:.0f} ms)"
    if took > _SLOW_S:
        advice = "every step makes two transactions: put the store nearer, or look for what slows it down"
        yield Finding(Level.WARNING, "store", text, advice)
    else:
        yield Finding(Level.OK, "store", text)


def _of_clocks(leases: list[Lease], now: float, lease_s: float) -> Iterator[Finding]:
    for each in leases:
        ahead = each.expires_at - now - lease_s * _LONGEST_LEASE
        if ahead > 1:
            text = (
                f"its clock is at least {ahead:.0f} s ahead of this machine's: others would call it alive for too long"
            )
            yield Finding(Level.ERROR, f"clock of {each.worker}", text, "let NTP set the clocks of all machines")


def _of_queues(store: Store, leases: list[Lease], now: float) -> Iterator[Finding]:
    served = {queue for lease in leases if lease.expires_at > now for queue in lease.queues}
    depth = store.depth()
    for queue, ready in sorted(depth.items()):
        if queue not in served:
            advice = f"orchestra worker --app MODULE:ATTRIBUTE --queues {queue}"
            yield Finding(Level.ERROR, f"queue {queue}", f"{ready:,} steps are ready and no worker serves it", advice)
        else:
            yield Finding(Level.OK, f"queue {queue}", f"{ready:,} steps are ready")
    if not served and not depth:
        advice = "orchestra worker --app MODULE:ATTRIBUTE"
        yield Finding(Level.WARNING, "workers", "there are none: what is submitted will wait", advice)
