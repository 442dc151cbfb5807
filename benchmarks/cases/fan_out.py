"""Fan-out and join: many steps at once, and one that waits for all of them."""

from benchmarks.case import Case, Figure, Figures
from benchmarks.visit import Visit


def measure(visit: Visit, width: int, wide: int) -> Figures:
    """Run one fan-out, then one that is ten times as wide."""
    one = visit.run("fan_out", width, bodies=width + 1)
    found = {"seconds": one.seconds, "submit_s": one.submit_s}
    if wide:
        found["wide_s"] = visit.run("fan_out", wide, bodies=wide + 1).seconds
    return found


CASE = Case(
    name="fan-out",
    asks="{width} steps and one that joins them; then {wide} steps and a join",
    sizes={
        "tiny": {"width": 20, "wide": 40},
        "quick": {"width": 1000, "wide": 0},
        "full": {"width": 1000, "wide": 10_000},
    },
    measure=measure,
    figures=(
        Figure("seconds", "s"),
        Figure("submit_s", "s until submit returned"),
        Figure("wide_s", "s for the wider one"),
    ),
    needs="fan_out",
)
