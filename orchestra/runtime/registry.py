"""Registry: from the name that a step's record holds to the object that is called, and back."""

import functools
import hashlib
import importlib
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Generator, Hashable, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import BuiltinMethodType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, cast

from orchestra.engine.plan import Target
from orchestra.errors import CannotTravel, InvalidOption, TaskNotFound
from orchestra.model.function import TaskFunction, WorkflowFunction
from orchestra.model.graph import display_name, identity, takes_input

GENERIC = "orchestra.step"
"""The Celery task that carries every step that is not a Celery task itself."""

AGENT = "agent:"
"""Begins the path of an agent: the rest is what it is, as JSON."""
_AGENTS = "orchestra.agents"
_POLL_S = 0.02
_STDLIB = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib"))


class Registry:
    """What can be called here, by name.

    Args:
        modules: Top-level packages that may be imported to find a function. A record that could name any import path
            would let whoever writes the store run anything; functions marked with ``@task`` in modules that are loaded
            already are found as well.
        travels: Whether steps run in other processes, so that a function must be found by its name alone.
        celery_task: Says whether the application has a Celery task of a name.
    """

    def __init__(
        self, *, modules: Iterable[str] = (), travels: bool, celery_task: Callable[[str], bool] = lambda _name: False
    ) -> None:
        self.travels = travels
        self.modules = {name.partition(".")[0] for name in modules}
        self.celery_task = celery_task
        self.patient_until = 0.0
        """Until when (monotonic) a name that is not known yet is waited for; for state files opened before the
        functions that their steps call are defined."""
        self._known: dict[str, object] = {}
        self._paths: dict[tuple[str, Hashable], str] = {}
        self._count: dict[str, int] = {}
        self._lock = threading.Lock()

    def bind(self, agent: object) -> Target:
        """Return how a worker finds what a step calls.

        Raises:
            CannotTravel: Steps run elsewhere, and the function cannot be found by its name there.
            InvalidOption: It is nothing that can be called.
        """
        if isinstance(agent, str):
            return self._bind_name(agent)
        celery_name = celery_task_name(agent)
        if celery_name is not None:
            if not self.celery_task(celery_name):
                raise CannotTravel(celery_name, "it is a task of another Celery application than this orchestrator's")
            return Target(celery_name, celery_name)
        if not callable(agent):
            raise InvalidOption("agent", agent, "something to call")
        return Target(GENERIC, self._path(agent), takes_input(agent))

    def resolve(self, path: str) -> Callable[..., Any]:
        """Return what a path leads to.

        Raises:
            TaskNotFound: Nothing of that name is known, or may be imported.
        """
        found = self.find(path)
        if not callable(found):
            raise TaskNotFound(path, f"{path!r} cannot be called")
        return found

    def find(self, path: str) -> object:
        """Return what a path leads to, though it cannot be called.

        Raises:
            TaskNotFound: Nothing of that name is known, or may be imported.
        """
        while True:
            found, reason = self._find(path)
            if found is not None:
                return found
            if time.monotonic() >= self.patient_until:
                raise TaskNotFound(path, reason)
            time.sleep(_POLL_S)

    def _bind_name(self, name: str) -> Target:
        if self.celery_task(name):
            return Target(name, name)
        if ":" in name or self.travels:
            return Target(GENERIC, name)
        with self._lock:
            found = [(path, each) for path, each in self._known.items() if display_name(each) == name]
        if len(found) != 1:
            seen = "none" if not found else ", ".join(path for path, _each in found)
            raise InvalidOption(
                "agent",
                name,
                f"the name of a Celery task, of one function submitted before (there is {seen}), or module:function",
            )
        ((path, agent),) = found
        return Target(GENERIC, path, takes_input(agent))

    def _path(self, agent: object) -> str:
        path, problem = as_data() if (as_data := getattr(agent, "as_path", None)) else importable(agent)
        if problem is None and path.startswith(AGENT):
            return path
        if self.travels:
            if problem is not None:
                raise CannotTravel(path, problem)
            return path
        body = _written(agent)
        if "<" in path and isinstance(body, FunctionType):
            path = f"{path}#{_digest(body.__code__)}"
        with self._lock:
            return self._register(path, agent)

    def _register(self, path: str, agent: object) -> str:
        """Keep the object under its path; another object of the same path gets a number of its own.

        The numbers follow the order of first use, so a program that is started again gives the same ones.
        """
        which = (path, _same(agent))
        numbered = self._paths.get(which)
        if numbered is None:
            count = self._count[path] = self._count.get(path, 0) + 1
            numbered = self._paths[which] = path if count == 1 else f"{path}@{count}"
            self._known[numbered] = agent
        return numbered

    def _find(self, path: str) -> tuple[object | None, str]:
        known = self._known.get(path)
        if known is not None:
            return known, ""
        if path.startswith(AGENT):
            return importlib.import_module(f"{_AGENTS}.agent").load(path, self.find).run, ""
        module, _, qualname = path.partition(":")
        if not qualname or any(mark in qualname for mark in "<(@"):
            return None, "no function of that name has been defined here"
        loaded = sys.modules.get(module)
        may_import = module.partition(".")[0] in self.modules or module.startswith(f"{_AGENTS}.")
        # A worker asks again for what is loaded: another thread may be in the middle of importing it.
        if may_import and (loaded is None or self.travels):
            try:
                loaded = importlib.import_module(module)
            except Exception as error:  # a module may raise anything
                return None, f"importing {module!r} failed: {type(error).__name__}: {error}"
        if loaded is None:
            allowed = ", ".join(sorted(self.modules)) or "none"
            return (
                None,
                f"module {module!r} is not among those that may be imported here ({allowed}); see ORCHESTRA_MODULES",
            )
        try:
            found: object = functools.reduce(getattr, qualname.split("."), loaded)
        except AttributeError:
            return None, f"module {module!r} has no {qualname!r}"
        trusted = module == "__main__" or module.partition(".")[0] in self.modules
        trusted = trusted or (not self.travels and _is_application(loaded))
        if not (trusted or isinstance(found, TaskFunction | WorkflowFunction) or found is identity):
            return None, f"{path!r} is no @task, and its module is not among those that may be called here"
        return found, ""


