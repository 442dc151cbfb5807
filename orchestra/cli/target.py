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
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    module_name, _colon, attribute = target.partition(":")
    if not (module_name and attribute):
        raise SettingsError(f"--app {target!r} is not possible: expected module:attribute, such as project.flows:orch")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise SettingsError(f"--app {target!r}: {error}; the current folder is {str(Path.cwd())!r}") from error
    try:
        found: object = functools.reduce(getattr, attribute.split("."), module)
    except AttributeError:
        raise SettingsError(f"--app {target!r}: module {module_name!r} has no {attribute!r}") from None
    if not isinstance(found, Orchestrator):
        raise SettingsError(f"--app {target!r} is a {type(found).__name__}, not an Orchestrator")
    found.parts.registry.modules.add(module_name.partition(".")[0])
    return found
