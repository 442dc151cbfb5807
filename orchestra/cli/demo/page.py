"""The report as one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

from orchestra.cli.demo.charts import Point, Span, bars, columns, legend, number, percent, scatter, strip
from orchestra.cli.demo.records import ImportGraph, Measure, Rankings
from orchestra.cli.demo.ring import MEMBERS, ring

_COVERAGE_LEGEND = (
    ("shade0", "under a third of the public names have a docstring"),
    ("shade1", "up to two thirds"),
    ("shade2", "more"),
)


@dataclass(frozen=True, slots=True)
class Report:
    """All that the page shows. `python` and `created` say where and when it was made."""

    rankings: Rankings
    graph: ImportGraph
    measures: Sequence[Measure]
    python: str
    created: str


def render(report: Report) -> str:
    """Return the page."""
    style = files("orchestra.cli.demo").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>The standard library of {escape(report.python)}, measured</title>\n<style>{style}</style></head>\n"
        f"<body>{_header(report)}<main>{_size(report)}{_complexity(report)}{_documentation(report)}"
        f"{_imports(report)}{_run(report)}{_details(report)}</main>{_footer(report)}</body></html>\n"
    )


def spans(measures: Sequence[Measure]) -> list[Span]:
    """Return the run's timeline: the steps that say which worker ran them and when."""
    return [
        Span(each["module"], each["worker"], each["started"], each["seconds"]) for each in measures if each["worker"]
    ]


def _header(report: Report) -> str:
    totals, graph = report.rankings["totals"], report.graph
    edges = len(graph["edges"]) + len(graph["deferred"])
    tiles = (
        (number(totals["modules"]), "modules"),
        (number(totals["code"]), f"lines of code, of {number(totals['lines'])} in all"),
        (number(totals["functions"] + totals["methods"]), "functions and methods"),
        (number(totals["classes"]), "classes"),
        (f"{totals['mean_complexity']:.1f}", "mean complexity of a function"),
        (percent(totals["docstring_coverage"]), "of public names documented"),
        (number(edges), "imports between modules"),
        (str(len(graph["cycles"])), f"import cycles, {len(graph['cycles_with_deferred'])} with deferred imports"),
    )
    shown = "".join(f"<div><dt>{escape(text)}</dt><dd>{escape(figure)}</dd></div>" for figure, text in tiles)
    return (
        '<header><p class="eyebrow">Orchestra demo</p><h1>The Python standard library, measured</h1>'
        f'<p class="lead">{_findings(report)}</p>'
        f'<p class="facts">{escape(report.python)} · {escape(report.created)}</p>'
        f'<dl class="tiles">{shown}</dl></header>'
    )


def _findings(report: Report) -> str:
    """Say in words what stands out; empty rankings say nothing."""
    rankings, totals = report.rankings, report.rankings["totals"]
    said: list[str] = []
    if rankings["most_complex_functions"]:
        worst, simple = rankings["most_complex_functions"][0], rankings["complexity_histogram"][0]["count"]
        share = percent(simple / max(totals["functions"] + totals["methods"], 1))
        said.append(f"{share} of all functions have a single path through them; <b>{escape(worst['name'])}</b>")
        said[-1] += f" has a complexity of {worst['value']:.0f}."
    if report.graph["most_imported"]:
        top = report.graph["most_imported"][0]
        said.append(f"<b>{escape(top['name'])}</b> is imported by {top['value']:.0f} modules")
        said[-1] += f", and the longest chain of imports is {len(report.graph['layers'])} layers deep."
    return " ".join(said)


def _size(report: Report) -> str:
    ranked = report.rankings
    cards = _card(
        "Largest modules", "Lines of code, without comments and docstrings.", bars(ranked["largest"], "Largest")
    )
    cards += _card(
        "Longest functions", "Lines from <code>def</code> to the end; one a module.",
        bars(ranked["longest_functions"], "Longest functions"),
    )  # fmt: skip
    cards += _card(
        "How large is a module?", "Modules by lines of code.",
        columns(ranked["size_histogram"], "Modules by lines of code"), wide=True,
    )  # fmt: skip
    return _section("Size", "A few very large modules, and a long tail of small ones.", cards)


