"""The cases, in the order in which they are shown."""

from benchmarks.case import Case
from benchmarks.cases import chain, fan_out, graphs, idle, latency, layers, noop, recovery, waits

# Those that want the same workers stand together: they share a visit.
CASES: tuple[Case, ...] = (
    noop.CASE,
    chain.CASE,
    fan_out.CASE,
    layers.CASE,
    latency.CASE,
    recovery.CASE,
    waits.CASE,
    graphs.CASE,
    idle.CASE,
)