_current: ContextVar[Registry | None] = ContextVar("orchestra_registry", default=None)


def current_registry() -> Registry | None:
    """Return what the step that runs here may call, by name; None where no step runs."""
    return _current.get()


@contextmanager
def calling_by(registry: Registry) -> Generator[None]:
    """Make ``current_registry`` that one."""
    token = _current.set(registry)
    try:
        yield
    finally:
        _current.reset(token)


def celery_task_name(agent: object) -> str | None:
    """Return the name of a Celery task, without importing Celery; None for anything else."""
    if isinstance(agent, TaskFunction) or not hasattr(agent, "apply_async"):
        return None
    name = getattr(agent, "name", None)
    return name if isinstance(name, str) else None


def body_of(agent: object) -> Callable[..., Any]:
    """Return the function behind a ``@task``, or the callable itself."""
    if isinstance(agent, WorkflowFunction):
        return agent.bind
    return agent.body if isinstance(agent, TaskFunction) else cast(Callable[..., Any], agent)


def _written(agent: object) -> object:
    """Return the function as it was written, behind any decoration of ours."""
    return agent.body if isinstance(agent, TaskFunction | WorkflowFunction) else agent


def _same(agent: object) -> Hashable:
    """Return what two objects share that run the same code on the same variables.

    Methods are made anew at each access, and a lambda each time its line is run. The parts are named by their ids,
    which stay theirs for as long as the registry keeps the object.
    """
    match _written(agent):
        case MethodType() | BuiltinMethodType() as method:
            return id(method.__self__), method.__qualname__
        case FunctionType() as function:
            values = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
            return (
                id(function.__code__), id(function.__globals__), *map(id, function.__closure__ or ()), *map(id, values)
            )  # fmt: skip
        case other:
            return id(other)


def _is_application(module: object) -> bool:
    """Whether a module is the application's own: neither Python's nor installed."""
    file = getattr(module, "__file__", None)
    if file is None:
        return False
    path = Path(file)
    return not ({"site-packages", "dist-packages"} & set(path.parts) or any(map(path.is_relative_to, _STDLIB)))


def _belongs_to_object(function: object) -> bool:
    methods = (MethodType, BuiltinMethodType)
    return isinstance(function, methods) and not isinstance(function.__self__, type | ModuleType | None)


def importable(agent: object) -> tuple[str, str | None]:
    """Return ``module:qualname`` of a callable, and why it would not lead back to it elsewhere, if it would not."""
    function = _written(agent)
    named = function if hasattr(function, "__qualname__") else type(function)
    module = getattr(named, "__module__", None) or "__main__"
    qualname: str = cast(Any, named).__qualname__
    path = f"{module}:{qualname}"
    if named is not function or _belongs_to_object(function):
        # The brackets keep the path from leading to the class, or to the method without its object.
        return f"{path}()", "it belongs to an object, which only this process has"
    if qualname == "<lambda>" or qualname.endswith(".<lambda>"):
        return path, "a lambda has no name to be found by"
    if "<locals>" in qualname:
        return path, "it is defined inside a function"
    if module == "__main__":
        return path, "it is defined in the program itself (__main__), which workers do not import"
    try:
        found: object = functools.reduce(getattr, qualname.split("."), importlib.import_module(module))
    except (ImportError, AttributeError):
        return path, f"{path!r} leads nowhere"
    if _written(found) is not function:
        return path, f"{path!r} leads to something else"
    return path, None


def _digest(code: CodeType) -> str:
    """Return a short text that tells functions without a name of their own apart, the same after a restart."""
    whole = hashlib.sha256(repr((code.co_code, code.co_names, code.co_varnames, code.co_freevars)).encode())
    for constant in code.co_consts:
        match constant:
            case CodeType():
                text = _digest(constant)
            case frozenset():
                text = repr(sorted(map(repr, cast(frozenset[object], constant))))  # pyright: ignore[reportUnknownArgumentType]
            case _:
                text = repr(constant)
        whole.update(text.encode(errors="backslashreplace"))
    return whole.hexdigest()[:8]
