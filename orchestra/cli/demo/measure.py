"""Measure one module from its source: size, functions, complexity, documentation, imports."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from orchestra.cli.demo.complexity import Scope, complexity, own_nodes
from orchestra.cli.demo.imports import Importer, script_only
from orchestra.cli.demo.modules import known_modules, library, module_name
from orchestra.cli.demo.records import FunctionRecord, Measure

# Upper ends of the complexity classes. Ten is the limit that McCabe proposed.
SPREAD_BOUNDS = (1, 2, 5, 10, 20, 50)


def measure(path: str, root: Path | None = None) -> Measure:
    """Measure the module in the file `path`, named relative to `root` (the standard library's folder).

    Never raises for a file it cannot read or parse: the record's `error` then says why.
    """
    file, base = Path(path), library() if root is None else root
    record = _blank(module_name(file, base), file, base)
    try:
        source = file.read_bytes()
        record["bytes"], record["lines"] = len(source), len(source.splitlines())
        tree = ast.parse(source, filename=path)
        survey = _survey(tree, Importer(record["module"], file.stem == "__init__", known_modules()))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        record["error"] = f"{type(error).__name__}: {error}"[:200]
        return record
    survey.fill(record)
    _count_lines(record, source, survey)
    return record


@dataclass(slots=True)
class _Survey:
    """What one pass over the syntax tree gathers."""

    importer: Importer
    records: list[FunctionRecord] = field(default_factory=list[FunctionRecord])
    functions: int = 0
    methods: int = 0
    classes: int = 0
    documentable: int = 0
    documented: int = 0
    docstrings: list[ast.expr] = field(default_factory=list[ast.expr])
    # Texts over several lines: a line in one that starts with `#` is no comment.
    strings: list[ast.expr] = field(default_factory=list[ast.expr])

    def fill(self, record: Measure) -> None:
        """Write the gathered figures into the module's record."""
        scores = [each["complexity"] for each in self.records]
        record["functions"], record["methods"], record["classes"] = self.functions, self.methods, self.classes
        record["complexity"], record["spread"] = sum(scores), spread(scores)
        record["documentable"], record["documented"] = self.documentable, self.documented
        record["longest"] = max(self.records, key=lambda each: (each["lines"], -each["line"]), default=None)
        record["most_complex"] = max(self.records, key=lambda each: (each["complexity"], -each["line"]), default=None)
        record["imports"] = sorted(self.importer.at_import)
        record["deferred"] = sorted(self.importer.deferred - self.importer.at_import)

    def document(self, node: Scope | ast.Module, public: bool) -> None:
        """Note a docstring; only what is public counts for the coverage."""
        first = node.body[0] if node.body else None
        text = first.value if isinstance(first, ast.Expr) else None
        found = isinstance(text, ast.Constant) and isinstance(text.value, str)
        if found and text is not None:
            self.docstrings.append(text)
        self.documentable += public
        self.documented += public and found


@dataclass(frozen=True, slots=True)
class _Place:
    """A scope that is still to be visited, and what is known of it from outside."""

    node: Scope | ast.Module
    name: str
    public: bool
    in_function: bool

    def inner(self, node: Scope) -> _Place:
        """Return the place of a scope nested in this one; nothing inside a function is public."""
        inside = isinstance(self.node, (ast.FunctionDef, ast.AsyncFunctionDef))
        public = self.public and not inside and not node.name.startswith("_")
        return _Place(node, f"{self.name}.{node.name}".lstrip("."), public, self.in_function or inside)


def spread(scores: Iterable[int]) -> list[int]:
    """Count scores by the classes of `SPREAD_BOUNDS`; the last count is of all above."""
    counts = [0] * (len(SPREAD_BOUNDS) + 1)
    for score in scores:
        counts[sum(score > bound for bound in SPREAD_BOUNDS)] += 1
    return counts


def _survey(tree: ast.Module, importer: Importer) -> _Survey:
    importer.ignore(script_only(tree))
    survey, waiting = _Survey(importer), [_Place(tree, "", public=bool(tree.body), in_function=False)]
    while waiting:
        place = waiting.pop()
        survey.document(place.node, place.public)
        waiting.extend(place.inner(scope) for scope in _visit(survey, place))
    return survey


def _visit(survey: _Survey, place: _Place) -> list[Scope]:
    """Take in one scope's own nodes; return the scopes nested in it."""
    scope, nested = place.node, list[Scope]()
    is_function = isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef))
    for node in own_nodes(scope):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                nested.append(node)
                survey.methods += isinstance(scope, ast.ClassDef)
                survey.functions += not isinstance(scope, ast.ClassDef)
            case ast.ClassDef():
                nested.append(node)
                survey.classes += 1
            case ast.Import() | ast.ImportFrom():
                survey.importer.add(node, deferred=is_function or place.in_function)
            case ast.Constant(value=str() | bytes()) | ast.JoinedStr() if node.end_lineno != node.lineno:
                survey.strings.append(node)
            case _:
                pass
    if isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef)):
        lines = (scope.end_lineno or scope.lineno) - scope.lineno + 1
        survey.records.append(
            FunctionRecord(name=place.name, line=scope.lineno, lines=lines, complexity=complexity(scope))
        )
    return nested


def _count_lines(record: Measure, source: bytes, survey: _Survey) -> None:
    """Split the lines that are not blank into code, comments of their own, and docstrings."""
    docstring = _covered(survey.docstrings, skip_first=False)
    text = _covered(survey.strings, skip_first=True)
    for number, line in enumerate(source.splitlines(), start=1):
        stripped = line.strip()
        if not stripped:
            continue
        if number in docstring:
            record["docstrings"] += 1
        elif stripped.startswith(b"#") and number not in text:
            record["comments"] += 1
        else:
            record["code"] += 1


def _covered(texts: Iterable[ast.expr], *, skip_first: bool) -> set[int]:
    return {
        number for text in texts for number in range(text.lineno + skip_first, (text.end_lineno or text.lineno) + 1)
    }


def _blank(module: str, file: Path, root: Path) -> Measure:
    shown = file.relative_to(root) if file.is_relative_to(root) else file
    return Measure(
        module=module, path=shown.as_posix(), error=None, bytes=0, lines=0, code=0, comments=0, docstrings=0,
        functions=0, methods=0, classes=0, complexity=0, spread=spread(()), longest=None, most_complex=None,
        documentable=0, documented=0, imports=[], deferred=[], worker="", started=0.0, seconds=0.0,
    )  # fmt: skip
