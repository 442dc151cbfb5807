"""The command line: one module per group of commands."""

import inspect
import sys
from typing import Annotated

import typer

import orchestra
from orchestra.cli import store
from orchestra.cli.beat import beat
from orchestra.cli.demo.command import demo
from orchestra.cli.dev import dev
from orchestra.cli.doctor import doctor
from orchestra.cli.events import events
from orchestra.cli.flower import flower
from orchestra.cli.jobs import jobs
from orchestra.cli.runs import runs
from orchestra.cli.submit import run, submit
from orchestra.cli.worker import worker
from orchestra.errors import OrchestraError


def _join_lines(group: typer.Typer) -> None:
    """Have help wrap where the terminal does, and not where the source does as well."""
    for command in group.registered_commands:
        text = inspect.getdoc(command.callback) or ""
        command.help = "\n\n".join(" ".join(each.split()) for each in text.split("\n\n"))
    for each in group.registered_groups:
        if each.typer_instance is not None:
            _join_lines(each.typer_instance)


app = typer.Typer(
    name="orchestra",
    help="Durable workflows and AI agents on the Celery you already run.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, dev, run, submit, worker, beat, flower, events, doctor):
    app.command()(command)
app.add_typer(runs, name="runs")
app.add_typer(jobs, name="jobs")
app.add_typer(store.app)
_join_lines(app)


def _version(asked: bool) -> None:
    if asked:
        print(f"orchestra {orchestra.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Durable workflows and AI agents on the Celery you already run."""


def main() -> None:
    """Run the command line. What a user did wrong is one line on stderr and status 2; the rest keeps its traceback."""
    try:
        app()
    except OrchestraError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
