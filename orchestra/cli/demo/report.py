"""Write the report: `report.json` for programs, `report.html` for people."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from orchestra.cli.demo.page import Report, render
from orchestra.cli.demo.records import Headline, ImportGraph, Measure, Rankings


def write_files(rankings: Rankings, graph: ImportGraph, measures: Sequence[Measure], out: Path) -> Headline:
    """Write both files into the folder `out` and return where they are, with the headline figures."""
    out.mkdir(parents=True, exist_ok=True)
    created = datetime.now(UTC)
    python = f"{platform.python_implementation()} {platform.python_version()} on {platform.system()}"
    totals, page, data = rankings["totals"], out / "report.html", out / "report.json"
    headline = Headline(
        html=str(page),
        json=str(data),
        modules=len({each["module"] for each in measures}),
        measures=len(measures),
        unparsed=totals["unparsed"],
        lines=totals["lines"],
        functions=totals["functions"] + totals["methods"],
        classes=totals["classes"],
        mean_complexity=totals["mean_complexity"],
        docstring_coverage=totals["docstring_coverage"],
        import_edges=len(graph["edges"]) + len(graph["deferred"]),
        cycles=len(graph["cycles"]),
        workers=len({each["worker"] for each in measures}),
    )
    record = {"python": python, "created": created.isoformat(timespec="seconds"), "headline": headline}
    _replace(data, json.dumps({**record, "rankings": rankings, "graph": graph, "modules": list(measures)}, indent=1))
    _replace(page, render(Report(rankings, graph, measures, python, f"{created.day} {created:%B %Y, %H:%M} UTC")))
    return headline


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all: a step may be killed here, and run again."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
