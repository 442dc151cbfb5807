"""The demo's pure parts: what it measures, how it joins, what the report and the progress look like."""

import ast
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from orchestra.cli.demo.complexity import complexity
from orchestra.cli.demo.graph import build_graph, layers, strong_components
from orchestra.cli.demo.imports import Importer
from orchestra.cli.demo.measure import measure
from orchestra.cli.demo.modules import list_paths
from orchestra.cli.demo.rankings import rank_modules
from orchestra.cli.demo.records import Measure
from orchestra.cli.demo.report import write_files

# --- complexity ------------------------------------------------------------------------------------------------

CASES = {
    "straight": ("return 1", 1),
    "if else": ("if a:\n  b\nelse:\n  c", 2),
    "elif": ("if a:\n  b\nelif c:\n  d\nelse:\n  e", 3),
    "for else": ("for a in b:\n  c\nelse:\n  d", 2),
    "while with and": ("while a and b:\n  pass", 3),
    "three operands": ("return a or b or c", 3),
    "mixed operators": ("return a and b or c", 3),
    "conditional expression": ("return a if b else c", 2),
    "comprehension": ("return [a for a in b if a if not c]", 4),
    "try": ("try:\n  a\nexcept ValueError:\n  b\nexcept KeyError:\n  c\nelse:\n  d\nfinally:\n  e", 3),
    "with and assert": ("with a:\n  assert b", 1),
    "match": ("match a:\n  case 1:\n    b\n  case [c] if c:\n    d\n  case _:\n    e", 4),
    "lambda": ("return lambda x: 1 if x else 2", 2),
    "nested function": ("def g():\n  if a:\n    b\nreturn g", 1),
}


@pytest.mark.parametrize("name", CASES)
def test_complexity_is_the_number_of_predicates_plus_one(name: str) -> None:
    body, expected = CASES[name]
    function = ast.parse("def f():\n" + "\n".join(f"  {line}" for line in body.splitlines())).body[0]
    assert isinstance(function, ast.FunctionDef)
    assert complexity(function) == expected


# --- one module ------------------------------------------------------------------------------------------------

SOURCE = '''"""A module
of two lines."""
# a comment

import os
import os.path as p
from json import decoder, dumps
from . import sibling

TEXT = """
# no comment
"""


class Thing:
    """Documented."""

    def method(self):
        def inner():
            pass
        if self and inner:
            return 1

    def _private(self):
        import heapq


def documented(x):
    "One line."
    return [y for y in x]


if __name__ == "__main__":
    import doctest
'''


@pytest.fixture
def module(tmp_path: Path) -> Measure:
    path = tmp_path / "sample.py"
    path.write_text(SOURCE)
    return measure(str(path), tmp_path)


def test_lines_are_code_comments_docstrings_or_blank(module: Measure) -> None:
    assert module["lines"] == len(SOURCE.splitlines())
    assert (module["comments"], module["docstrings"], module["code"]) == (1, 4, 19)


def test_functions_methods_and_classes_are_counted_apart(module: Measure) -> None:
    assert (module["functions"], module["methods"], module["classes"]) == (2, 2, 1)
    assert module["most_complex"] == {"name": "Thing.method", "line": 18, "lines": 5, "complexity": 3}
    assert module["longest"] == module["most_complex"]
    assert module["complexity"] == sum((1, 3, 1, 2))
    assert module["spread"] == [2, 1, 1, 0, 0, 0, 0]


def test_coverage_counts_public_names_outside_of_functions(module: Measure) -> None:
    assert (module["documented"], module["documentable"]) == (3, 4)


def test_imports_are_resolved_and_those_in_functions_kept_apart(module: Measure) -> None:
    assert module["imports"] == ["json", "json.decoder", "os"]
    assert module["deferred"] == ["heapq"]


@pytest.mark.parametrize(
    ("statement", "module", "is_package", "expected"),
    [
        ("from . import b", "p.a", False, {"p.b"}),
        ("from .b import thing", "p.a", False, {"p.b"}),
        ("from .. import q", "p.s.a", False, {"p.q"}),
        ("from . import b", "p", True, {"p.b"}),
        ("from .a import *", "p", True, {"p.a"}),
        ("from .. import b", "p", True, set[str]()),
        ("import p.missing.deeper", "x", False, {"p"}),
        ("import elsewhere", "x", False, set[str]()),
        ("import p.a", "p.a", False, set[str]()),
    ],
)
def test_relative_imports_name_known_modules(statement: str, module: str, is_package: bool, expected: set[str]) -> None:
    importer = Importer(module, is_package, {"p", "p.a", "p.b", "p.q", "p.s", "p.s.a"})
    node = ast.parse(statement).body[0]
    assert isinstance(node, (ast.Import, ast.ImportFrom))
    importer.add(node, deferred=False)
    assert importer.at_import == expected


