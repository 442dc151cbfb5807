"""The page on statuses says what the code says: every status, and every change that may happen."""

import re
from pathlib import Path

from orchestra.model.event import LIFECYCLE
from orchestra.model.status import FOLLOWS, TERMINAL, TaskStatus, WorkflowStatus


def diagram() -> str:
    """Return the transition table as a Mermaid state diagram; the text that the page has to hold."""
    lines = ["stateDiagram-v2", "    [*] --> PENDING", "    [*] --> QUEUED"]
    for status, nexts in FOLLOWS.items():
        lines += [f"    {status} --> {each}" for each in TaskStatus if each in nexts]
    lines += [f"    {status} --> [*]" for status in TaskStatus if status in TERMINAL]
    return "\n".join(lines) + "\n"


def first_column(page: str, heading: str) -> list[str]:
    """Return the names in the first column of the table under a heading."""
    section = re.split(r"^#+ .*$", page.partition(f"{heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| (.+?) \|", section, flags=re.MULTILINE)
    return [name for row in rows[1:] for name in re.findall(r"[\w.]+", row)]


def test_the_diagram_in_the_docs_is_the_transition_table(root: Path) -> None:
    page = (root / "docs" / "statuses.md").read_text()
    (shown,) = re.findall(r"<!-- from FOLLOWS -->\n```mermaid\n(.*?)```", page, flags=re.DOTALL)
    assert shown == diagram(), f"docs/statuses.md should hold:\n\n{diagram()}"


def test_the_docs_explain_every_status_once(root: Path) -> None:
    page = (root / "docs" / "statuses.md").read_text()
    assert first_column(page, "## Of a task") == list(TaskStatus)
    assert first_column(page, "## Of a run") == list(WorkflowStatus)


def test_the_docs_explain_every_event_once(root: Path) -> None:
    page = (root / "docs" / "events.md").read_text()
    assert sorted(first_column(page, "# Events")) == sorted(LIFECYCLE)
