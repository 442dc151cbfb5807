"""The page of the command line names every command, and no other."""

import re
from pathlib import Path
from typing import Any

import typer.main

from orchestra.cli import app

WHOLE = ("jobs", "store")
"""Groups that have pages of their own."""


def names(command: Any, prefix: str = "orchestra") -> set[str]:
    group: dict[str, Any] = getattr(command, "commands", {})
    if not group or prefix.rpartition(" ")[2] in WHOLE:
        return {prefix}
    return {name for each, inner in group.items() for name in names(inner, f"{prefix} {each}")}


def test_the_docs_name_every_command(root: Path) -> None:
    page = (root / "docs" / "command-line.md").read_text()
    assert set(re.findall(r"^\| `(orchestra[^`]*)` \|", page, flags=re.MULTILINE)) == names(typer.main.get_command(app))


def test_every_option_and_argument_says_what_it_is() -> None:
    def silent(command: Any, prefix: str = "orchestra") -> list[str]:
        own = [f"{prefix} {each.name}" for each in command.params if not getattr(each, "help", "")]
        inner: dict[str, Any] = getattr(command, "commands", {})
        return own + [found for name, each in inner.items() for found in silent(each, f"{prefix} {name}")]

    hidden = ("install_completion", "show_completion")
    assert [each for each in silent(typer.main.get_command(app)) if not each.endswith(hidden)] == []


def test_help_is_wrapped_by_the_terminal_alone() -> None:
    def broken(command: Any, prefix: str = "orchestra") -> list[str]:
        inner: dict[str, Any] = getattr(command, "commands", {})
        own = [prefix] if "\n" in (command.help or "").replace("\n\n", "") else []
        return own + [found for name, each in inner.items() for found in broken(each, f"{prefix} {name}")]

    assert broken(typer.main.get_command(app)) == []
