"""The machine: which one this is, and whether one of its processes lives. Read from /proc where there is one."""

import os
import socket
from pathlib import Path

from orchestra.engine.recovery import Machine


def this_machine() -> Machine:
    """Return this machine. Without /proc it has no boot id, and only leases tell who is dead."""
    pid = os.getpid()
    return Machine(socket.gethostname(), _boot_id(), is_alive, pid, started_at(pid))


def started_at(pid: int) -> float:
    """Return when a process started, in clock ticks since boot; 0 when it is gone or there is no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    # The command's name, in parentheses, may hold anything; the state follows it, and field 22 is the start.
    after_name = stat.rpartition(")")[2].split()
    return 0.0 if after_name[0] == "Z" else float(after_name[19])


def is_alive(pid: int, pid_started: float) -> bool:
    """Whether the process of that id and start time lives; a zombie does not."""
    if not Path("/proc/self/stat").exists():
        return _exists(pid)
    return started_at(pid) == pid_started


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
