"""The library: the Lua sources, as one library of Redis functions.

Functions rather than scripts: a script makes all its helpers anew each time that it runs, which took longer than a
whole claim does. The library is named after its text, so that releases with different texts share a server.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

_SHARED = (
    "core",
    "run",
    "window",
    "effects",
    "jobs",
    "endings",
    "adding",
    "creating",
    "notes",
    "steering",
    "begin",
)
"""What operations are made of, in the order in which it builds on each other."""
_OPERATIONS = (
    "create", "stage_run", "stage_parts", "claim", "record", "together", "cancel", "due", "refill",
    "resend", "announce", "emit",
    "release_lease", "reserve", "prune", "prune_loose", "prunable", "count_steps", "orphans", "read_steps", "counts",
    "find_step", "durations", "list_runs", "depth", "backlog", "read_log", "events_of_run", "save_checkpoint",
    "run_checkpoints", "tell", "put_job", "delete_job", "read_jobs", "due_jobs", "fire", "take_cursor", "move_cursor",
    "pause", "resume", "retry", "fork",
)  # fmt: skip


_TASK_RESULTS = (("core",), ("record", "chords"))
"""Shared parts and operations of what a Celery result backend keeps."""


@cache
def library() -> tuple[str, str]:
    """Return the name of the library, with which the names of its functions begin, and its text."""
    return _built("lua", _SHARED, _OPERATIONS)


@cache
def task_results_library() -> tuple[str, str]:
    """Return the same of the library of task results."""
    return _built("lua/task_results", *_TASK_RESULTS)


def _built(folder: str, shared: Sequence[str], operations: Sequence[str]) -> tuple[str, str]:
    files_of = files("orchestra.store.redis").joinpath(*folder.split("/"))
    parts = [(files_of / f"{part}.lua").read_text("utf-8") for part in shared]
    # A block each, since Lua allows 200 local names in one.
    parts += [f"do\n{(files_of / f'{part}.lua').read_text('utf-8')}end" for part in operations]
    text = "\n".join(parts)
    name = f"orchestra_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return name, f"#!lua name={name}\nlocal LIBRARY = '{name}'\n{text}"