def _complexity(report: Report) -> str:
    ranked = report.rankings
    points = [_point(each) for each in report.measures if each["complexity"] and each["code"]]
    left_out = len(report.measures) - len(points)
    cards = _card(
        "Size against complexity",
        f"One dot per module, both axes logarithmic. {left_out} modules without any function are left out.",
        scatter(points, f"Scatter plot of {len(points)} modules", "lines of code", "complexity, summed over functions")
        + legend(_COVERAGE_LEGEND),
        wide=True,
    )
    cards += _card(
        "Most complex modules", "Sum over the module's functions.", bars(ranked["most_complex"], "Most complex")
    )
    cards += _card(
        "Most complex functions", "Independent paths through one function; one a module.",
        bars(ranked["most_complex_functions"], "Most complex functions"),
    )  # fmt: skip
    cards += _card(
        "How complex is a function?",
        "Functions and methods by cyclomatic complexity; above ten, the limit that McCabe proposed, in orange.",
        columns(ranked["complexity_histogram"], "Functions by complexity", highlight=4),
        wide=True,
    )
    return _section("Complexity", "How many paths a test would have to take.", cards)


def _point(each: Measure) -> Point:
    coverage = each["documented"] / each["documentable"] if each["documentable"] else 1.0
    note = f"{each['code']:,} lines of code, complexity {each['complexity']:,}, {percent(coverage)} documented"
    return Point(each["module"], each["code"], each["complexity"], min(2, int(coverage * 3)), note)


def _documentation(report: Report) -> str:
    ranked = report.rankings
    cards = _card(
        "Docstring coverage", "Modules by the share of their public names that have a docstring, in tenths (per cent).",
        columns(ranked["docstring_histogram"], "Modules by docstring coverage in per cent"), wide=True,
    )  # fmt: skip
    cards += _card(
        "Fully documented", "Modules whose every public name has a docstring, by how many those are.",
        bars(ranked["fully_documented"], "Fully documented"),
    )  # fmt: skip
    cards += _card(
        "Most left to document", "Public names without a docstring.",
        bars(ranked["least_documented"], "Most left to document"),
    )  # fmt: skip
    return _section("Documentation", "Most modules are documented thoroughly or hardly at all.", cards)


