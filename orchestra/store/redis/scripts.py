"""Scripts: the Lua sources, and which of them each operation is made of."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_RUN = ("core", "run", "window", "effects")
_PARTS: Mapping[str, tuple[str, ...]] = {
    "create": (*_RUN, "adding"),
    "stage_run": ("core", "adding"),
    "stage_parts": ("core", "run", "adding"),
    "claim": ("core", "run", "window"),
    "record": (*_RUN, "transitions", "adding"),
    "cancel": (*_RUN, "transitions"),
    "due": _RUN,
    "refill": ("core", "run", "window"),
    "resend": ("core", "run", "window"),
    "announce": _RUN,
    "emit": ("core",),
    "release_lease": ("core",),
    "reserve": ("core", "run"),
    "orphans": ("core",),
    "read_steps": ("core",),
    "counts": ("core",),
    "find_step": ("core",),
    "list_runs": ("core",),
    "depth": ("core",),
    "events_of_run": ("core",),
}
"""What comes before each script: the shared files that it calls."""


@dataclass(frozen=True, slots=True)
class Script:
    """One script as the server gets it, and the digest that it is called by."""

    name: str
    text: str
    sha: str


@cache
def script(name: str) -> Script:
    """Return a script by the name of its operation."""
    folder = files("orchestra.store.redis") / "lua"
    text = "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in (*_PARTS[name], name))
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