@pytest.mark.parametrize("content", [b"def (", b"\x00", b"# coding: nonsense\n", b"\xff\xfe"])
def test_a_file_that_cannot_be_parsed_gives_a_record_that_says_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.py").write_bytes(content)
    record = measure(str(tmp_path / "broken.py"), tmp_path)
    assert record["error"]
    assert record["module"] == "broken"


def test_a_missing_file_gives_a_record_that_says_so(tmp_path: Path) -> None:
    assert "FileNotFoundError" in str(measure(str(tmp_path / "missing.py"))["error"])


def test_an_empty_module_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_bytes(b"")
    record = measure(str(tmp_path / "empty.py"), tmp_path)
    assert record["error"] is None
    assert record["documentable"] == 0


# --- the library -----------------------------------------------------------------------------------------------


def test_the_library_has_many_hundred_modules_in_a_fixed_order() -> None:
    paths = list_paths()
    assert len(paths) > 400
    assert paths == list_paths()
    assert len(set(paths)) == len(paths)
    assert not [path for path in paths if re.search(r"/(tests?|idle_test|site-packages)/", path)]


def test_a_limit_samples_the_whole_library() -> None:
    some = list_paths(10)
    assert len(some) == 10
    assert set(some) <= set(list_paths())
    assert len({Path(path).name[0] for path in some}) > 3


def test_measures_stay_small() -> None:
    for path in list_paths(80):
        record = measure(path)
        assert record["error"] is None
        assert len(json.dumps(record)) < 2048


# --- joins -----------------------------------------------------------------------------------------------------


def test_cycles_are_found_and_components_come_imported_first() -> None:
    edges = {"a": ["b"], "b": ["c"], "c": ["a", "d"], "e": ["a"], "d": []}
    components = strong_components("abcde", edges)
    assert components == [["d"], ["a", "b", "c"], ["e"]]
    assert layers(components, edges) == {"d": 0, "a": 1, "b": 1, "c": 1, "e": 2}


def test_a_chain_deeper_than_the_recursion_limit_is_searched() -> None:
    edges = {str(index): [str(index + 1)] for index in range(5000)}
    assert len(strong_components([*edges, "5000"], edges)) == 5001


def write(folder: Path, **sources: str) -> list[Measure]:
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    return [measure(str(folder / f"{name}.py"), folder) for name in sources]


@pytest.fixture
def measures(tmp_path: Path) -> list[Measure]:
    return write(
        tmp_path,
        first='"""<script>alert(1)</script>"""\nimport os\nfrom json import decoder\n\ndef f(a):\n    return a or 1\n',
        second="import os, sys\n\nclass C:\n    def m(self):\n        '''Doc.'''\n",
        broken="def (",
    )


def test_rankings_and_totals_add_up(measures: list[Measure]) -> None:
    rankings = rank_modules(measures)
    totals = rankings["totals"]
    assert (totals["modules"], totals["unparsed"], totals["functions"], totals["methods"]) == (3, 1, 1, 1)
    assert totals["mean_complexity"] == 1.5
    assert [each["name"] for each in rankings["most_complex_functions"]] == ["first.f", "second.C.m"]
    assert [each["name"] for each in rankings["unparsed"]] == ["broken"]
    assert sum(each["count"] for each in rankings["docstring_histogram"]) == 2


def test_the_graph_counts_importers_and_knows_compiled_modules(measures: list[Measure]) -> None:
    graph = build_graph(measures)
    assert graph["most_imported"][0]["name"] == "os"
    assert {node["name"]: node["measured"] for node in graph["nodes"]}["sys"] is False
    names = [node["name"] for node in graph["nodes"]]
    assert ("second", "sys") in {(names[source], names[target]) for source, target in graph["edges"]}


def test_joins_of_nothing_are_empty_not_errors(tmp_path: Path) -> None:
    assert write_files(rank_modules([]), build_graph([]), [], tmp_path / "out")["modules"] == 0


# --- the report ------------------------------------------------------------------------------------------------

VOID = {"meta", "br", "link", "img", "hr", "input"}


class Checker(HTMLParser):
    """Follows the nesting, and gathers ids and whatever would be loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.ids.extend(value for name, value in attrs if name == "id" and value)
        self.loads.extend(name for name, _ in attrs if name in {"src", "href", "xlink:href", "onclick"})

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_one_well_formed_page_that_loads_nothing(measures: list[Measure], tmp_path: Path) -> None:
    for index, each in enumerate(measures):
        each["worker"], each["started"], each["seconds"] = f"process {index % 2}", 100.0 + index, 0.5
    headline = write_files(rank_modules(measures), build_graph(measures), measures, tmp_path / "out")
    page = Path(headline["html"]).read_text()
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert len(set(checker.ids)) == len(checker.ids)
    assert checker.loads == []
    assert "<script" not in page
    assert not re.search(r"url\(|@import|https?://", page)
    assert "NaN" not in page
    assert "process 1" in page
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["report.html", "report.json"]
    data = json.loads(Path(headline["json"]).read_text())
    assert data["headline"] == headline
    assert len(data["modules"]) == headline["modules"] == headline["measures"] == 3