def _imports(report: Report) -> str:
    graph, shown = report.graph, min(MEMBERS, len(report.graph["nodes"]))
    cards = _card(
        "Who imports whom",
        f"The {shown} most connected modules, foundations first, clockwise from the top. The larger a dot, the more "
        "modules import it. Point at a module, or step with the Tab key, to see its own imports.",
        ring(graph) + legend((("ramp", "from the foundations to the top layer"),)),
        wide=True,
    )
    cards += _card(
        "Most imported", "Importing modules, deferred imports included.", bars(graph["most_imported"], "Most imported")
    )
    cards += _card(
        "Cycles", "Groups of modules that import one another while being imported.", _cycles(graph["cycles"])
        + '<p class="why">With imports inside functions, which run later, there are more:</p>'
        + _cycles(graph["cycles_with_deferred"][:5]),
    )  # fmt: skip
    cards += _card(
        "Layers", "Modules by the longest chain of imports below them; layer 0 imports nothing of the library.",
        columns(graph["layers"], "Modules by layer", every=max(1, -(-len(graph["layers"]) // 9))), wide=True,
    )  # fmt: skip
    return _section("Imports", "What stands on what.", cards)


def _cycles(cycles: Sequence[Sequence[str]]) -> str:
    if not cycles:
        return "<p>None.</p>"
    rows = (
        f"<li><b>{len(cycle)}</b> {escape(', '.join(cycle[:8]))}{' …' if len(cycle) > 8 else ''}</li>"
        for cycle in cycles[:10]
    )
    return f'<ul class="cycles">{"".join(rows)}</ul>'


def _run(report: Report) -> str:
    timeline = spans(report.measures)
    if not timeline:
        return ""
    begin, end = min(span.start for span in timeline), max(span.start + span.seconds for span in timeline)
    wall, workers = max(end - begin, 0.001), len({span.worker for span in timeline})
    card = _card(
        "Steps by worker",
        f"{len(timeline):,} steps in {wall:.1f} s, {len(timeline) / wall:,.0f} a second. Each block is one module.",
        strip(timeline, f"Timeline of {len(timeline)} steps on {workers} workers")
        + legend((("step", "one step"), ("slow", "the slowest eight"))),
        wide=True,
    )
    return _section("This run", "Every module was one step of a durable workflow.", card)


def _details(report: Report) -> str:
    imported = {node["name"]: node["imported_by"] for node in report.graph["nodes"]}
    rows = "".join(_row(each, imported.get(each["module"], 0)) for each in report.measures)
    unparsed = "".join(
        f"<li><code>{escape(each['name'])}</code> {escape(each['note'])}</li>" for each in report.rankings["unparsed"]
    )
    heads = ("Module", "Code", "Comments", "Functions", "Complexity", "Highest", "Documented", "Imports", "Imported by")
    return (
        '<section aria-labelledby="all"><h2 id="all">All modules</h2>'
        + (f"<p>Could not be parsed:</p><ul>{unparsed}</ul>" if unparsed else "")
        + f"<details><summary>Show the table of {len(report.measures)} modules</summary>"
        + '<div class="scroll" tabindex="0" role="region" aria-labelledby="all"><table><thead><tr>'
        + "".join(f'<th scope="col">{head}</th>' for head in heads)
        + f"</tr></thead><tbody>{rows}</tbody></table></div></details></section>{_NOTES}"
    )


def _row(each: Measure, imported_by: int) -> str:
    highest = each["most_complex"]["complexity"] if each["most_complex"] else 0
    documented = percent(each["documented"] / each["documentable"]) if each["documentable"] else "–"
    figures = (each["code"], each["comments"], each["functions"] + each["methods"], each["complexity"], highest)
    cells = [f"{figure:,}" for figure in figures]
    cells += [documented, str(len(each["imports"]) + len(each["deferred"])), str(imported_by)]
    return f"<tr><td>{escape(each['module'])}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>\n"


def _section(title: str, why: str, cards: str) -> str:
    anchor = title.lower().replace(" ", "-")
    return (
        f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{title}</h2><p class="why">{why}</p>'
        f'<div class="cards">{cards}</div></section>\n'
    )


def _card(title: str, why: str, chart: str, *, wide: bool = False) -> str:
    return f'<div class="card{" wide" if wide else ""}"><h3>{title}</h3><p class="why">{why}</p>{chart}</div>\n'


def _footer(report: Report) -> str:
    return (
        f"<footer>Made by <code>orchestra demo</code> from the sources of {escape(report.python)}. "
        "The same figures, and those of every module, are in <code>report.json</code> beside this page.</footer>"
    )


_NOTES = """<section aria-labelledby="notes"><h2 id="notes">How it was measured</h2><div class="notes">
<p><b>Modules</b> are the Python source files of the standard library, without its tests. Modules in C appear in the
import graph alone.</p>
<p><b>Lines of code</b> are lines that are neither blank, nor a comment alone, nor part of a docstring.</p>
<p><b>Complexity</b> is the cyclomatic number of T. J. McCabe (“A Complexity Measure”, IEEE Transactions on Software
Engineering SE-2(4), 1976): one, plus one for each <code>if</code>, loop, <code>except</code>, conditional expression,
comprehension loop and condition, fallible <code>case</code>, guard, and further operand of <code>and</code> and
<code>or</code>. A nested function counts for itself; code outside of functions is not counted.</p>
<p><b>Public names</b> are the module and its classes, functions and methods without a leading underscore, outside of
functions.</p>
<p><b>Imports</b> of a name mean the submodule of that name where there is one. Those under
<code>if __name__ == "__main__"</code> do not count; those inside functions are called deferred, and make neither a
cycle nor a layer.</p></div></section>"""
