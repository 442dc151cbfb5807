"""The page on stores: every guarantee names tests, and these exist."""

import ast
import re
from pathlib import Path

from tests.unit.test_docs_tables import rows

STORES = ["memory", "SQLite", "PostgreSQL", "Redis"]


def all_tests(root: Path) -> set[str]:
    """Return the names of all tests that this repository has or ships."""
    files = [*(root / "tests").rglob("*.py"), *(root / "orchestra" / "testing").rglob("*.py")]
    return {
        node.name
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_guarantee_says_something_of_each_store_and_names_tests_that_exist(root: Path) -> None:
    known = all_tests(root)
    for guarantee, *cells, tests in rows((root / "docs" / "stores.md").read_text(), "## What each guarantees"):
        assert len(cells) == len(STORES), guarantee
        assert all(cells), guarantee
        named = re.findall(r"`(test_\w+)`", tests)
        assert named, guarantee
        assert set(named) <= known, (guarantee, set(named) - known)
