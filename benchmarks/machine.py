"""What a run ran on, and a loop that shows when it was disturbed."""

import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil

LOOP = 300_000


def calibrate() -> float:
    """Return the milliseconds of a fixed loop of pure Python: the best of three."""
    best = float("inf")
    for _ in range(3):
        begun, total = time.perf_counter(), 0
        for number in range(LOOP):
            total += number * number
        best = min(best, time.perf_counter() - begun)
    return best * 1e3


def described() -> dict[str, str]:
    """Return the hardware, the system and the servers, as one line each."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GB",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": sys.version.split()[0],
        "commit": _first_line("git", "rev-parse", "--short", "HEAD"),
        "redis": _first_line("redis-server", "--version"),
        "postgresql": _first_line("postgres", "--version"),
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.machine())


def _first_line(*command: str) -> str:
    try:
        said = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent).stdout
    except OSError:
        return "not found"
    return (said.splitlines() or ["unknown"])[0]
