"""``--app module:attribute``: the user's orchestrator, imported as a worker imports it."""

import functools
import importlib
import sys
from pathlib import Path
from types import ModuleType

from orchestra.client import Orchestrator
from orchestra.errors import SettingsError
from orchestra.model.function import WorkflowFunction
from orchestra.model.workflow import Workflow
from orchestra.runtime.local import asleep
from orchestra.settings import FORGOTTEN
from orchestra.telemetry.watch import ProcessWatch


def load(target: str | None) -> Orchestrator:
    """Return the orchestrator that ``module:attribute`` names; without one, that of the settings.

    The current folder is importable, as it is for ``python -m``. An embedded one does not begin to work.

    Raises:
        SettingsError: There is no such module or attribute, or it is no Orchestrator.
    """
    with asleep():
        found = Orchestrator() if target is None else attribute(target, "--app")
    if not isinstance(found, Orchestrator):
        raise SettingsError(f"--app {target!r} is a {type(found).__name__}, not an Orchestrator")
    if target is not None:
        found.parts.registry.modules.add(target.partition(":")[0].partition(".")[0])
    return found


def load_kept(target: str | None, what_for: str) -> Orchestrator:
    """Return the orchestrator, as ``load`` does, if what it keeps outlives this process: else there is nothing in it.

    Raises:
        SettingsError: There is no such module or attribute, or there is no store.
    """
    orch = load(target)
    if orch.parts.store.url in FORGOTTEN:
        orch.close()
        raise SettingsError(
            f"there is no store to {what_for}: set ORCHESTRA_STORE (orchestra dev prints it; with a broker,"
            " ORCHESTRA_BROKER as well), or name an Orchestrator that has one with --app module:attribute"
        )
    return orch


def watched(orch: Orchestrator, host: str | None, port: int | None, heartbeat: Path | None) -> ProcessWatch:
    """Return what watches the worker or beat that this process becomes, with what the command line says of it.

    Raises:
        SettingsError: It is embedded.
    """
    watch = orch.parts.watch
    if watch is None:
        raise SettingsError(
            "this orchestrator is embedded: its worker and its beat are inside the program that makes it."
            " Give it a broker and a store (ORCHESTRA_BROKER, ORCHESTRA_STORE) to run them as processes of their own"
        )
    watch.host, watch.port = host or watch.host, watch.port if port is None else port
    watch.heartbeat = heartbeat
    return watch


def attribute(target: str, option: str) -> object:
    """Return what ``module:attribute`` names.

    Raises:
        SettingsError: There is no such module or attribute.
    """
    module_name, _colon, name = target.partition(":")
    if not (module_name and name):
        raise SettingsError(
            f"{option} {target!r} is not possible: expected module:attribute, such as project.flows:orch"
        )
    return _attribute(_module(module_name, Path.cwd(), option), name, f"{option} {target!r}")


def workload(what: str) -> tuple[ModuleType, object]:
    """Return the workflow or task that ``file.py``, ``file.py:name`` or ``module:name`` means, and its module.

    A file is imported by its name from its folder, as workers there import it.

    Raises:
        SettingsError: There is no such file, module or attribute, or the file has no workflow, or several.
    """
    where, _colon, name = what.partition(":")
    path = Path(where)
    if path.suffix != ".py":
        if not name:
            raise SettingsError(f"{what!r} is not possible: expected file.py, file.py:name or module:name")
        module = _module(where, Path.cwd(), "")
    elif not path.is_file():
        raise SettingsError(f"there is no file {where!r} in {str(Path.cwd())!r}")
    else:
        module = _module(path.stem, path.absolute().parent, "")
    return module, _attribute(module, name, repr(what)) if name else _only_workflow(module, what)


def _only_workflow(module: ModuleType, what: str) -> object:
    found: dict[str, object] = {}
    for name, each in vars(module).items():
        own = isinstance(each, Workflow) or (isinstance(each, WorkflowFunction) and each.__module__ == module.__name__)
        if own:
            found[name] = each
    if len(found) == 1:
        return next(iter(found.values()))
    which = f"has several: {', '.join(found)}" if found else "has no workflow"
    raise SettingsError(f"{what!r} {which}; say which to run, as {what}:NAME")


def _module(name: str, folder: Path, option: str) -> ModuleType:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise SettingsError(f"{option} {name!r}: {error}; the current folder is {str(Path.cwd())!r}".strip()) from error


def _attribute(module: ModuleType, name: str, what: str) -> object:
    try:
        return functools.reduce(getattr, name.split("."), module)
    except AttributeError:
        raise SettingsError(f"{what}: module {module.__name__!r} has no {name!r}") from None
