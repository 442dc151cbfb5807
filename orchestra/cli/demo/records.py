"""The records that travel between the demo's steps: plain JSON objects with known keys.

They are typed dictionaries, not models, because a few hundred of them pass through the store in every run
and a reader of `report.json` sees exactly what a step returned.
"""

from __future__ import annotations

# pydantic reads step annotations and accepts only this TypedDict before Python 3.12.
from typing_extensions import TypedDict


class FunctionRecord(TypedDict):
    """One function or method: where it is, how long and how complex."""

    name: str
    line: int
    lines: int
    complexity: int


class Measure(TypedDict):
    """What one module is like. A module that cannot be parsed has an `error` and zeros."""

    module: str
    path: str
    error: str | None
    bytes: int
    lines: int
    code: int
    comments: int
    docstrings: int
    functions: int
    methods: int
    classes: int
    complexity: int
    spread: list[int]
    longest: FunctionRecord | None
    most_complex: FunctionRecord | None
    documentable: int
    documented: int
    imports: list[str]
    deferred: list[str]
    worker: str
    started: float
    seconds: float


class Ranked(TypedDict):
    """One line of a ranking: a name, the figure it is ranked by, and a remark for the reader."""

    name: str
    value: float
    note: str


class Bucket(TypedDict):
    """One bar of a histogram."""

    label: str
    count: int


class Totals(TypedDict):
    """Sums over all modules."""

    modules: int
    unparsed: int
    bytes: int
    lines: int
    code: int
    comments: int
    docstrings: int
    functions: int
    methods: int
    classes: int
    complexity: int
    mean_complexity: float
    comment_share: float
    documentable: int
    documented: int
    docstring_coverage: float


class Rankings(TypedDict):
    """Totals, rankings and distributions over all modules."""

    totals: Totals
    largest: list[Ranked]
    most_complex: list[Ranked]
    most_complex_functions: list[Ranked]
    longest_functions: list[Ranked]
    fully_documented: list[Ranked]
    least_documented: list[Ranked]
    most_commented: list[Ranked]
    size_histogram: list[Bucket]
    complexity_histogram: list[Bucket]
    docstring_histogram: list[Bucket]
    unparsed: list[Ranked]


class Node(TypedDict):
    """One module of the import graph; `measured` is false for compiled modules and ones left out."""

    name: str
    measured: bool
    layer: int
    imports: int
    imported_by: int


class ImportGraph(TypedDict):
    """Who imports whom. Edges are pairs of positions in `nodes`: importer, imported."""

    nodes: list[Node]
    edges: list[tuple[int, int]]
    deferred: list[tuple[int, int]]
    cycles: list[list[str]]
    cycles_with_deferred: list[list[str]]
    most_imported: list[Ranked]
    layers: list[Bucket]


class Headline(TypedDict):
    """What the last step returns: where the report is, and the figures for the summary."""

    html: str
    json: str
    modules: int
    measures: int
    unparsed: int
    lines: int
    functions: int
    classes: int
    mean_complexity: float
    docstring_coverage: float
    import_edges: int
    cycles: int
    workers: int
