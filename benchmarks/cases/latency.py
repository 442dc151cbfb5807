"""Latency: how long a task waits to be started when nobody is in front of it, and at half of what is possible."""

from benchmarks.case import Case, Figure, Figures
from benchmarks.figures import percentile
from benchmarks.visit import Visit


def measure(visit: Visit, count: int, burst: int) -> Figures:
    """Submit one after the other; then as many a second as half of what a burst has shown to be possible."""
    found = _percentiles("idle", visit.ask("latencies", count, None))
    if visit.offers("result"):
        found |= _percentiles("result", visit.ask("results", count))
    rate = burst / visit.run("noop", burst, bodies=burst).seconds / 2
    return found | _percentiles("half", visit.ask("latencies", burst, rate)) | {"half_rate": rate}


def _percentiles(name: str, seconds: list[float]) -> Figures:
    return {f"{name}_p{share}": percentile(seconds, share / 100) * 1e3 for share in (50, 95, 99)}


CASE = Case(
    name="latency",
    asks="{count} tasks one after the other, from submit to start and to result; {burst} at half of the possible rate",
    sizes={
        "tiny": {"count": 20, "burst": 50},
        "quick": {"count": 100, "burst": 500},
        "full": {"count": 1000, "burst": 2000},
    },
    measure=measure,
    figures=(
        Figure("idle_p50", "ms to start, p50"),
        Figure("idle_p95", "p95"),
        Figure("idle_p99", "p99"),
        Figure("result_p50", "ms to result, p50"),
        Figure("result_p99", "p99"),
        Figure("half_p50", "ms to start at half load, p50"),
        Figure("half_p95", "p95"),
        Figure("half_p99", "p99"),
    ),
    needs="stamp",
)
