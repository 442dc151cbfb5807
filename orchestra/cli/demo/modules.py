"""The standard library's modules: which source files the running interpreter has, and their names."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

# Their subjects are the library itself, written as data for tests; some do not parse on purpose.
_TEST_FOLDERS = frozenset({"test", "tests", "idle_test"})


def library() -> Path:
    """Return the folder that holds the standard library's Python files."""
    return Path(sysconfig.get_path("stdlib"))


def list_paths(limit: int = 0) -> list[str]:
    """Return the source files of the standard library, sorted by module name.

    With a `limit`, an evenly spaced sample of that many, so that a short run still sees every region.
    """
    names = _sources(library())
    paths = [names[name] for name in sorted(names)]
    if limit <= 0 or limit >= len(paths):
        return paths
    return [paths[index * len(paths) // limit] for index in range(limit)]


@cache
def known_modules() -> frozenset[str]:
    """Return every module name that an import may mean: source files, and compiled ones by top-level name."""
    return frozenset(_sources(library())) | sys.stdlib_module_names


def module_name(path: Path, root: Path) -> str:
    """Return the dotted name of a source file under `root`; of another file, its stem."""
    try:
        parts = list(path.relative_to(root).with_suffix("").parts)
    except ValueError:
        return path.stem
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    return ".".join(parts)


def _sources(root: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in sorted(root.iterdir()):
        # Distributions keep other things here as well: site-packages, build configuration, local additions.
        if entry.stem in sys.stdlib_module_names and entry.suffix in ("", ".py"):
            for file in _walk(entry):
                found[module_name(file, root)] = str(file)
    return found


def _walk(entry: Path) -> Iterator[Path]:
    if entry.suffix == ".py":
        if entry.stem.isidentifier():
            yield entry
    elif entry.name.isidentifier() and entry.name not in _TEST_FOLDERS and entry.is_dir():
        for child in sorted(entry.iterdir()):
            yield from _walk(child)
