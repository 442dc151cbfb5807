"""``orchestra submit`` and ``orchestra run``: tasks and workflows by their names."""

import sys
import time
from typing import Annotated, Any

import typer
from rich.console import Console

from orchestra.cli import target
from orchestra.cli.options import App, Json, Metadata, Plain, dump, entries, value
from orchestra.cli.watching import status_of, watch
from orchestra.client import Orchestrator
from orchestra.errors import SettingsError
from orchestra.model.function import WorkflowFunction
from orchestra.model.task import NOTHING
from orchestra.model.workflow import Workflow
from orchestra.runtime.local import asleep

What = Annotated[
    str, typer.Argument(metavar="FILE|MODULE:NAME", help="A workflow or a task: flows.py, flows.py:survey, flows:size.")
]
Input = Annotated[str | None, typer.Option("--input", "-i", metavar="JSON", help="The one argument; JSON, else text.")]
Kwargs = Annotated[
    list[str] | None, typer.Option("--arg", "-a", metavar="NAME=JSON", help="A keyword argument; may be repeated.")
]
Priority = Annotated[int | None, typer.Option(min=1, max=10, help="1 (highest) to 10; default 5.")]
Key = Annotated[str | None, typer.Option(help="The same key and input give the same run.")]


def submit(
    what: What,
    input: Input = None,
    arg: Kwargs = None,
    priority: Priority = None,
    metadata: Metadata = None,
    key: Key = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Follow it until it has ended.")] = False,
    plain: Plain = False,
    app: App = None,
    as_json: Json = False,
) -> None:
    """Submit a workflow or a task to the workers, and print the id of its run."""
    with asleep():
        orch, found = _given(what, app)
    with orch:
        if orch.parts.local is not None and not _is_served(orch):
            raise SettingsError(
                "this orchestrator is embedded, and nobody else serves its store: what is submitted would end with this"
                " command. Use orchestra run; or start orchestra dev, and set ORCHESTRA_STORE as it says; or give"
                " it a broker and a store (ORCHESTRA_BROKER, ORCHESTRA_STORE)"
            )
        run_id = _submit(orch, found, input, arg, priority, metadata, key)
        if not wait:
            print(dump({"run_id": run_id}) if as_json else run_id)
            return
        _follow(orch, run_id, plain, as_json)


def run(
    what: What,
    input: Input = None,
    arg: Kwargs = None,
    priority: Priority = None,
    metadata: Metadata = None,
    key: Key = None,
    plain: Plain = False,
    app: App = None,
    as_json: Json = False,
) -> None:
    """Run a workflow or a task to its end, and print its output. Without a broker everything is in this process.

    The orchestrator is that of --app, else the one that the module has, else one made from ORCHESTRA_*. Progress goes
    to stderr. The exit status is 0 when the run completed, 1 when it did not.
    """
    orch, found = _given(what, app)
    if orch.parts.local is not None:
        orch.parts.local.wake()
    with orch:
        _follow(orch, _submit(orch, found, input, arg, priority, metadata, key), plain, as_json)


def _is_served(orch: Orchestrator) -> bool:
    now = time.time()
    return any(lease.expires_at > now for lease in orch.parts.store.leases())


def _given(what: str, app: str | None) -> tuple[Orchestrator, Any]:
    module, found = target.workload(what)
    if app is not None:
        return target.load(app), found
    own = list({id(each): each for each in vars(module).values() if isinstance(each, Orchestrator)}.values())
    orch = own[0] if len(own) == 1 else Orchestrator()
    orch.parts.registry.modules.add(module.__name__.partition(".")[0])
    return orch, found


def _submit(
    orch: Orchestrator,
    found: Any,
    input: str | None,
    arg: list[str] | None,
    priority: int | None,
    metadata: list[str] | None,
    key: str | None,
) -> str:
    given: Any = NOTHING if input is None else value(input)
    kwargs = entries(arg, "--arg") or None
    about = entries(metadata) or None
    if isinstance(found, Workflow | WorkflowFunction):
        made = orch.submit_workflow(found, given, kwargs=kwargs, priority=priority, metadata=about, key=key)  # pyright: ignore[reportUnknownArgumentType]
        return made.id
    task = orch.submit(found, given, kwargs=kwargs, priority=priority, metadata=about, key=key)
    return task.run_id or task.id


def _follow(orch: Orchestrator, run_id: str, plain: bool, as_json: bool) -> None:
    try:
        ended = watch(orch, run_id, plain=plain, console=Console(stderr=True, highlight=False))
    except KeyboardInterrupt:
        on = "" if orch.parts.local is not None else f"; it goes on: orchestra runs watch {run_id}"
        print(f"Stopped watching {run_id}{on}", file=sys.stderr)
        raise typer.Exit(130) from None
    error = ended.error
    if as_json:
        failure = None if error is None else {"type": error.type, "message": error.message}
        print(dump({"id": ended.id, "status": ended.status, "output": ended.output, "error": failure}))
    elif status_of(ended) == 0:
        print(ended.output if isinstance(ended.output, str) else dump(ended.output))
    else:
        print(f"{ended.id} {ended.status}{'' if error is None else f': {error.type}: {error}'}", file=sys.stderr)
    raise typer.Exit(status_of(ended))
