"""The library: the Lua sources, as one library of Redis functions.

Functions rather than scripts: a script makes all its helpers anew each time that it runs, which took longer than a
whole claim does. The library is named after its text, so that releases with different texts share a server.
"""

import hashlib
from functools import cache
from importlib.resources import files

_SHARED = (
    "core",
    "run",
    "window",
    "effects",
    "jobs",
    "transitions",
    "adding",
    "creating",
    "notes",
    "steering",
    "begin",
)
"""What operations are made of, in the order in which it builds on each other."""
_OPERATIONS = (
    "create", "stage_run", "stage_parts", "claim", "record", "cancel", "due", "refill", "resend", "announce", "emit",
    "release_lease", "reserve", "prune", "prune_loose", "prunable", "count_steps", "orphans", "read_steps", "counts",
    "find_step", "list_runs", "depth", "events_of_run", "save_checkpoint", "tell", "put_job", "delete_job", "read_jobs",
    "due_jobs", "fire", "pause", "resume", "retry", "fork",
)  # fmt: skip


@cache
def library() -> tuple[str, str]:
    """Return the name of the library, with which the names of its functions begin, and its text."""
    folder = files("orchestra.store.redis") / "lua"
    shared = [(folder / f"{part}.lua").read_text("utf-8") for part in _SHARED]
    # A block each, since Lua allows 200 local names in one.
    operations = [f"do\n{(folder / f'{part}.lua').read_text('utf-8')}end" for part in _OPERATIONS]
    text = "\n".join([*shared, *operations])
    name = f"orchestra_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return name, f"#!lua name={name}\nlocal LIBRARY = '{name}'\n{text}"
