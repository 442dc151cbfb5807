"""``--app module:attribute``: the user's orchestrator, imported as a worker imports it."""

import functools
import importlib
import sys
from pathlib import Path

from orchestra.client import Orchestrator
from orchestra.errors import SettingsError


def load(target: str | None) -> Orchestrator:
    """Return the orchestrator that ``module:attribute`` names; without one, that of the settings.

    The current folder is importable, as it is for ``python -m``.

    Raises:
        SettingsError: There is no such module or attribute, or it is no Orchestrator.
    """
    if target is None:
        return Orchestrator()
    found = attribute(target, "--app")
    if not isinstance(found, Orchestrator):
        raise SettingsError(f"--app {target!r} is a {type(found).__name__}, not an Orchestrator")
    found.parts.registry.modules.add(target.partition(":")[0].partition(".")[0])
    return found


def attribute(target: str, option: str) -> object:
    """Return what ``module:attribute`` names.

    Raises:
        SettingsError: There is no such module or attribute.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    module_name, _colon, name = target.partition(":")
    if not (module_name and name):
        raise SettingsError(
            f"{option} {target!r} is not possible: expected module:attribute, such as project.flows:orch"
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise SettingsError(f"{option} {target!r}: {error}; the current folder is {str(Path.cwd())!r}") from error
    try:
        return functools.reduce(getattr, name.split("."), module)
    except AttributeError:
        raise SettingsError(f"{option} {target!r}: module {module_name!r} has no {name!r}") from None
