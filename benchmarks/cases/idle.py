"""At rest: import, start, and what workers take that have nothing to do."""

import subprocess
import time

from benchmarks.case import Case, Figure, Figures
from benchmarks.visit import Visit


def measure(visit: Visit, seconds: int, tasks: int) -> Figures:
    """Import, start workers, leave them alone, and give them many tasks."""
    found = {"import_ms": (_python(visit, f"import {visit.contestant.peer}") - _python(visit, "pass")) * 1e3}
    visit.ask("prepare")
    begun = time.monotonic()
    visit.start_workers("processes")
    visit.ask("ready")
    visit.ask("run", 1, 60.0, "noop", 1)
    found["start_s"] = time.monotonic() - begun
    cpu, counters = visit.cpu_s(), visit.servers.redis_counters()
    time.sleep(seconds)
    found["cpu_percent"] = (visit.cpu_s() - cpu) / seconds * 100
    if "redis" in visit.contestant.servers:
        found["commands"] = (visit.servers.redis_counters()["commands"] - counters["commands"]) / seconds
    found["memory_mb"] = visit.memory_mb()
    found["used_mb"] = visit.run("noop", tasks, bodies=tasks).memory_mb
    return found


def _python(visit: Visit, code: str) -> float:
    """Return the seconds of a program, the best of three."""
    taken: list[float] = []
    for _ in range(3):
        begun = time.monotonic()
        subprocess.run([visit.interpreter, "-c", code], check=True)
        taken.append(time.monotonic() - begun)
    return min(taken)


CASE = Case(
    name="idle",
    asks="import, start to first task, {seconds} s with nothing to do, then {tasks} tasks",
    sizes={
        "tiny": {"seconds": 1, "tasks": 20},
        "quick": {"seconds": 5, "tasks": 2000},
        "full": {"seconds": 10, "tasks": 100_000},
    },
    measure=measure,
    figures=(
        Figure("cpu_percent", "% of a core"),
        Figure("commands", "Redis commands/s"),
        Figure("import_ms", "ms of import"),
        Figure("start_s", "s until the first task ran"),
        Figure("memory_mb", "MB at rest"),
        Figure("used_mb", "MB after the tasks"),
    ),
    needs="noop",
    workers=None,
)
