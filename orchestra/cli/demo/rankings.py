"""The join of all measures into totals, rankings and distributions. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from orchestra.cli.demo.measure import SPREAD_BOUNDS
from orchestra.cli.demo.records import Bucket, FunctionRecord, Measure, Ranked, Rankings, Totals

TOP = 12
# A comment share says little about a module of a few lines.
MIN_LINES = 100

_SIZE_BOUNDS = (10, 30, 100, 300, 1000, 3000)


def rank_modules(measures: Sequence[Measure]) -> Rankings:
    """Return what the modules are like together, and which stand out."""
    parsed = [each for each in measures if each["error"] is None]
    documented = [each for each in parsed if each["documentable"] == each["documented"] > 0]
    lacking = [each for each in parsed if each["documented"] < each["documentable"]]
    sizeable = [each for each in parsed if each["lines"] >= MIN_LINES]
    return Rankings(
        totals=_totals(measures),
        largest=_top(parsed, lambda each: each["code"], lambda each: f"{each['lines']:,} lines in all"),
        most_complex=_top(parsed, lambda each: each["complexity"], _functions_note),
        most_complex_functions=_functions(parsed, "most_complex", lambda function: function["complexity"]),
        longest_functions=_functions(parsed, "longest", lambda function: function["lines"]),
        fully_documented=_top(documented, lambda each: each["documented"], _documented_note),
        least_documented=_top(lacking, _undocumented, _documented_note),
        most_commented=_top(sizeable, lambda each: _share(each["comments"], _written(each)), _comments_note),
        size_histogram=_histogram((each["code"] for each in parsed), _SIZE_BOUNDS),
        complexity_histogram=_complexity_histogram(parsed),
        docstring_histogram=_docstring_histogram(parsed),
        unparsed=[
            Ranked(name=each["module"], value=each["bytes"], note=each["error"])
            for each in measures
            if each["error"] is not None
        ],
    )


def _totals(measures: Sequence[Measure]) -> Totals:
    def total(value: Callable[[Measure], int]) -> int:
        return sum(value(each) for each in measures)

    functions, methods = total(lambda each: each["functions"]), total(lambda each: each["methods"])
    complexity, comments = total(lambda each: each["complexity"]), total(lambda each: each["comments"])
    documentable, documented = total(lambda each: each["documentable"]), total(lambda each: each["documented"])
    return Totals(
        modules=len(measures),
        unparsed=total(lambda each: each["error"] is not None),
        bytes=total(lambda each: each["bytes"]),
        lines=total(lambda each: each["lines"]),
        code=total(lambda each: each["code"]),
        comments=comments,
        docstrings=total(lambda each: each["docstrings"]),
        functions=functions,
        methods=methods,
        classes=total(lambda each: each["classes"]),
        complexity=complexity,
        mean_complexity=round(_share(complexity, functions + methods), 2),
        comment_share=round(_share(comments, total(_written)), 4),
        documentable=documentable,
        documented=documented,
        docstring_coverage=round(_share(documented, documentable), 4),
    )


def _top(
    measures: Iterable[Measure], value: Callable[[Measure], float], note: Callable[[Measure], str]
) -> list[Ranked]:
    """Rank by `value`, the largest first; equals by name."""
    ordered = sorted(measures, key=lambda each: (-value(each), each["module"]))
    return [Ranked(name=each["module"], value=round(value(each), 4), note=note(each)) for each in ordered[:TOP]]


def _functions(measures: Iterable[Measure], which: str, value: Callable[[FunctionRecord], int]) -> list[Ranked]:
    """Rank each module's own extreme: one function a module, so that no module fills the list."""
    found: list[Ranked] = []
    for each in measures:
        function = each["most_complex"] if which == "most_complex" else each["longest"]
        if function is not None:
            note = (
                f"{each['path']}:{function['line']}, {function['lines']:,} lines, complexity {function['complexity']}"
            )
            found.append(Ranked(name=f"{each['module']}.{function['name']}", value=value(function), note=note))
    return sorted(found, key=lambda ranked: (-ranked["value"], ranked["name"]))[:TOP]


def _histogram(values: Iterable[int], bounds: Sequence[int]) -> list[Bucket]:
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[sum(value > bound for bound in bounds)] += 1
    return [Bucket(label=label, count=count) for label, count in zip(_labels(bounds), counts, strict=True)]


def _complexity_histogram(measures: Iterable[Measure]) -> list[Bucket]:
    counts = [sum(column) for column in zip(*(each["spread"] for each in measures), strict=True)]
    labels = _labels(SPREAD_BOUNDS)
    return [Bucket(label=label, count=count) for label, count in zip(labels, counts or [0] * len(labels), strict=True)]


def _docstring_histogram(measures: Iterable[Measure]) -> list[Bucket]:
    """Count modules by tenths of docstring coverage; full coverage belongs to the last tenth."""
    counts = [0] * 10
    for each in measures:
        if each["documentable"]:
            counts[min(9, each["documented"] * 10 // each["documentable"])] += 1
    return [Bucket(label=f"{tenth * 10}+" if tenth else "0", count=count) for tenth, count in enumerate(counts)]


def _labels(bounds: Sequence[int]) -> list[str]:
    lows = [0 if bounds[0] > 1 else 1, *(bound + 1 for bound in bounds)]
    pairs = zip(lows, bounds, strict=False)
    ranges = (_brief(high) if low == high else f"{_brief(low)}–{_brief(high)}" for low, high in pairs)
    return [*ranges, f"> {_brief(bounds[-1])}"]


def _brief(bound: int) -> str:
    return f"{bound // 1000}k" if bound >= 1000 else str(bound)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _written(measure: Measure) -> int:
    return measure["code"] + measure["comments"] + measure["docstrings"]


def _undocumented(measure: Measure) -> int:
    return measure["documentable"] - measure["documented"]


def _documented_note(measure: Measure) -> str:
    return f"{measure['documented']} of {measure['documentable']} public names documented"


def _functions_note(measure: Measure) -> str:
    return f"{measure['functions'] + measure['methods']:,} functions and methods"


def _comments_note(measure: Measure) -> str:
    return f"{measure['comments']:,} comment lines"
